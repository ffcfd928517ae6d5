package ltsconf

import (
	"errors"
	"strings"
)

// Literal returns the value that every client sees as exactly s: what the
// shell treats specially is escaped. That s can be written at all (no
// newline, no carriage return, no NUL, not the word NONE) is checked when the
// value is: see [Settings.WriteTo].
func Literal(s string) Value {
	n := 0
	for i := range len(s) {
		if isSpecial(s[i]) {
			n++
		}
	}
	if n == 0 {
		return Value{Raw: s}
	}
	var b strings.Builder
	b.Grow(len(s) + n)
	for i := range len(s) {
		if isSpecial(s[i]) {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return Value{Raw: b.String()}
}

// Literal returns the value as the client's shell sees it. It reports false
// when that is not known before the shell runs (the value has a $VAR, a
// $(command) or a `command`), or when the shell would fail on it.
func (v Value) Literal() (string, bool) {
	if expands, err := checkQuoted(v.Raw); expands || err != nil {
		return "", false
	}
	if strings.IndexByte(v.Raw, '\\') < 0 {
		return v.Raw, true
	}
	var b strings.Builder
	b.Grow(len(v.Raw))
	for i := 0; i < len(v.Raw); i++ {
		if v.Raw[i] == '\\' && isSpecial(v.Raw[i+1]) {
			i++
		}
		b.WriteByte(v.Raw[i])
	}
	return b.String(), true
}

// isSpecial reports whether a backslash before c disappears within double
// quotes (POSIX.1-2017, XCU 2.2.3; a value has no newline).
func isSpecial(c byte) bool { return c == '\\' || c == '"' || c == '$' || c == '`' }

var (
	errBackslash = errors.New(`a backslash at the end escapes the closing quote; write \\`)
	errQuote     = errors.New(`a double quote inside the value; write \" for the character, and no quotes in a comment behind a value`)
	errBackquote = errors.New("a ` without a second one; write \\` for the character")
	errSingle    = errors.New("a single quote without a second one inside $(...)")
	errOpen      = errors.New(`a "$(" or "${" that is not closed; write \$ for the character`)
)

// checkQuoted reads raw as a POSIX shell reads the inside of a double-quoted
// string (XCU 2.2.3, 2.6.3), as far as to know that the string ends where raw
// does. expands tells that there is something to expand.
func checkQuoted(raw string) (expands bool, err error) {
	if !strings.ContainsAny(raw, "\\\"$`") {
		return false, nil
	}
	// What is open, innermost last: " string, ( command, { parameter. It is
	// no recursion, so that no input can exhaust the stack.
	open := []byte{'"'}
	for i := 0; i < len(raw); i++ {
		top := open[len(open)-1]
		switch c := raw[i]; c {
		case '\\':
			if i++; i == len(raw) {
				return expands, errBackslash
			}
		case '"':
			if top != '"' {
				open = append(open, '"')
			} else if len(open) == 1 {
				return expands, errQuote
			} else {
				open = open[:len(open)-1]
			}
		case '`':
			expands = true
			if i = closing(raw, i+1); i < 0 {
				return expands, errBackquote
			}
		case '$':
			if i+1 == len(raw) {
				break
			}
			switch next := raw[i+1]; {
			case next == '(' || next == '{':
				expands = true
				open = append(open, next)
				i++
			case strings.IndexByte("@*#?$!-_", next) >= 0,
				next >= '0' && next <= '9', next|0x20 >= 'a' && next|0x20 <= 'z':
				expands = true
				i++
			}
		case '\'':
			if top == '(' {
				n := strings.IndexByte(raw[i+1:], '\'')
				if n < 0 {
					return expands, errSingle
				}
				i += n + 1
			}
		case '(':
			if top == '(' {
				open = append(open, '(')
			}
		case ')':
			if top == '(' {
				open = open[:len(open)-1]
			}
		case '}':
			if top == '{' {
				open = open[:len(open)-1]
			}
		}
	}
	if len(open) > 1 {
		return expands, errOpen
	}
	return expands, nil
}

// closing returns the offset of the backquote that ends a command which
// starts at i, or -1.
func closing(raw string, i int) int {
	for ; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '`':
			return i
		}
	}
	return -1
}
