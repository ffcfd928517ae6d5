package takeover

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// Kea's expressions ("test" of a client class): comparisons of bytes, put
// together by not, and, or. In use for booting are option[N].hex, .text and
// .exists, also of option 82 (relay4), substring, concat, pkt4.mac, pkt4.giaddr
// and member; the rest is an error.

type keaParser struct {
	text   string
	at     int
	depth  int
	member func(name string) (boolExpr, bool)
}

// keaCondition compiles an expression; member finds a class that was defined
// before.
func keaCondition(text string, member func(name string) (boolExpr, bool)) (boolExpr, error) {
	p := &keaParser{text: text, member: member}
	e, err := p.or()
	if err == nil && p.peek() != "" {
		err = fmt.Errorf("%q is not expected", p.peek())
	}
	return e, err
}

// token returns the next one and where it ends: a name, a number, a string in
// quotes, or a sign. It is "" at the end.
func (p *keaParser) token() (string, int) {
	i := p.at
	for i < len(p.text) && strings.IndexByte(" \t\r\n", p.text[i]) >= 0 {
		i++
	}
	if i == len(p.text) {
		return "", i
	}
	j := i + 1
	switch c := p.text[i]; {
	case c == '\'':
		for j < len(p.text) && p.text[j] != '\'' {
			j++
		}
		j = min(j+1, len(p.text))
	case c == '=':
		for j < len(p.text) && p.text[j] == '=' {
			j++
		}
	case isWord(c):
		for j < len(p.text) && (isWord(p.text[j]) || p.text[j] == '-') {
			j++
		}
	}
	return p.text[i:j], j
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == ':'
}

func (p *keaParser) peek() string {
	t, _ := p.token()
	return t
}

func (p *keaParser) take() string {
	t, end := p.token()
	p.at = end
	return t
}

func (p *keaParser) accept(want string) bool {
	if p.peek() == want {
		p.take()
		return true
	}
	return false
}

func (p *keaParser) expect(list ...string) error {
	for _, want := range list {
		if t := p.take(); t != want {
			return fmt.Errorf("expected %q, found %q", want, t)
		}
	}
	return nil
}

func (p *keaParser) or() (boolExpr, error) {
	left, err := p.and()
	for err == nil && p.accept("or") {
		l := left
		var right boolExpr
		if right, err = p.and(); err == nil {
			left = func(r *dhcp.Request) bool { return l(r) || right(r) }
		}
	}
	return left, err
}

func (p *keaParser) and() (boolExpr, error) {
	left, err := p.not()
	for err == nil && p.accept("and") {
		l := left
		var right boolExpr
		if right, err = p.not(); err == nil {
			left = func(r *dhcp.Request) bool { return l(r) && right(r) }
		}
	}
	return left, err
}

func (p *keaParser) not() (boolExpr, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	switch {
	case p.accept("not"):
		e, err := p.not()
		if err != nil {
			return nil, err
		}
		return func(r *dhcp.Request) bool { return !e(r) }, nil
	case p.accept("("):
		e, err := p.or()
		if err == nil {
			err = p.expect(")")
		}
		return e, err
	case p.accept("member"):
		if err := p.expect("("); err != nil {
			return nil, err
		}
		name := strings.Trim(p.take(), "'")
		e, ok := p.member(name)
		if !ok {
			return nil, fmt.Errorf("class %q is not known here", name)
		}
		return e, p.expect(")")
	}
	start := p.at
	left, exists, err := p.value()
	if err != nil {
		return nil, err
	}
	if exists {
		return func(r *dhcp.Request) bool { return left(r) != nil }, nil
	}
	if op := p.take(); op != "==" {
		return nil, fmt.Errorf("after %q expected ==, found %q", strings.TrimSpace(p.text[start:p.at]), op)
	}
	right, exists, err := p.value()
	if err == nil && exists {
		err = fmt.Errorf("exists is no value")
	}
	return func(r *dhcp.Request) bool { return bytes.Equal(left(r), right(r)) }, err
}

