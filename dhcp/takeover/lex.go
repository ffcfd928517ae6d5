package takeover

import (
	"cmp"
	"fmt"
	"strings"
)

// token is a word, a string or a sign of dhcpd.conf.
type token struct {
	file   string // "": the parser's
	text   string
	quoted bool
	line   int
	col    int
}

func (t token) is(s string) bool { return !t.quoted && t.text == s }

// node is a statement: words, and a block where it has one.
type node struct {
	words []token
	block []*node
	// For if: the branch taken otherwise.
	otherwise []*node
}

func (n *node) word(i int) string {
	if i < len(n.words) {
		return n.words[i].text
	}
	return ""
}

const (
	maxConfig = 64 << 20
	maxDepth  = 64
)

type parser struct {
	file string
	data []byte
	at   int
	line int
	bol  int // where the line begins
	next *token
}

func (p *parser) pos(t token) Pos { return Pos{cmp.Or(t.file, p.file), t.line, t.col} }

func (p *parser) fail(t token, format string, args ...any) error {
	return &SyntaxError{p.pos(t), fmt.Sprintf(format, args...)}
}

// parseBlocks reads a whole file.
func parseBlocks(file string, data []byte) ([]*node, *parser, error) {
	p := &parser{file: file, data: data, line: 1}
	if len(data) > maxConfig {
		return nil, p, p.fail(token{line: 1, col: 1}, "longer than %d bytes", maxConfig)
	}
	nodes, err := p.block(nil, 0)
	return nodes, p, err
}

// peek returns the next token; its text is "" at the end.
func (p *parser) peek() (token, error) {
	if p.next == nil {
		t, err := p.scan()
		if err != nil {
			return t, err
		}
		p.next = &t
	}
	return *p.next, nil
}

func (p *parser) take() { p.next = nil }

func (p *parser) scan() (token, error) {
	for p.at < len(p.data) {
		c := p.data[p.at]
		switch {
		case c == '\n':
			p.at++
			p.line, p.bol = p.line+1, p.at
			continue
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v':
			p.at++
			continue
		case c == '#':
			for p.at < len(p.data) && p.data[p.at] != '\n' {
				p.at++
			}
			continue
		}
		break
	}
	t := token{file: p.file, line: p.line, col: p.at - p.bol + 1}
	if p.at >= len(p.data) {
		return t, nil
	}
	start := p.at
	switch c := p.data[p.at]; {
	case c == '"':
		return p.scanString(t)
	case strings.IndexByte("{};,()=+*", c) >= 0:
		p.at++
	case c == '!' || c == '~':
		p.at++
		for p.at < len(p.data) && p.at < start+3 && (p.data[p.at] == '=' || p.data[p.at] == '~') {
			p.at++
		}
	default:
		for p.at < len(p.data) && strings.IndexByte(" \t\r\n\f\v{};,()=!~\"#", p.data[p.at]) < 0 {
			p.at++
		}
	}
	t.text = string(p.data[start:p.at])
	return t, nil
}

// scanString reads a string with C's escapes, of which dhcpd knows a few.
func (p *parser) scanString(t token) (token, error) {
	t.quoted = true
	var b strings.Builder
	for p.at++; p.at < len(p.data); p.at++ {
		switch c := p.data[p.at]; c {
		case '"':
			p.at++
			t.text = b.String()
			return t, nil
		case '\n':
			return t, p.fail(t, "the string has no closing quote in its line")
		case '\\':
			p.at++
			if p.at >= len(p.data) {
				continue
			}
			p.at += escape(&b, p.data[p.at:]) - 1
		default:
			b.WriteByte(c)
		}
	}
	return t, p.fail(t, "the string has no closing quote")
}

// escape writes what follows a backslash, and returns how long that is.
func escape(b *strings.Builder, s []byte) int {
	switch s[0] {
	case 't':
		b.WriteByte('\t')
	case 'r':
		b.WriteByte('\r')
	case 'n':
		b.WriteByte('\n')
	case 'b':
		b.WriteByte('\b')
	case 'x':
		n, v := 1, 0
		for ; n < len(s) && n < 3; n++ {
			d := strings.IndexByte("0123456789abcdef", s[n]|0x20)
			if d < 0 {
				break
			}
			v = v<<4 | d
		}
		b.WriteByte(byte(v))
		return n
	case '0', '1', '2', '3':
		n, v := 0, 0
		for ; n < len(s) && n < 3 && s[n] >= '0' && s[n] <= '7'; n++ {
			v = v<<3 | int(s[n]-'0')
		}
		b.WriteByte(byte(v))
		return n
	default:
		b.WriteByte(s[0])
	}
	return 1
}

// block reads statements up to the brace that closes the block, or the end.
func (p *parser) block(open *token, depth int) ([]*node, error) {
	var nodes []*node
	for {
		t, err := p.peek()
		switch {
		case err != nil:
			return nil, err
		case t.text == "" && !t.quoted:
			if open != nil {
				return nil, p.fail(*open, "this block is never closed: a } is missing")
			}
			return nodes, nil
		case t.is("}"):
			if open == nil {
				return nil, p.fail(t, "a } that closes nothing")
			}
			p.take()
			return nodes, nil
		case t.is(";"):
			p.take()
			continue
		}
		n, err := p.statement(depth)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
}

func (p *parser) statement(depth int) (*node, error) {
	if t, _ := p.peek(); depth > maxDepth {
		return nil, p.fail(t, "blocks are nested more than %d deep", maxDepth)
	}
	n := new(node)
	for {
		t, err := p.peek()
		switch {
		case err != nil:
			return nil, err
		case t.is("{"):
			p.take()
			if n.block, err = p.block(&t, depth+1); err != nil {
				return nil, err
			}
			if n.block == nil {
				n.block = []*node{}
			}
			return n, p.branches(n, depth)
		case t.is(";"):
			p.take()
			return n, nil
		case t.is("}"), t.text == "" && !t.quoted:
			return nil, p.fail(t, "the statement that begins with %q in line %d has no ;", n.word(0), firstLine(n, t))
		}
		p.take()
		n.words = append(n.words, t)
	}
}

func firstLine(n *node, t token) int {
	if len(n.words) > 0 {
		return n.words[0].line
	}
	return t.line
}

// branches reads what follows the block of an if.
func (p *parser) branches(n *node, depth int) error {
	if n.word(0) != "if" && n.word(0) != "elsif" {
		return nil
	}
	t, err := p.peek()
	if err != nil {
		return err
	}
	switch {
	case t.is("elsif"):
		other, err := p.statement(depth + 1)
		n.otherwise = []*node{other}
		return err
	case t.is("else"):
		p.take()
		t, err := p.peek()
		if err != nil {
			return err
		}
		if t.is("if") {
			other, err := p.statement(depth + 1)
			n.otherwise = []*node{other}
			return err
		}
		if !t.is("{") {
			return p.fail(t, "else without a block")
		}
		p.take()
		n.otherwise, err = p.block(&t, depth+1)
		return err
	}
	return nil
}
