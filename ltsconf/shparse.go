package ltsconf

import (
	"strings"
)

// This file reads shell code as POSIX.1-2017, XCU 2 has it, as far as it is
// needed to know what an ltsp.conf sets.

type nodeKind byte

const (
	simpleNode nodeKind = iota
	chainNode           // list[0] && list[1] || ...
	notNode
	ifNode   // list: condition, body, condition, body, ..., else body
	caseNode // word, arms
	groupNode
	forNode
	opaqueNode // understood as far as to know where it ends; word says what
	listNode
)

type node struct {
	kind    nodeKind
	off     int // in the section's text
	assigns []assign
	words   [][]part
	list    []*node
	arms    []arm
	ors     []bool // beside list[1:] of a chain: || rather than &&
	name    string // of a for's variable; what an opaque one is
}

type assign struct {
	off  int
	name string
	val  []part
}

type arm struct {
	patterns [][]part
	body     *node
}

type partKind byte

const (
	textPart   partKind = iota
	paramPart           // $name, ${name op arg}
	opaquePart          // a substitution that only a shell can make, as written
)

type part struct {
	kind   partKind
	quoted bool
	text   string
	op     string
	arg    []part
}

type shellError struct {
	off int
	msg string
}

func (e *shellError) Error() string { return e.msg }

// maxDepth bounds the nesting of commands and substitutions.
const maxDepth = 64

type shellParser struct {
	src   string
	pos   int
	depth int
	here  []hereDoc
}

type hereDoc struct {
	end  string
	tabs bool
}

// parseShell reads all of src.
func parseShell(src string) (n *node, err error) {
	p := &shellParser{src: src}
	defer func() {
		switch e := recover().(type) {
		case nil:
		case *shellError:
			n, err = nil, e
		default:
			panic(e)
		}
	}()
	n = p.list()
	if p.pos < len(p.src) {
		p.fail(p.pos, "unexpected "+p.near())
	}
	if len(p.here) > 0 {
		p.skipHere()
	}
	return n, nil
}

func (p *shellParser) fail(off int, msg string) { panic(&shellError{off, msg}) }

func (p *shellParser) near() string {
	if p.pos >= len(p.src) {
		return "end of the section"
	}
	if w := p.reserved(); w != "" {
		return w
	}
	return `"` + clip(p.src[p.pos:p.pos+1]) + `"`
}

func (p *shellParser) enter() {
	if p.depth++; p.depth > maxDepth {
		p.fail(p.pos, "nested too deeply")
	}
}

func (p *shellParser) peek(s string) bool { return strings.HasPrefix(p.src[p.pos:], s) }

// blank skips white space within a line, and a comment.
func (p *shellParser) blank() {
	for p.pos < len(p.src) {
		switch {
		case p.src[p.pos] == ' ' || p.src[p.pos] == '\t':
			p.pos++
		case p.peek("\\\n"):
			p.pos += 2
		case p.src[p.pos] == '#':
			if i := strings.IndexByte(p.src[p.pos:], '\n'); i >= 0 {
				p.pos += i
			} else {
				p.pos = len(p.src)
			}
			return
		default:
			return
		}
	}
}

// blankLines skips what separates commands but for ; and &.
func (p *shellParser) blankLines() {
	for p.blank(); p.pos < len(p.src) && p.src[p.pos] == '\n'; p.blank() {
		p.pos++
		p.skipHere()
	}
}

func (p *shellParser) skipHere() {
	for _, h := range p.here {
		for p.pos < len(p.src) {
			line, _, _ := strings.Cut(p.src[p.pos:], "\n")
			p.pos = min(p.pos+len(line)+1, len(p.src))
			if h.tabs {
				line = strings.TrimLeft(line, "\t")
			}
			if line == h.end {
				break
			}
		}
	}
	p.here = nil
}

func ends(c byte) bool { return strings.IndexByte(" \t\n;&|<>()", c) >= 0 }

