package ltsconf

import "strings"

func (p *shellParser) needWord() []part {
	if p.pos >= len(p.src) || ends(p.src[p.pos]) {
		p.fail(p.pos, "expected a word, not "+p.near())
	}
	return p.word()
}

func (p *shellParser) word() []part {
	var w []part
	p.parts(&w, ends)
	return w
}

// parts reads a word up to a byte that ends it or the end.
func (p *shellParser) parts(w *[]part, end func(byte) bool) {
	p.enter()
	defer func() { p.depth-- }()
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case c == '\\':
			if p.pos+1 == len(p.src) {
				p.pos++
				addText(w, `\`, true)
				return
			}
			if p.src[p.pos+1] == '\n' {
				p.continued()
				break
			}
			addText(w, p.src[p.pos+1:p.pos+2], true)
			p.pos += 2
		case c == '\'':
			p.singleQuoted(w)
		case c == '"':
			p.doubleQuoted(w)
		case c == '$' || c == '`':
			p.dollar(w, false)
		case end(c):
			return
		default:
			n := p.pos
			for n < len(p.src) && !end(p.src[n]) && strings.IndexByte("\\'\"$`", p.src[n]) < 0 {
				n++
			}
			addText(w, p.src[p.pos:n], false)
			p.pos = n
		}
	}
}

func addText(w *[]part, s string, quoted bool) {
	*w = append(*w, part{text: s, quoted: quoted})
}

func (p *shellParser) singleQuoted(w *[]part) {
	n := strings.IndexByte(p.src[p.pos+1:], '\'')
	if n < 0 {
		p.fail(p.pos, "a single quote without a second one")
	}
	addText(w, p.src[p.pos+1:p.pos+1+n], true)
	p.pos += n + 2
}

func (p *shellParser) doubleQuoted(w *[]part) {
	start := p.pos
	p.pos++
	addText(w, "", true) // "" is a word
	p.quotedParts(w, '"')
	if p.pos >= len(p.src) {
		p.fail(start, "a double quote without a second one")
	}
	p.pos++
}

// quotedParts reads what is between double quotes, up to the byte stop; the
// text of a here-document when stop is 0; the default value of a parameter
// within double quotes when it is }.
func (p *shellParser) quotedParts(w *[]part, stop byte) {
	p.enter()
	defer func() { p.depth-- }()
	special, inner := "\"\\$`}", false
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case c == stop && stop != 0 && !inner:
			return
		case c == '"' && stop == '}':
			p.pos++ // what is inside is quoted either way, but for }
			inner = !inner
		case c == '\\' && p.pos+1 < len(p.src):
			next := p.src[p.pos+1]
			switch {
			case next == '\n':
			case next == '\\' || next == '$' || next == '`' || next == '"' && stop != 0 || next == '}' && stop == '}':
				addText(w, string(next), true)
			default:
				addText(w, p.src[p.pos:p.pos+2], true)
			}
			p.pos += 2
		case c == '$' || c == '`':
			p.dollar(w, true)
		default:
			n := p.pos + 1
			for n < len(p.src) && strings.IndexByte(special, p.src[n]) < 0 {
				n++
			}
			addText(w, p.src[p.pos:n], true)
			p.pos = n
		}
	}
}

// dollar reads a substitution.
func (p *shellParser) dollar(w *[]part, quoted bool) {
	start := p.pos
	if p.src[p.pos] == '`' {
		p.backquoted(w, quoted)
		return
	}
	p.pos++
	if p.pos == len(p.src) {
		addText(w, "$", true)
		return
	}
	switch c := p.src[p.pos]; {
	case p.peek("(("):
		p.arithmetic(w, quoted)
	case c == '(':
		p.enter()
		p.pos++
		sub := p.here
		p.here = nil
		body := p.list()
		p.blankLines()
		if p.pos >= len(p.src) {
			p.fail(start, "a $( that is not closed")
		}
		if !p.peek(")") {
			p.fail(p.pos, "unexpected "+p.near())
		}
		p.pos++
		p.here = append(sub, p.here...)
		p.depth--
		*w = append(*w, part{kind: commandPart, quoted: quoted, body: body, source: p.src[start:p.pos]})
	case c == '{':
		p.param(w, quoted)
	case nameLen(p.src[p.pos:]) > 0:
		n := nameLen(p.src[p.pos:])
		p.pos += n
		*w = append(*w, part{kind: paramPart, quoted: quoted, text: p.src[start+1 : p.pos], source: p.src[start:p.pos]})
	case strings.IndexByte("@*#?-$!0123456789", c) >= 0:
		p.pos++
		*w = append(*w, part{kind: paramPart, quoted: quoted, text: string(c), source: p.src[start:p.pos]})
	default:
		addText(w, "$", quoted)
	}
}

