package takeover

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// boolExpr and dataExpr are compiled expressions of dhcpd (dhcp-eval(5)). A
// dataExpr's value is nil when it has none, as for an option that the client
// did not send.
type (
	boolExpr func(r *dhcp.Request) bool
	dataExpr func(r *dhcp.Request) []byte
)

// codes are options that dhcpd.conf files define for themselves, under names
// that have become usual, besides those that it defines.
func (c *compiler) optionCode(name string) (uint8, bool) {
	if code, ok := c.defined[name]; ok {
		return code.code, true
	}
	if code, ok := dhcp.OptionCode(strings.TrimPrefix(name, "dhcp.")); ok {
		return code, true
	}
	switch name {
	case "architecture", "architecture-type", "arch", "client-architecture", "system-arch":
		return 93, true
	case "dhcp-message-type":
		return 53, true
	case "dhcp-parameter-request-list":
		return 55, true
	case "dhcp-requested-address":
		return 50, true
	}
	return 0, false
}

// compiler turns the words of a condition into a function.
type compiler struct {
	p       *parser
	defined map[string]definedOption
	words   []token
	at      int
	depth   int
	last    token // for errors at the end
}

type definedOption struct {
	code uint8
	kind string
}

func (c *compiler) peek() token {
	if c.at < len(c.words) {
		return c.words[c.at]
	}
	return token{file: c.last.file, line: c.last.line, col: c.last.col}
}

func (c *compiler) take() token {
	t := c.peek()
	c.at++
	return t
}

func (c *compiler) accept(s string) bool {
	if c.peek().is(s) {
		c.at++
		return true
	}
	return false
}

func (c *compiler) expect(s string) error {
	if t := c.take(); !t.is(s) {
		return c.p.fail(t, "expected %q, found %q", s, t.text)
	}
	return nil
}

// condition compiles all of the words.
func (c *compiler) condition(words []token) (boolExpr, error) {
	c.last = words[len(words)-1]
	c.words, c.at = words[1:], 0 // behind the if
	e, err := c.or()
	if err == nil && c.at < len(c.words) {
		err = c.p.fail(c.peek(), "%q is not expected here", c.peek().text)
	}
	return e, err
}

// value compiles the words behind the first, for bytes.
func (c *compiler) value(words []token) (dataExpr, error) {
	c.last = words[len(words)-1]
	c.words, c.at = words[1:], 0
	e, err := c.data()
	if err == nil && c.at < len(c.words) {
		err = c.p.fail(c.peek(), "%q is not expected here", c.peek().text)
	}
	return e, err
}

func (c *compiler) or() (boolExpr, error) {
	left, err := c.and()
	for err == nil && c.accept("or") {
		l := left
		var right boolExpr
		if right, err = c.and(); err == nil {
			left = func(r *dhcp.Request) bool { return l(r) || right(r) }
		}
	}
	return left, err
}

func (c *compiler) and() (boolExpr, error) {
	left, err := c.not()
	for err == nil && c.accept("and") {
		l := left
		var right boolExpr
		if right, err = c.not(); err == nil {
			left = func(r *dhcp.Request) bool { return l(r) && right(r) }
		}
	}
	return left, err
}

func (c *compiler) enter() error {
	if c.depth++; c.depth > maxDepth {
		return c.p.fail(c.peek(), "expressions are nested more than %d deep", maxDepth)
	}
	return nil
}

func (c *compiler) not() (boolExpr, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer func() { c.depth-- }()
	switch {
	case c.accept("not"):
		e, err := c.not()
		if err != nil {
			return nil, err
		}
		return func(r *dhcp.Request) bool { return !e(r) }, nil
	case c.accept("("):
		e, err := c.or()
		if err == nil {
			err = c.expect(")")
		}
		return e, err
	case c.accept("exists"):
		t := c.take()
		code, ok := c.optionCode(t.text)
		if !ok {
			return nil, c.p.fail(t, "option %q is not known", t.text)
		}
		return func(r *dhcp.Request) bool { return r.Options.Has(dhcpv4.GenericOptionCode(code)) }, nil
	case c.peek().is("known"), c.peek().is("static"), c.peek().is("check"):
		return nil, c.p.fail(c.peek(), "the condition %q is not supported", c.peek().text)
	}
	left, err := c.data()
	if err != nil {
		return nil, err
	}
	op := c.take()
	if !op.is("=") && !op.is("!=") {
		return nil, c.p.fail(op, "the operator %q is not supported, = and != are", op.text)
	}
	right, err := c.data()
	if err != nil {
		return nil, err
	}
	equal := op.is("=")
	return func(r *dhcp.Request) bool {
		a, b := left(r), right(r)
		if a == nil || b == nil {
			return (a == nil && b == nil) == equal
		}
		return bytes.Equal(a, b) == equal
	}, nil
}

func constant(b []byte) dataExpr {
	if b == nil {
		b = []byte{}
	}
	return func(*dhcp.Request) []byte { return b }
}

