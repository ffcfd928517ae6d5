package ltsconf

import (
	"strconv"
	"strings"
)

// redirect reads a redirection, if there is one.
func (p *shellParser) redirect(n *node) bool {
	i := p.pos
	for i < len(p.src) && p.src[i] >= '0' && p.src[i] <= '9' {
		i++
	}
	if i >= len(p.src) || p.src[i] != '<' && p.src[i] != '>' || i > p.pos+1 {
		return false
	}
	r := &redir{fd: -1}
	if i > p.pos {
		r.fd, _ = strconv.Atoi(p.src[p.pos:i])
	}
	p.pos = i
	for _, op := range []string{"<<-", "<<", ">>", "<&", ">&", "<>", ">|", "<", ">"} {
		if p.peek(op) {
			r.op = op
			break
		}
	}
	p.pos += len(r.op)
	p.blank()
	r.word = p.needWord()
	n.redirs = append(n.redirs, r)
	if strings.HasPrefix(r.op, "<<") {
		p.here = append(p.here, r)
	}
	return true
}

// hereTexts reads the texts of the here-documents that were announced.
func (p *shellParser) hereTexts() {
	for len(p.here) > 0 {
		r := p.here[0]
		p.here = p.here[1:]
		end, literal := "", false
		for _, t := range r.word {
			end += t.text
			literal = literal || t.quoted
		}
		off := p.pos
		var text strings.Builder
		joined := false // by a backslash to the line above
		for closed := false; !closed; {
			if p.pos >= len(p.src) {
				p.open = true
				break
			}
			line, _, _ := strings.Cut(p.src[p.pos:], "\n")
			p.pos = min(p.pos+len(line)+1, len(p.src))
			if r.op == "<<-" && !joined {
				line = strings.TrimLeft(line, "\t")
			}
			if closed = line == end && !joined; !closed {
				text.WriteString(line)
				text.WriteByte('\n')
			}
			joined = !literal && (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
		}
		if literal {
			r.here = []part{{text: text.String(), quoted: true}}
			continue
		}
		sub := &shellParser{src: text.String(), fixed: max(p.at(off), 1), depth: p.depth}
		sub.quotedParts(&r.here, 0)
	}
}