// reserved returns the reserved word at the current place, if there is one.
func (p *shellParser) reserved() string {
	end := p.pos
	for end < len(p.src) && end-p.pos < 6 && !ends(p.src[end]) {
		end++
	}
	if end < len(p.src) && !ends(p.src[end]) {
		return ""
	}
	switch w := p.src[p.pos:end]; w {
	case "if", "then", "elif", "else", "fi", "case", "esac", "for", "in", "do", "done", "while", "until", "{", "}", "!":
		return w
	}
	return ""
}

func (p *shellParser) expect(word string) {
	p.blankLines()
	if p.reserved() != word {
		p.fail(p.pos, "expected "+word+", not "+p.near())
	}
	p.pos += len(word)
}

// list reads commands until something that is none.
func (p *shellParser) list() *node {
	p.enter()
	defer func() { p.depth-- }()
	p.blankLines()
	out := &node{kind: listNode, off: p.pos}
	for {
		p.blankLines()
		if p.pos >= len(p.src) || p.peek(")") || p.peek(";;") {
			return out
		}
		switch p.reserved() {
		case "then", "elif", "else", "fi", "esac", "do", "done", "}":
			return out
		}
		n := p.andOr()
		p.blank()
		if p.peek("&") {
			p.pos++
			n = &node{kind: opaqueNode, off: n.off, name: "a command in the background"}
		} else if p.peek(";") && !p.peek(";;") {
			p.pos++
		} else if p.pos < len(p.src) && p.src[p.pos] != '\n' && !p.peek(")") && !p.peek(";;") {
			p.fail(p.pos, "unexpected "+p.near())
		}
		out.list = append(out.list, n)
	}
}

// body is a list that may not be empty.
func (p *shellParser) body() *node {
	n := p.list()
	if len(n.list) == 0 {
		p.fail(p.pos, "a command is missing before "+p.near())
	}
	return n
}

func (p *shellParser) andOr() *node {
	n := p.pipeline()
	for {
		p.blank()
		if !p.peek("&&") && !p.peek("||") {
			return n
		}
		if n.kind != chainNode {
			n = &node{kind: chainNode, off: n.off, list: []*node{n}}
		}
		n.ors = append(n.ors, p.peek("||"))
		p.pos += 2
		p.blankLines()
		n.list = append(n.list, p.pipeline())
	}
}

func (p *shellParser) pipeline() *node {
	p.blank()
	off, not := p.pos, false
	if p.reserved() == "!" {
		not = true
		p.pos++
		p.blank()
	}
	n := p.command()
	for p.blank(); p.peek("|") && !p.peek("||"); p.blank() {
		p.pos++
		p.blankLines()
		p.command()
		n = &node{kind: opaqueNode, off: off, name: "a pipeline"}
	}
	if not {
		n = &node{kind: notNode, off: off, list: []*node{n}}
	}
	return n
}

func (p *shellParser) command() *node {
	p.enter()
	defer func() { p.depth-- }()
	p.blank()
	off := p.pos
	n := &node{off: off}
	switch w := p.reserved(); w {
	case "if":
		n.kind = ifNode
		p.pos += len(w)
		for {
			cond := p.body()
			p.expect("then")
			n.list = append(n.list, cond, p.body())
			p.blankLines()
			if p.reserved() != "elif" {
				break
			}
			p.pos += len("elif")
		}
		if p.reserved() == "else" {
			p.pos += len("else")
			n.list = append(n.list, p.body())
		}
		p.expect("fi")
	case "case":
		n.kind = caseNode
		p.pos += len(w)
		p.blank()
		n.words = [][]part{p.needWord()}
		p.expect("in")
		for {
			p.blankLines()
			if p.reserved() == "esac" {
				break
			}
			n.arms = append(n.arms, p.arm())
		}
		p.expect("esac")
	case "for":
		n.kind = forNode
		p.pos += len(w)
		p.blank()
		n.name = plainText(p.needWord())
		p.blankLines()
		if p.reserved() == "in" {
			p.pos += len("in")
			for p.blank(); p.pos < len(p.src) && !ends(p.src[p.pos]); p.blank() {
				n.words = append(n.words, p.word())
			}
		} else {
			n.kind, n.name = opaqueNode, "a loop over $@"
		}
		p.blank()
		if p.peek(";") {
			p.pos++
		}
		p.expect("do")
		n.list = []*node{p.body()}
		p.expect("done")
	case "while", "until":
		n.kind, n.name = opaqueNode, "a "+w+" loop"
		p.pos += len(w)
		p.body()
		p.expect("do")
		p.body()
		p.expect("done")
	case "{":
		n.kind = groupNode
		p.pos++
		n.list = []*node{p.body()}
		p.expect("}")
	case "":
		if !p.peek("(") {
			return p.simple()
		}
		n.kind, n.name = opaqueNode, "a subshell"
		p.pos++
		p.body()
		p.blankLines()
		if !p.peek(")") {
			p.fail(p.pos, "expected ), not "+p.near())
		}
		p.pos++
	default:
		p.fail(p.pos, "unexpected "+w)
	}
	for p.blank(); p.redirect(); p.blank() {
	}
	return n
}