func (c *compiler) number() (int, error) {
	t := c.take()
	n, err := strconv.Atoi(t.text)
	if err != nil || t.quoted || n < 0 || n > 1<<16 {
		return 0, c.p.fail(t, "expected a number, found %q", t.text)
	}
	return n, nil
}

// data compiles an expression for bytes.
func (c *compiler) data() (dataExpr, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer func() { c.depth-- }()
	t := c.take()
	if t.quoted {
		return constant([]byte(t.text)), nil
	}
	switch t.text {
	case "option":
		name := c.take()
		switch name.text {
		case "agent.circuit-id":
			return func(r *dhcp.Request) []byte { return r.RelayInfo(1) }, nil
		case "agent.remote-id":
			return func(r *dhcp.Request) []byte { return r.RelayInfo(2) }, nil
		}
		code, ok := c.optionCode(name.text)
		if !ok {
			return nil, c.p.fail(name, "option %q is not known", name.text)
		}
		return func(r *dhcp.Request) []byte { return r.Options[code] }, nil
	case "hardware":
		return func(r *dhcp.Request) []byte { return append([]byte{byte(r.HWType)}, r.ClientHWAddr...) }, nil
	case "substring", "suffix", "lcase", "ucase", "concat", "binary-to-ascii", "pick-first-value":
		return c.function(t)
	}
	if b := hexBytes(t.text); b != nil {
		return constant(b), nil
	}
	return nil, c.p.fail(t, "the expression %q is not supported", t.text)
}

// hexBytes reads a, 0a:1b and the like.
func hexBytes(s string) []byte {
	var b []byte
	for part := range strings.SplitSeq(s, ":") {
		n, err := strconv.ParseUint(part, 16, 8)
		if err != nil || len(part) > 2 {
			return nil
		}
		b = append(b, byte(n))
	}
	return b
}

func (c *compiler) function(name token) (dataExpr, error) {
	if err := c.expect("("); err != nil {
		return nil, err
	}
	if name.text == "binary-to-ascii" {
		return c.binaryToASCII()
	}
	first, err := c.data()
	if err != nil {
		return nil, err
	}
	args := []dataExpr{first}
	var numbers []int
	for c.accept(",") {
		if name.text == "substring" || name.text == "suffix" {
			n, err := c.number()
			if err != nil {
				return nil, err
			}
			numbers = append(numbers, n)
			continue
		}
		e, err := c.data()
		if err != nil {
			return nil, err
		}
		args = append(args, e)
	}
	if err := c.expect(")"); err != nil {
		return nil, err
	}
	want := map[string]int{"substring": 2, "suffix": 1}[name.text]
	if len(numbers) != want || (name.text == "lcase" || name.text == "ucase") && len(args) != 1 {
		return nil, c.p.fail(name, "%s has not the right number of arguments", name.text)
	}
	switch name.text {
	case "substring":
		return func(r *dhcp.Request) []byte {
			v := first(r)
			if v == nil || numbers[0] > len(v) {
				return v[:0:0]
			}
			return v[numbers[0]:min(len(v), numbers[0]+numbers[1])]
		}, nil
	case "suffix":
		return func(r *dhcp.Request) []byte {
			v := first(r)
			return v[max(0, len(v)-numbers[0]):]
		}, nil
	case "lcase":
		return func(r *dhcp.Request) []byte { return bytes.ToLower(first(r)) }, nil
	case "ucase":
		return func(r *dhcp.Request) []byte { return bytes.ToUpper(first(r)) }, nil
	case "pick-first-value":
		return func(r *dhcp.Request) []byte {
			for _, a := range args {
				if v := a(r); v != nil {
					return v
				}
			}
			return nil
		}, nil
	}
	return func(r *dhcp.Request) []byte { // concat
		all := []byte{}
		for _, a := range args {
			all = append(all, a(r)...)
		}
		return all
	}, nil
}

// binaryToASCII (base, bits, separator, data) writes numbers as text.
func (c *compiler) binaryToASCII() (dataExpr, error) {
	start := c.peek()
	base, err := c.number()
	if err == nil {
		err = c.expect(",")
	}
	var bits int
	if err == nil {
		bits, err = c.number()
	}
	if err == nil {
		err = c.expect(",")
	}
	if err != nil {
		return nil, err
	}
	sep, err := c.data()
	if err == nil {
		err = c.expect(",")
	}
	if err != nil {
		return nil, err
	}
	value, err := c.data()
	if err == nil {
		err = c.expect(")")
	}
	if err != nil {
		return nil, err
	}
	if base < 2 || base > 16 || bits != 8 && bits != 16 && bits != 32 {
		return nil, c.p.fail(start, "binary-to-ascii takes a base from 2 to 16 and 8, 16 or 32 bits")
	}
	return func(r *dhcp.Request) []byte {
		v := value(r)
		if v == nil || len(v)%(bits/8) != 0 {
			return nil
		}
		parts := []string{}
		for ; len(v) > 0; v = v[bits/8:] {
			var n uint64
			for _, b := range v[:bits/8] {
				n = n<<8 | uint64(b)
			}
			parts = append(parts, strconv.FormatUint(n, base))
		}
		return []byte(strings.Join(parts, string(sep(r))))
	}, nil
}
