package ltsconf

import (
	"math"
	"strconv"
	"strings"
)

// arithmetic is $((...)), in 64 bits.
func (ev *evaluator) arithmetic(t part) val {
	v := ev.joinFrags(ev.frags(t.arg, nil))
	if ev.stopped() {
		return val{}
	}
	if v.dyn {
		return ev.shrug(t)
	}
	a := &arith{ev: ev, src: v.s}
	a.next()
	n := a.assignment()
	if a.tok != "" && a.why == "" {
		a.fail("unexpected " + clip(a.tok))
	}
	switch {
	case a.dyn:
		return ev.shrug(t)
	case a.why != "":
		ev.die(ev.pos, "%s: %s", clip(t.source), a.why)
		return val{}
	}
	return val{s: strconv.FormatInt(n, 10)}
}

// arith is a recursive descent over an arithmetic expression.
type arith struct {
	ev    *evaluator
	src   string
	pos   int
	tok   string // empty at the end
	skip  int    // within what && and || and ?: leave out
	depth int
	why   string
	dyn   bool
}

func (a *arith) fail(why string) {
	if a.why == "" {
		a.why = why
	}
	a.tok, a.pos = "", len(a.src)
}

func (a *arith) next() {
	for a.pos < len(a.src) && strings.IndexByte(" \t\n", a.src[a.pos]) >= 0 {
		a.pos++
	}
	rest := a.src[a.pos:]
	if rest == "" {
		a.tok = ""
		return
	}
	n := nameLen(rest)
	if n == 0 && rest[0] >= '0' && rest[0] <= '9' {
		for n < len(rest) && (nameLen(rest[n:n+1]) > 0 || rest[n] >= '0' && rest[n] <= '9') {
			n++
		}
	}
	if n == 0 {
		for _, op := range [...]string{"<<=", ">>=", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "+=", "-=", "*=", "/=", "%=", "&=", "^=", "|="} {
			if strings.HasPrefix(rest, op) {
				n = len(op)
				break
			}
		}
	}
	if n == 0 {
		if n = 1; strings.IndexByte("+-*/%<>&|^!~?:=()", rest[0]) < 0 {
			a.fail("unexpected " + clip(rest[:1]))
			return
		}
	}
	a.tok, a.pos = rest[:n], a.pos+n
}

func (a *arith) enter() bool {
	if a.depth++; a.depth > maxDepth*4 {
		a.fail("nested too deeply")
		return false
	}
	return true
}

func (a *arith) assignment() int64 {
	defer func() { a.depth-- }()
	if !a.enter() {
		return 0
	}
	if name := a.tok; nameLen(name) > 0 {
		save, tok := a.pos, a.tok
		a.next()
		if op := a.tok; op == "=" || len(op) > 1 && op[len(op)-1] == '=' && op != "==" && op != "<=" && op != ">=" && op != "!=" {
			a.next()
			v := a.assignment()
			if op != "=" {
				v = a.apply(op[:len(op)-1], a.variable(name), v)
			}
			if a.skip == 0 && a.why == "" && !a.dyn {
				a.ev.assign(a.ev.pos, name, val{s: strconv.FormatInt(v, 10)})
			}
			return v
		}
		a.pos, a.tok = save, tok
	}
	return a.condition()
}

func (a *arith) condition() int64 {
	cond := a.binary(0)
	if a.tok != "?" {
		return cond
	}
	a.next()
	a.leave(cond == 0)
	x := a.assignment()
	a.back(cond == 0)
	if a.tok != ":" {
		a.fail("a : is missing behind ?")
		return 0
	}
	a.next()
	a.leave(cond != 0)
	y := a.conditionIn()
	a.back(cond != 0)
	if cond != 0 {
		return x
	}
	return y
}

func (a *arith) conditionIn() int64 {
	defer func() { a.depth-- }()
	if !a.enter() {
		return 0
	}
	return a.condition()
}

