package ltsconf

import (
	"fmt"
	"strings"
)

// fields expands words as the arguments of a command. ok is false when that
// needs the client.
func (ev *evaluator) fields(words [][]part) (out []string, ok bool) {
	for _, w := range words {
		var field strings.Builder
		have := false
		for _, t := range w {
			raw, dynamic := ev.expand([]part{t})
			s, lit := Value{Raw: raw}.Literal()
			if dynamic || !lit {
				return nil, false
			}
			if t.quoted || t.kind == textPart {
				field.WriteString(s)
				have = true
				continue
			}
			// An unquoted substitution falls apart at white space.
			for i := 0; i < len(s); i++ {
				if s[i] != ' ' && s[i] != '\t' && s[i] != '\n' {
					field.WriteByte(s[i])
					have = true
				} else if have {
					out = append(out, field.String())
					field.Reset()
					have = false
				}
			}
		}
		if have {
			out = append(out, field.String())
		}
	}
	return out, true
}

// expand returns the text of a word as it is inside of double quotes. dynamic
// tells that it could not be found: a value with a command is none of these.
func (ev *evaluator) expand(w []part) (raw string, dynamic bool) {
	var b strings.Builder
	for _, t := range w {
		var s string
		switch t.kind {
		case textPart:
			s = Literal(t.text).Raw
		case opaquePart:
			s = t.text
		default:
			var d bool
			s, d = ev.param(t)
			dynamic = dynamic || d
		}
		if ev.bytes -= len(s); ev.bytes < 0 {
			if !ev.halted {
				ev.halted = true
				ev.note(0, "the values are too large")
			}
			return b.String(), true
		}
		b.WriteString(s)
	}
	return b.String(), dynamic
}

func (ev *evaluator) param(t part) (raw string, dynamic bool) {
	v := ev.vars[t.text]
	if v != nil {
		raw = v.raw
	}
	lit, known := Value{Raw: raw}.Literal()
	switch op := strings.TrimPrefix(t.op, ":"); op {
	case "":
		return raw, false
	case "-", "=", "+", "?":
		present := v != nil
		if t.op != op { // with the colon: empty counts as unset
			if present = present && lit != ""; !known {
				return raw, true
			}
		}
		switch {
		case op == "+" && !present, op == "?" && !present:
			return "", op == "?"
		case op == "+", !present:
			raw, dynamic = ev.expand(t.arg)
			if op == "=" {
				ev.assign(0, t.text, raw)
			}
		}
		return raw, dynamic
	case "len":
		return fmt.Sprint(len(lit)), !known
	}
	pat, ok := ev.pattern(t.arg)
	if !ok || !known || len(lit) > maxPattern || len(pat) > maxPattern {
		return raw, true
	}
	n := len(lit)
	for i := range n + 1 {
		var head, tail string
		switch t.op {
		case "%":
			head, tail = lit[:n-i], lit[n-i:]
		case "%%":
			head, tail = lit[:i], lit[i:]
		case "#":
			head, tail = lit[i:], lit[:i]
		case "##":
			head, tail = lit[n-i:], lit[:n-i]
		}
		if ev.bytes -= len(tail); ev.bytes < 0 {
			ev.halted = true
			return raw, true
		}
		if shellMatch(pat, tail) {
			return Literal(head).Raw, false
		}
	}
	return raw, false
}

// pattern expands a word as a pattern: what is quoted matches itself.
func (ev *evaluator) pattern(w []part) (string, bool) {
	var b strings.Builder
	for _, t := range w {
		raw, dynamic := ev.expand([]part{t})
		s, ok := Value{Raw: raw}.Literal()
		if dynamic || !ok {
			return "", false
		}
		for i := range len(s) {
			if t.quoted && strings.IndexByte(`*?[]\`, s[i]) >= 0 {
				b.WriteByte('\\')
			}
			b.WriteByte(s[i])
		}
	}
	return b.String(), true
}

// tilde replaces a ~ that stands for the home directory.
func (ev *evaluator) tilde(w []part) []part {
	if len(w) == 0 || w[0].quoted || w[0].kind != textPart || !strings.HasPrefix(w[0].text, "~") {
		return w
	}
	rest := w[0].text[1:]
	if rest != "" && rest[0] != '/' && rest[0] != ':' {
		return w
	}
	return append([]part{{kind: opaquePart, text: "$HOME"}, {text: rest}}, w[1:]...)
}

// globMatch matches a pattern of * and ? only, letters in their own case.
func globMatch(p, s string) bool {
	i, j, star, resume := 0, 0, -1, 0
	for j < len(s) {
		switch {
		case i < len(p) && p[i] == '*':
			star, resume = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == s[j]):
			i++
			j++
		case star >= 0:
			resume++
			i, j = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(p[i:], "*") == ""
}

// shellMatch matches a pattern of case, which knows sets and backslashes too.
func shellMatch(p, s string) bool {
	i, j, star, resume := 0, 0, -1, 0
	for j < len(s) {
		if i < len(p) && p[i] == '*' {
			star, resume = i, j
			i++
			continue
		}
		if n, ok := shellMatchOne(p[i:], s[j]); ok {
			i += n
			j++
			continue
		}
		if star < 0 {
			return false
		}
		resume++
		i, j = star+1, resume
	}
	return strings.Trim(p[i:], "*") == ""
}

func shellMatchOne(p string, c byte) (int, bool) {
	if p == "" {
		return 0, false
	}
	switch p[0] {
	case '?':
		return 1, true
	case '\\':
		if len(p) > 1 {
			return 2, p[1] == c
		}
	case '[':
		end := strings.IndexByte(p[min(2, len(p)):], ']') + 2
		if end < 2 || len(p) < 3 {
			break
		}
		set, negated := p[1:end], false
		if set[0] == '!' {
			set, negated = set[1:], true
		}
		in := false
		for i := 0; i < len(set); i++ {
			if i+2 < len(set) && set[i+1] == '-' {
				in = in || set[i] <= c && c <= set[i+2]
				i += 2
			} else {
				in = in || set[i] == c
			}
		}
		return end + 1, in != negated
	}
	return 1, p[0] == c
}
