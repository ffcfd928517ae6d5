package takeover

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// value is a JSON value with its place. Kea's files may hold comments (#, //,
// /* */) and commas before a closing bracket, which encoding/json refuses.
type value struct {
	pos     Pos
	kind    byte // { [ " n (number) or w (true, false, null)
	text    string
	list    []value
	members []member
}

type member struct {
	name string
	value
}

// get returns the member of that name, and whether there is one.
func (v *value) get(name string) (value, bool) {
	for _, m := range v.members {
		if m.name == name {
			return m.value, true
		}
	}
	return value{}, false
}

func (v *value) number() (int64, bool) {
	n, err := strconv.ParseInt(v.text, 10, 64)
	return n, err == nil && v.kind == 'n'
}

type jsonParser struct {
	file  string
	data  []byte
	at    int
	line  int
	bol   int
	depth int
}

func parseJSON(file string, data []byte) (value, error) {
	p := &jsonParser{file: file, data: data, line: 1}
	if len(data) > maxConfig {
		return value{}, &SyntaxError{p.pos(), "too long"}
	}
	v, err := p.value()
	if err == nil {
		if err = p.blank(); err == nil && p.at < len(p.data) {
			err = p.fail("something follows the end")
		}
	}
	return v, err
}

func (p *jsonParser) pos() Pos { return Pos{p.file, p.line, p.at - p.bol + 1} }

func (p *jsonParser) fail(format string, args ...any) error {
	return &SyntaxError{p.pos(), fmt.Sprintf(format, args...)}
}

// blank passes over blanks and comments.
func (p *jsonParser) blank() error {
	for p.at < len(p.data) {
		rest := p.data[p.at:]
		switch c := rest[0]; {
		case c == '\n':
			p.at++
			p.line, p.bol = p.line+1, p.at
		case c == ' ' || c == '\t' || c == '\r':
			p.at++
		case c == '#' || c == '/' && len(rest) > 1 && rest[1] == '/':
			for p.at < len(p.data) && p.data[p.at] != '\n' {
				p.at++
			}
		case c == '/' && len(rest) > 1 && rest[1] == '*':
			end := strings.Index(string(rest), "*/")
			if end < 0 {
				return p.fail("the comment is not closed")
			}
			for range end + 2 {
				if p.data[p.at] == '\n' {
					p.line, p.bol = p.line+1, p.at+1
				}
				p.at++
			}
		default:
			return nil
		}
	}
	return nil
}

func (p *jsonParser) next() (byte, error) {
	if err := p.blank(); err != nil {
		return 0, err
	}
	if p.at >= len(p.data) {
		return 0, p.fail("the file ends too early: a bracket is missing")
	}
	return p.data[p.at], nil
}

func (p *jsonParser) value() (v value, err error) {
	c, err := p.next()
	if err != nil {
		return v, err
	}
	if p.depth++; p.depth > maxDepth {
		return v, p.fail("brackets are nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	v.pos, v.kind = p.pos(), c
	switch {
	case c == '{' || c == '[':
		return v, p.items(&v)
	case c == '"':
		v.text, err = p.text()
		return v, err
	}
	start := p.at
	for p.at < len(p.data) && strings.IndexByte(" \t\r\n,]}#/", p.data[p.at]) < 0 {
		p.at++
	}
	v.text = string(p.data[start:p.at])
	v.kind = 'n'
	switch v.text {
	case "true", "false", "null":
		v.kind = 'w'
	default:
		if _, err := strconv.ParseFloat(v.text, 64); err != nil {
			p.at = start
			return v, p.fail("%q is no value", v.text)
		}
	}
	return v, nil
}

// items reads the inside of an object or a list.
func (p *jsonParser) items(v *value) error {
	p.at++
	end := v.kind + 2 // ] and } are two behind their opening ones
	for {
		c, err := p.next()
		if err != nil {
			return err
		}
		if c == end {
			p.at++
			return nil
		}
		var m member
		if v.kind == '{' {
			if c != '"' {
				return p.fail("expected a name in quotes")
			}
			if m.name, err = p.text(); err != nil {
				return err
			}
			if c, err = p.next(); err != nil {
				return err
			}
			if c != ':' {
				return p.fail("expected a colon behind %q", m.name)
			}
			p.at++
		}
		if m.value, err = p.value(); err != nil {
			return err
		}
		if v.kind == '{' {
			v.members = append(v.members, m)
		} else {
			v.list = append(v.list, m.value)
		}
		if c, err = p.next(); err != nil {
			return err
		}
		switch c {
		case ',':
			p.at++
		case end:
		default:
			return p.fail("expected a comma or %q", end)
		}
	}
}

func (p *jsonParser) text() (string, error) {
	start := p.at
	for p.at++; p.at < len(p.data) && p.data[p.at] != '\n'; p.at++ {
		switch p.data[p.at] {
		case '\\':
			p.at++
		case '"':
			p.at++
			var s string
			if err := json.Unmarshal(p.data[start:p.at], &s); err != nil {
				p.at = start
				return "", p.fail("%v", err)
			}
			return s, nil
		}
	}
	p.at = start
	return "", p.fail("the string has no closing quote in its line")
}