func (a *arith) leave(out bool) {
	if out {
		a.skip++
	}
}

func (a *arith) back(out bool) {
	if out {
		a.skip--
	}
}

func precedence(op string) int {
	switch op {
	case "||":
		return 1
	case "&&":
		return 2
	case "|":
		return 3
	case "^":
		return 4
	case "&":
		return 5
	case "==", "!=":
		return 6
	case "<", ">", "<=", ">=":
		return 7
	case "<<", ">>":
		return 8
	case "+", "-":
		return 9
	case "*", "/", "%":
		return 10
	}
	return 0
}

func (a *arith) binary(above int) int64 {
	x := a.unary()
	for {
		op := a.tok
		p := precedence(op)
		if p == 0 || p <= above {
			return x
		}
		a.next()
		out := op == "||" && x != 0 || op == "&&" && x == 0
		a.leave(out)
		y := a.binary(p)
		a.back(out)
		x = a.apply(op, x, y)
	}
}

func (a *arith) unary() int64 {
	defer func() { a.depth-- }()
	if !a.enter() {
		return 0
	}
	op := a.tok
	switch op {
	case "-", "+", "!", "~":
		a.next()
		x := a.unary()
		switch op {
		case "-":
			return -x
		case "!":
			return bit(x == 0)
		case "~":
			return ^x
		}
		return x
	case "(":
		a.next()
		x := a.assignment()
		if a.tok != ")" {
			a.fail("a ) is missing")
			return 0
		}
		a.next()
		return x
	case "":
		a.fail("a value is missing")
		return 0
	}
	if nameLen(op) > 0 {
		a.next()
		return a.variable(op)
	}
	if op[0] < '0' || op[0] > '9' {
		a.fail("unexpected " + clip(op))
		return 0
	}
	n, ok := cInteger(op)
	if !ok {
		a.fail("unexpected " + clip(op))
		return 0
	}
	a.next()
	return n
}

func (a *arith) variable(name string) int64 {
	if a.skip > 0 {
		return 0
	}
	v, _ := a.ev.lookup(name)
	if v.dyn {
		a.dyn = true
		return 0
	}
	s := strings.Trim(v.s, " \t\n\v\f\r")
	if s == "" {
		return 0
	}
	neg := s[0] == '-'
	n, ok := cInteger(strings.TrimPrefix(strings.TrimPrefix(s, "-"), "+"))
	if !ok || strings.HasPrefix(s, "-+") {
		a.fail(clip(name) + " is no number")
	}
	if neg {
		n = -n
	}
	return n
}

// cInteger reads a number as C's strtoimax does with base 0.
func cInteger(s string) (int64, bool) {
	base := 10
	switch {
	case len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x':
		s, base = s[2:], 16
	case len(s) > 1 && s[0] == '0':
		s, base = s[1:], 8
	}
	if s == "" || s[0] == '+' || s[0] == '-' || strings.Contains(s, "_") {
		return 0, false
	}
	n, err := strconv.ParseUint(s, base, 64)
	if err != nil && n != math.MaxUint64 {
		return 0, false
	}
	return int64(min(n, math.MaxInt64)), true
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (a *arith) apply(op string, x, y int64) int64 {
	switch op {
	case "||":
		return bit(x != 0 || y != 0)
	case "&&":
		return bit(x != 0 && y != 0)
	case "|":
		return x | y
	case "^":
		return x ^ y
	case "&":
		return x & y
	case "==":
		return bit(x == y)
	case "!=":
		return bit(x != y)
	case "<":
		return bit(x < y)
	case ">":
		return bit(x > y)
	case "<=":
		return bit(x <= y)
	case ">=":
		return bit(x >= y)
	case "<<":
		return x << (uint64(y) & 63)
	case ">>":
		return x >> (uint64(y) & 63)
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	}
	if y == 0 {
		if a.skip == 0 {
			a.fail("division by zero")
		}
		return 0
	}
	if op == "/" {
		return x / y
	}
	return x % y
}