func (p *shellParser) arm() arm {
	var a arm
	if p.peek("(") {
		p.pos++
	}
	for {
		p.blank()
		a.patterns = append(a.patterns, p.needWord())
		p.blank()
		if !p.peek("|") {
			break
		}
		p.pos++
	}
	if !p.peek(")") {
		p.fail(p.pos, "expected ), not "+p.near())
	}
	p.pos++
	a.body = p.list()
	if p.peek(";;") {
		p.pos += 2
	} else if p.reserved() != "esac" {
		p.fail(p.pos, "expected ;; or esac, not "+p.near())
	}
	return a
}

// redirect skips a redirection.
func (p *shellParser) redirect() bool {
	i := p.pos
	for i < len(p.src) && p.src[i] >= '0' && p.src[i] <= '9' {
		i++
	}
	if i >= len(p.src) || p.src[i] != '<' && p.src[i] != '>' {
		return false
	}
	p.pos = i
	for _, op := range []string{"<<-", "<<", ">>", "<&", ">&", "<>", ">|", "<", ">"} {
		if p.peek(op) {
			p.pos += len(op)
			p.blank()
			w := p.needWord()
			if strings.HasPrefix(op, "<<") {
				p.here = append(p.here, hereDoc{plainText(w), op == "<<-"})
			}
			break
		}
	}
	return true
}

func (p *shellParser) simple() *node {
	n := &node{kind: simpleNode, off: p.pos}
	for {
		p.blank()
		if p.redirect() {
			continue
		}
		if p.pos >= len(p.src) || ends(p.src[p.pos]) {
			break
		}
		off := p.pos
		w := p.word()
		if len(n.words) == 0 {
			if name, val, ok := splitAssign(w); ok {
				n.assigns = append(n.assigns, assign{off, name, val})
				continue
			}
			if p.blank(); p.peek("(") && len(n.assigns) == 0 {
				p.pos++
				if p.blank(); !p.peek(")") {
					p.fail(p.pos, "unexpected "+p.near()+" behind (")
				}
				p.pos++
				p.blankLines()
				p.command()
				return &node{kind: opaqueNode, off: off, name: "a function"}
			}
		}
		n.words = append(n.words, w)
	}
	if p.pos == n.off {
		p.fail(p.pos, "unexpected "+p.near())
	}
	return n
}

// splitAssign takes NAME=value apart; the name may not be quoted.
func splitAssign(w []part) (name string, val []part, ok bool) {
	if len(w) == 0 || w[0].kind != textPart || w[0].quoted {
		return "", nil, false
	}
	name, rest, ok := strings.Cut(w[0].text, "=")
	if !ok || !isName(name) {
		return "", nil, false
	}
	if rest != "" {
		val = append(val, part{text: rest})
	}
	return name, append(val, w[1:]...), true
}

// plainText is the text of a word without substitutions.
func plainText(w []part) string {
	var b strings.Builder
	for _, t := range w {
		b.WriteString(t.text)
	}
	return b.String()
}

func (p *shellParser) needWord() []part {
	if p.pos >= len(p.src) || ends(p.src[p.pos]) {
		p.fail(p.pos, "expected a word, not "+p.near())
	}
	return p.word()
}

