package ltsconf

import "strings"

func (p *shellParser) command() *node {
	p.enter()
	defer func() { p.depth-- }()
	p.blank()
	n := &node{off: p.at(p.pos)}
	switch w := p.reserved(); w {
	case "if":
		p.pos += len(w)
		p.ifClause(n)
	case "case":
		p.pos += len(w)
		p.caseClause(n)
	case "for":
		p.pos += len(w)
		p.forClause(n)
	case "while", "until":
		n.kind, n.name = loopNode, w
		p.pos += len(w)
		cond := p.body()
		p.expect("do")
		n.list = []*node{cond, p.body()}
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
		n.kind = subNode
		p.pos++
		n.list = []*node{p.body()}
		p.blankLines()
		if !p.peek(")") {
			p.fail(p.pos, "expected ), not "+p.near())
		}
		p.pos++
	default:
		p.fail(p.pos, "unexpected "+w)
	}
	for p.blank(); p.redirect(n); p.blank() {
	}
	return n
}

func (p *shellParser) ifClause(n *node) {
	n.kind = ifNode
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
}

func (p *shellParser) caseClause(n *node) {
	n.kind = caseNode
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

func (p *shellParser) forClause(n *node) {
	n.kind = forNode
	p.blank()
	off := p.pos
	n.name = literalWord(p.needWord())
	if !isName(n.name) {
		p.fail(off, "a for needs the name of a variable")
	}
	p.blank()
	if p.peek(";") {
		n.all = true
	} else if p.blankLines(); p.reserved() == "in" {
		p.pos += len("in")
		for p.blank(); p.pos < len(p.src) && !ends(p.src[p.pos]); p.blank() {
			n.words = append(n.words, p.word())
		}
		if !p.peek(";") && !p.peek("\n") {
			p.fail(p.pos, "unexpected "+p.near())
		}
	} else {
		n.all = true
	}
	p.blank()
	if p.peek(";") {
		p.pos++
	}
	p.expect("do")
	n.list = []*node{p.body()}
	p.expect("done")
}

func (p *shellParser) simple() *node {
	start := p.pos
	n := &node{kind: simpleNode, off: p.at(p.pos)}
	for {
		p.blank()
		if p.redirect(n) {
			continue
		}
		if p.pos >= len(p.src) || ends(p.src[p.pos]) {
			break
		}
		off := p.pos
		w := p.word()
		if len(n.words) == 0 {
			if name, val, ok := splitAssign(w); ok {
				n.assigns = append(n.assigns, assign{p.at(off), name, val})
				continue
			}
			if p.blank(); p.peek("(") && len(n.assigns)+len(n.redirs) == 0 {
				return p.function(n, literalWord(w))
			}
		}
		n.words = append(n.words, w)
	}
	if p.pos == start {
		p.fail(p.pos, "unexpected "+p.near())
	}
	return n
}

// function reads what follows the name of a function.
func (p *shellParser) function(n *node, name string) *node {
	p.pos++
	if p.blank(); !p.peek(")") {
		p.fail(p.pos, "unexpected "+p.near()+" behind (")
	}
	p.pos++
	if !isName(name) || isSpecialBuiltin(name) {
		p.fail(p.pos, "a function cannot have this name")
	}
	p.blankLines()
	n.kind, n.name = funcNode, name
	n.list = []*node{p.command()}
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
