package ltsconf

import (
	"strconv"
	"strings"
)

// test is test(1) as dash has it; what it needs the client for is unknown.
func test(args []string) status {
	negated := false
	for {
		if len(args) == 0 {
			return truth(negated)
		}
		if len(args) == 3 && isBinary(args[1]) {
			break
		}
		if len(args) == 3 || len(args) == 4 {
			if args[0] == "(" && args[len(args)-1] == ")" {
				args = args[1 : len(args)-1]
				break
			}
			if args[0] == "!" {
				args, negated = args[1:], !negated
				continue
			}
		}
		break
	}
	t := &tester{args: args}
	var v status
	if len(args) == 3 && isBinary(args[1]) {
		v = t.binary()
		t.pos++
	} else {
		v = t.or()
	}
	switch {
	case t.bad || t.pos < len(args):
		return 2
	case v == unknown:
		return unknown
	}
	return truth((v == 0) != negated)
}

func truth(b bool) status {
	if b {
		return 0
	}
	return 1
}

type tester struct {
	args  []string
	pos   int
	depth int
	bad   bool
}

func isBinary(s string) bool {
	switch s {
	case "=", "!=", "<", ">", "-eq", "-ne", "-ge", "-gt", "-le", "-lt", "-nt", "-ot", "-ef":
		return true
	}
	return false
}

func isUnary(s string) bool {
	return len(s) == 2 && s[0] == '-' && strings.IndexByte("rwxefdcbpugkstznOGLhS", s[1]) >= 0
}

func (t *tester) at(i int) (string, bool) {
	if i < len(t.args) {
		return t.args[i], true
	}
	return "", false
}

// operand reports whether the word at i, which looks like an operator, is none.
func (t *tester) operand(i int) bool {
	if _, ok := t.at(i + 1); !ok {
		return true
	}
	_, ok := t.at(i + 2)
	return ok && isBinary(t.args[i+1])
}

func (t *tester) is(i int, op string) bool {
	s, ok := t.at(i)
	return ok && s == op
}

// or, and, not and primary leave pos at the last word that they took.
func (t *tester) or() status {
	v := t.and()
	for t.is(t.pos+1, "-o") && !t.bad {
		t.pos += 2
		v = either(v, t.and(), 0)
	}
	if t.depth == 0 {
		t.pos++
	}
	return v
}

func (t *tester) and() status {
	v := t.not()
	for t.is(t.pos+1, "-a") && !t.bad {
		t.pos += 2
		v = either(v, t.not(), 1)
	}
	return v
}

// either combines a and b, of which one that is decisive is enough.
func either(a, b, decisive status) status {
	switch {
	case a == decisive || b == decisive:
		return decisive
	case a == unknown || b == unknown:
		return unknown
	}
	return a
}

func (t *tester) not() status {
	if !t.is(t.pos, "!") {
		return t.primary()
	}
	if t.depth++; t.depth > maxDepth*16 {
		t.bad = true
		return 2
	}
	t.pos++
	v := t.not()
	t.depth--
	if v == unknown {
		return v
	}
	return truth(v != 0)
}

func (t *tester) primary() status {
	s, ok := t.at(t.pos)
	switch {
	case !ok:
		return 1
	case s == "(" && t.pos+1 < len(t.args):
		if t.depth++; t.depth > maxDepth*16 {
			t.bad = true
			return 2
		}
		t.pos++
		if t.is(t.pos, ")") {
			t.depth--
			return 1
		}
		v := t.or()
		t.depth--
		if t.pos++; !t.is(t.pos, ")") {
			t.bad = true
		}
		return v
	case isUnary(s) && !t.operand(t.pos):
		t.pos++
		switch v := t.args[t.pos]; s {
		case "-n":
			return truth(v != "")
		case "-z":
			return truth(v == "")
		}
		return unknown
	}
	if next, ok := t.at(t.pos + 1); ok && isBinary(next) {
		return t.binary()
	}
	return truth(s != "")
}

func (t *tester) binary() status {
	a, op := t.args[t.pos], t.args[t.pos+1]
	t.pos += 2
	b, ok := t.at(t.pos)
	if !ok {
		t.bad = true
		return 2
	}
	switch op {
	case "=":
		return truth(a == b)
	case "!=":
		return truth(a != b)
	case "<":
		return truth(a < b)
	case ">":
		return truth(a > b)
	case "-nt", "-ot", "-ef":
		return unknown
	}
	x, ok := number(a)
	y, ok2 := number(b)
	if !ok || !ok2 {
		t.bad = true
		return 2
	}
	switch op {
	case "-eq":
		return truth(x == y)
	case "-ne":
		return truth(x != y)
	case "-lt":
		return truth(x < y)
	case "-le":
		return truth(x <= y)
	case "-gt":
		return truth(x > y)
	}
	return truth(x >= y)
}

func number(s string) (int64, bool) {
	n, err := strconv.ParseInt(strings.Trim(s, " \t\n\v\f\r"), 10, 64)
	return n, err == nil
}