// value compiles an expression for bytes; what a client did not send is nil,
// and equal to nothing at all. exists is true for option[N].exists.
func (p *keaParser) value() (e dataExpr, exists bool, err error) {
	if p.depth++; p.depth > maxDepth {
		return nil, false, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	t := p.take()
	switch {
	case t == "option" || t == "relay4":
		return p.option(t == "relay4")
	case t == "pkt4":
		if err := p.expect("."); err != nil {
			return nil, false, err
		}
		switch field := p.take(); field {
		case "mac":
			return func(r *dhcp.Request) []byte { return r.ClientHWAddr }, false, nil
		case "giaddr":
			return func(r *dhcp.Request) []byte { return append(make([]byte, 0, 4), r.GatewayIPAddr.To4()...) }, false, nil
		default:
			return nil, false, fmt.Errorf("pkt4.%s is not supported", field)
		}
	case t == "substring":
		e, err = p.substring()
		return e, false, err
	case t == "concat":
		e, err = p.concat()
		return e, false, err
	case len(t) >= 2 && t[0] == '\'' && t[len(t)-1] == '\'':
		return constant([]byte(t[1 : len(t)-1])), false, nil
	case strings.HasPrefix(t, "0x") || strings.HasPrefix(t, "0X"):
		digits := t[2:]
		if len(digits)%2 == 1 {
			digits = "0" + digits
		}
		b, err := hex.DecodeString(digits)
		if err != nil {
			return nil, false, fmt.Errorf("%q is no number", t)
		}
		return constant(b), false, nil
	}
	// An address, of which the dots are tokens of their own.
	text := t
	for p.peek() == "." && len(text) < 16 {
		p.take()
		text += "." + p.take()
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return constant(a.AsSlice()), false, nil
	}
	return nil, false, fmt.Errorf("%q is not supported", t)
}

func (p *keaParser) option(relay bool) (e dataExpr, exists bool, err error) {
	if err := p.expect("["); err != nil {
		return nil, false, err
	}
	name := p.take()
	n, err := strconv.ParseUint(name, 10, 8)
	code, ok := uint8(n), err == nil
	if !ok && !relay {
		code, ok = dhcp.OptionCode(name)
	}
	if !ok {
		return nil, false, fmt.Errorf("option %q is not known", name)
	}
	if err := p.expect("]", "."); err != nil {
		return nil, false, err
	}
	raw := func(r *dhcp.Request) []byte { return r.Options[code] }
	if relay {
		raw = func(r *dhcp.Request) []byte { return r.RelayInfo(code) }
	}
	switch kind := p.take(); kind {
	case "hex":
		return raw, false, nil
	case "text":
		return func(r *dhcp.Request) []byte { return bytes.TrimRight(raw(r), "\x00") }, false, nil
	case "exists":
		if relay {
			return raw, true, nil
		}
		return func(r *dhcp.Request) []byte {
			if !r.Options.Has(dhcpv4.GenericOptionCode(code)) {
				return nil
			}
			return []byte{}
		}, true, nil
	default:
		return nil, false, fmt.Errorf("option[%s].%s is not supported", name, kind)
	}
}

func (p *keaParser) substring() (dataExpr, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	e, _, err := p.value()
	if err == nil {
		err = p.expect(",")
	}
	if err != nil {
		return nil, err
	}
	from, err1 := strconv.ParseUint(p.take(), 10, 16)
	if err := p.expect(","); err != nil {
		return nil, err
	}
	length := p.take()
	n, err2 := strconv.ParseUint(length, 10, 16)
	if length == "all" {
		n, err2 = 1<<16, nil
	}
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("substring takes a start from 0 on and a length, or all")
	}
	return func(r *dhcp.Request) []byte {
		v := e(r)
		if from >= uint64(len(v)) {
			return nil
		}
		return v[from:min(uint64(len(v)), from+n)]
	}, p.expect(")")
}

func (p *keaParser) concat() (dataExpr, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	a, _, err := p.value()
	if err == nil {
		err = p.expect(",")
	}
	if err != nil {
		return nil, err
	}
	b, _, err := p.value()
	if err == nil {
		err = p.expect(")")
	}
	return func(r *dhcp.Request) []byte { return append(bytes.Clone(a(r)), b(r)...) }, err
}