// backquoted reads `...`, the older form of $(...).
func (p *shellParser) backquoted(w *[]part, quoted bool) {
	start := p.pos
	end := closing(p.src, start+1)
	if end < 0 {
		p.fail(start, "a ` without a second one")
	}
	inner := p.src[start+1 : end]
	if strings.IndexByte(inner, '\\') >= 0 {
		var b strings.Builder
		for i := 0; i < len(inner); i++ {
			if inner[i] == '\\' && i+1 < len(inner) {
				switch c := inner[i+1]; {
				case c == '\\' || c == '$' || c == '`' || c == '"' && quoted:
					i++
				}
			}
			b.WriteByte(inner[i])
		}
		inner = b.String()
	}
	p.enter()
	sub := &shellParser{src: inner, fixed: max(p.at(start), 1), depth: p.depth}
	body := sub.program()
	p.depth--
	p.pos = end + 1
	*w = append(*w, part{kind: commandPart, quoted: quoted, body: body, source: p.src[start:p.pos]})
}

// arithmetic reads $((...)).
func (p *shellParser) arithmetic(w *[]part, quoted bool) {
	p.enter()
	defer func() { p.depth-- }()
	start := p.pos - 1
	p.pos += 2
	t := part{kind: arithPart, quoted: quoted}
	for depth := 0; p.pos < len(p.src); {
		switch c := p.src[p.pos]; {
		case c == ')' && depth == 0 && p.peek("))"):
			p.pos += 2
			t.source = p.src[start:p.pos]
			*w = append(*w, t)
			return
		case c == '(':
			depth++
		case c == ')':
			depth = max(depth-1, 0)
		case c == '$' || c == '`':
			p.dollar(&t.arg, true)
			continue
		case c == '"':
			p.pos++
			continue
		case p.peek("\\\n"):
			p.continued()
			continue
		}
		n := p.pos + 1
		for n < len(p.src) && strings.IndexByte("()$`\"\\", p.src[n]) < 0 {
			n++
		}
		addText(&t.arg, p.src[p.pos:n], true)
		p.pos = n
	}
	p.fail(start, "a $(( that is not closed")
}

func nameLen(s string) int {
	n := 0
	for n < len(s) {
		c := s[n] | 0x20
		if !(c >= 'a' && c <= 'z' || s[n] == '_' || n > 0 && s[n] >= '0' && s[n] <= '9') {
			break
		}
		n++
	}
	return n
}

// paramLen is the length of the name of a parameter, special ones included.
func paramLen(s string) int {
	if n := nameLen(s); n > 0 {
		return n
	}
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	if n == 0 && s != "" && strings.IndexByte("@*#?-$!", s[0]) >= 0 {
		return 1
	}
	return n
}

// param reads ${...}.
func (p *shellParser) param(w *[]part, quoted bool) {
	p.enter()
	defer func() { p.depth-- }()
	start := p.pos - 1
	p.pos++
	t := part{kind: paramPart, quoted: quoted}
	if rest := p.src[p.pos:]; p.peek("#") && paramLen(rest[1:]) > 0 && strings.HasPrefix(rest[1+paramLen(rest[1:]):], "}") {
		t.op = "len"
		p.pos++
	}
	n := paramLen(p.src[p.pos:])
	t.text = p.src[p.pos : p.pos+n]
	p.pos += n
	if t.op == "" && n > 0 {
		for _, op := range []string{":-", ":=", ":?", ":+", "%%", "##", "-", "=", "?", "+", "%", "#"} {
			if p.peek(op) {
				t.op = op
				p.pos += len(op)
				break
			}
		}
	}
	known := n > 0 && (t.op != "" && t.op != "len" || p.peek("}"))
	switch {
	case quoted && !strings.ContainsAny(t.op, "%#"):
		p.quotedParts(&t.arg, '}')
	default:
		p.parts(&t.arg, func(c byte) bool { return c == '}' })
	}
	if !p.peek("}") {
		p.fail(start, "a ${ that is not closed")
	}
	p.pos++
	if t.source = p.src[start:p.pos]; !known {
		t.op = "bad"
	}
	*w = append(*w, t)
}
