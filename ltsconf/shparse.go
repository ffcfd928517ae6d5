package ltsconf

import "strings"

// maxDepth bounds the nesting of commands and substitutions.
const maxDepth = 64

type shellParser struct {
	src   string
	pos   int
	fixed int // offset of everything, when positive: src is not a part of the file
	depth int
	here  []*redir // << whose text is still to come
	open  bool     // the end of src was no end: a text of << or a line goes on
}

// parseShell reads src from start. open tells that more text would have
// changed the meaning.
func parseShell(src string, start int) (n *node, open bool, err error) {
	p := &shellParser{src: src, pos: start}
	return p.all()
}

func (p *shellParser) all() (n *node, open bool, err error) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case *shellError:
			n, err = nil, e
		default:
			panic(e)
		}
	}()
	return p.program(), p.open, nil
}

// program reads all there is.
func (p *shellParser) program() *node {
	n := p.list()
	if p.pos < len(p.src) {
		p.fail(p.pos, "unexpected "+p.near())
	}
	p.hereTexts()
	return n
}

// at is an offset in the file's shell code.
func (p *shellParser) at(off int) int {
	if p.fixed > 0 {
		return p.fixed
	}
	return off
}

func (p *shellParser) fail(off int, msg string) { panic(&shellError{p.at(off), msg}) }

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
			p.continued()
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

// continued skips a newline that a backslash takes away.
func (p *shellParser) continued() {
	p.pos += 2
	p.open = p.open || p.pos == len(p.src)
}

// blankLines skips what separates commands but for ; and &.
func (p *shellParser) blankLines() {
	for p.blank(); p.pos < len(p.src) && p.src[p.pos] == '\n'; p.blank() {
		p.pos++
		p.hereTexts()
	}
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
	out := &node{kind: listNode, off: p.at(p.pos)}
	for {
		p.blankLines()
		if p.pos >= len(p.src) || p.peek(")") || p.peek(";;") {
			return out
		}
		if p.closes() {
			return out
		}
		n := p.andOr()
		p.blank()
		if p.peek("&") {
			p.pos++
			n = &node{kind: subNode, off: n.off, list: []*node{n}, async: true}
		} else if p.peek(";") && !p.peek(";;") {
			p.pos++
		} else if p.pos < len(p.src) && p.src[p.pos] != '\n' && !p.peek(")") && !p.peek(";;") && !p.closes() {
			p.fail(p.pos, "unexpected "+p.near())
		}
		out.list = append(out.list, n)
	}
}

// closes reports whether a word follows that ends a list. Behind a compound
// command it needs no separator.
func (p *shellParser) closes() bool {
	switch p.reserved() {
	case "then", "elif", "else", "fi", "esac", "do", "done", "}":
		return true
	}
	return false
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
	chained := false
	for {
		p.blank()
		if !p.peek("&&") && !p.peek("||") {
			return n
		}
		if !chained {
			n, chained = &node{kind: chainNode, off: n.off, list: []*node{n}}, true
		}
		n.ors = append(n.ors, p.peek("||"))
		p.pos += 2
		p.blankLines()
		n.list = append(n.list, p.pipeline())
	}
}

func (p *shellParser) pipeline() *node {
	p.blank()
	off, not := p.at(p.pos), false
	if p.reserved() == "!" {
		not = true
		p.pos++
		p.blank()
	}
	n := p.command()
	piped := false
	for p.blank(); p.peek("|") && !p.peek("||"); p.blank() {
		p.pos++
		p.blankLines()
		if !piped {
			n, piped = &node{kind: pipeNode, off: off, list: []*node{n}}, true
		}
		n.list = append(n.list, p.command())
	}
	if not {
		n = &node{kind: notNode, off: off, list: []*node{n}}
	}
	return n
}