func (p *shellParser) word() []part {
	var w []part
	p.parts(&w, func(c byte) bool { return ends(c) })
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
			if p.src[p.pos+1] != '\n' {
				addText(w, p.src[p.pos+1:p.pos+2], true)
			}
			p.pos += 2
		case c == '\'':
			n := strings.IndexByte(p.src[p.pos+1:], '\'')
			if n < 0 {
				p.fail(p.pos, "a single quote without a second one")
			}
			addText(w, p.src[p.pos+1:p.pos+1+n], true)
			p.pos += n + 2
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

func (p *shellParser) doubleQuoted(w *[]part) {
	start := p.pos
	p.pos++
	addText(w, "", true) // "" is a word
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case c == '"':
			p.pos++
			return
		case c == '\\' && p.pos+1 < len(p.src):
			next := p.src[p.pos+1]
			switch {
			case next == '\n':
			case isSpecial(next):
				addText(w, string(next), true)
			default:
				addText(w, p.src[p.pos:p.pos+2], true)
			}
			p.pos += 2
		case c == '$' || c == '`':
			p.dollar(w, true)
		default:
			n := p.pos + 1
			for n < len(p.src) && strings.IndexByte("\"\\$`", p.src[n]) < 0 {
				n++
			}
			addText(w, p.src[p.pos:n], true)
			p.pos = n
		}
	}
	p.fail(start, "a double quote without a second one")
}

// dollar reads a substitution.
func (p *shellParser) dollar(w *[]part, quoted bool) {
	start := p.pos
	opaque := func() { *w = append(*w, part{kind: opaquePart, quoted: quoted, text: p.src[start:p.pos]}) }
	if p.src[p.pos] == '`' {
		end := closing(p.src, p.pos+1)
		if end < 0 {
			p.fail(start, "a ` without a second one")
		}
		p.pos = end + 1
		opaque()
		return
	}
	p.pos++
	if p.pos == len(p.src) {
		addText(w, "$", true)
		return
	}
	switch c := p.src[p.pos]; {
	case c == '(':
		p.paren(start)
		opaque()
	case c == '{':
		p.param(w, quoted)
	case nameLen(p.src[p.pos:]) > 0:
		n := nameLen(p.src[p.pos:])
		*w = append(*w, part{kind: paramPart, quoted: quoted, text: p.src[p.pos : p.pos+n]})
		p.pos += n
	case strings.IndexByte("@*#?-$!0123456789", c) >= 0:
		p.pos++
		opaque()
	default:
		addText(w, "$", quoted)
	}
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

// paren skips a command or arithmetic substitution.
func (p *shellParser) paren(start int) {
	depth := 0
	for ; p.pos < len(p.src); p.pos++ {
		switch p.src[p.pos] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				p.pos++
				return
			}
		case '\\':
			p.pos++
		case '\'':
			n := strings.IndexByte(p.src[p.pos+1:], '\'')
			if n < 0 {
				p.fail(p.pos, "a single quote without a second one")
			}
			p.pos += n + 1
		case '"':
			var skip []part
			p.enter()
			p.doubleQuoted(&skip)
			p.depth--
			p.pos--
		}
	}
	p.fail(start, "a $( that is not closed")
}

// param reads ${...}.
func (p *shellParser) param(w *[]part, quoted bool) {
	p.enter()
	defer func() { p.depth-- }()
	start := p.pos - 1
	p.pos++
	t := part{kind: paramPart, quoted: quoted}
	if p.peek("#") && nameLen(p.src[p.pos+1:]) > 0 {
		t.op = "len"
		p.pos++
	}
	n := nameLen(p.src[p.pos:])
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
	known := n > 0 && (t.op != "" || p.peek("}"))
	p.parts(&t.arg, func(c byte) bool { return c == '}' })
	if !p.peek("}") {
		p.fail(start, "a ${ that is not closed")
	}
	p.pos++
	if !known || t.op == "len" && len(t.arg) > 0 {
		t = part{kind: opaquePart, quoted: quoted, text: p.src[start:p.pos]}
	}
	*w = append(*w, t)
}
