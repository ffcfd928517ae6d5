package ltsconf

import (
	"bytes"
	"strconv"
)

type kind byte

const (
	tokEnd kind = iota
	tokEqual
	tokOpen
	tokClose
	tokWord
	tokInclude // its text is the path
)

// token is one lexical unit. None spans a newline.
type token struct {
	kind      kind
	text      string
	file      int32
	line, col int32
	off, end  int // in what was loaded: for the first file, in its text
}

// String names the token in messages.
func (t token) String() string {
	switch t.kind {
	case tokEqual:
		return `"="`
	case tokOpen:
		return `"["`
	case tokClose:
		return `"]"`
	case tokWord:
		return strconv.Quote(clip(t.text))
	case tokInclude:
		return "include"
	default:
		return "end of file"
	}
}

// scanner cuts the input into tokens the way getltscfg's generated lexer
// does: the longest match wins, and what no rule matches is echoed.
type scanner struct {
	stream
	pos       int // next byte
	file      int32
	line      int32
	lineStart int
	bol       bool   // at the beginning of a line: an include may follow
	lastLine  int    // no newline follows this offset; -1: not known yet
	lastWord  string // see include
	stray     []byte

	complain func(t token, format string, args ...any)
}

// notWord marks the bytes that end an unquoted word.
var notWord = [256]bool{'=': true, '\n': true, '[': true, ']': true, '"': true, '\'': true, '#': true}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func (s *scanner) at(off int) token {
	return token{file: s.file, line: s.line, col: int32(off - s.lineStart + 1), off: off, end: off + 1}
}

// next returns the next token; tokEnd for ever at the end.
func (s *scanner) next() token {
	for s.has(s.pos, s.pos) {
		for n := int(s.file) + 1; n < len(s.starts) && s.pos >= s.starts[n]; n++ {
			s.file, s.line, s.lineStart = int32(n), 1, s.starts[n]
		}
		start, bol := s.pos, s.bol
		s.bol = false
		t := s.at(start)
		s.pos++
		switch c := s.buf[start]; c {
		case '=':
			t.kind = tokEqual
			return t
		case '[':
			t.kind = tokOpen
			return t
		case ']':
			t.kind = tokClose
			return t
		case '\n':
			s.newline()
		case '#':
			end, ok := s.lineEnd(start)
			if !ok {
				s.echo(t, "a comment at the end of the file needs a newline after it; without one clients print the # and fail")
				break
			}
			s.pos = end + 1
			s.newline()
		case '\'':
			s.echo(t, "a single quote means nothing here and stops clients; put the value in double quotes")
		case '"':
			end, _ := s.lineEnd(start)
			last := start + bytes.LastIndexByte(s.buf[start:end], '"')
			if last == start {
				s.echo(t, "this double quote has no partner on its line")
				break
			}
			s.pos = last + 1
			return s.quoted(t, start)
		default:
			if tok, ok := s.word(t, start, bol); ok {
				return tok
			}
		}
	}
	return s.at(s.pos)
}

func (s *scanner) newline() {
	s.line++
	s.lineStart, s.bol = s.pos, true
}

// echo notes a byte that no rule matches: getltscfg prints it.
func (s *scanner) echo(t token, msg string) {
	s.stray = append(s.stray, s.buf[s.pos-1])
	s.complain(t, "%s", msg)
}

// lineEnd returns the offset of the newline at or after from, or the end of
// the input and false.
func (s *scanner) lineEnd(from int) (int, bool) {
	if s.lastLine >= 0 && from >= s.lastLine {
		return len(s.buf), false // a second search would make hostile input quadratic
	}
	for at := from; ; {
		if i := bytes.IndexByte(s.buf[at:], '\n'); i >= 0 {
			return at + i, true
		}
		at = len(s.buf)
		if !s.has(at, from) {
			s.lastLine = from
			return len(s.buf), false
		}
	}
}

// wordEnd returns where the unquoted word that starts at start ends.
func (s *scanner) wordEnd(start int) int {
	end := start
	for s.has(end, start) && !notWord[s.buf[end]] {
		end++
	}
	return end
}

func (s *scanner) quoted(t token, start int) token {
	b := s.check(t, start, s.buf[start:s.pos])
	t.kind, t.end = tokWord, s.pos
	if len(b) > 1 { // a NUL right after the quote leaves less
		t.text = string(b[1 : len(b)-1])
	}
	s.lastWord = t.text
	return t
}

// word scans an unquoted word, white space or an include directive.
func (s *scanner) word(t token, start int, bol bool) (token, bool) {
	end := s.wordEnd(start)
	b := s.buf[start:end]
	s.pos = end
	if bol {
		if rest, ok := bytes.CutPrefix(bytes.TrimLeft(b, " \t"), []byte("include")); ok && len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
			return s.include(t, start, end-len(rest)), true
		}
	}
	if len(bytes.Trim(b, " \t")) == 0 {
		return t, false
	}
	b = s.check(t, start, b)
	for len(b) > 0 && isSpace(b[0]) {
		b, t.col, t.off = b[1:], t.col+1, t.off+1
	}
	t.kind, t.text = tokWord, string(trim(b))
	t.end = t.off + len(t.text)
	s.lastWord = t.text
	return t, true
}

// check complains about bytes that no setting can hold, and cuts b where C's
// string functions do.
func (s *scanner) check(t token, start int, b []byte) []byte {
	if i := bytes.IndexByte(b, '\r'); i >= 0 {
		t.col = int32(start + i - s.lineStart + 1)
		s.complain(t, "carriage return: save the file with Unix line ends")
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		t.col = int32(start + i - s.lineStart + 1)
		s.complain(t, "NUL byte: the file is not text")
		b = b[:i]
	}
	return b
}

// include scans the rest of an include directive; path is where the text
// behind the word include starts.
func (s *scanner) include(t token, start, path int) token {
	t.col += int32(path - len("include") - start)
	// A quoted path, when there is one, is part of the directive.
	i := path
	for i < len(s.buf) && (s.buf[i] == ' ' || s.buf[i] == '\t') {
		i++
	}
	if s.has(i, start) && s.buf[i] == '"' {
		end, _ := s.lineEnd(start)
		if last := i + bytes.LastIndexByte(s.buf[i:end], '"'); last > i {
			s.pos = last + 1
			for s.has(s.pos, start) && (s.buf[s.pos] == ' ' || s.buf[s.pos] == '\t') {
				s.pos++
			}
		}
	}
	b := trim(s.check(t, start, s.buf[path:s.pos]))
	if len(b) == 0 {
		// getltscfg takes the directive for a word, without giving it a text:
		// it has the one of the word before.
		s.complain(t, "include needs a path")
		t.kind, t.text = tokWord, s.lastWord
		return t
	}
	if len(b) > 1 && b[0] == '"' && b[len(b)-1] == '"' {
		b = trim(b[1 : len(b)-1])
	}
	t.kind, t.text = tokInclude, string(b)
	s.lastWord = t.text
	return t
}
