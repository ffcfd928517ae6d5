package squash

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// SyntaxError says where a rules file makes no sense.
type SyntaxError struct {
	File      string
	Line, Col int // from 1; Col in bytes
	Msg       string
	Err       error // the cause, or nil
}

func (e *SyntaxError) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *SyntaxError) Unwrap() error { return e.Err }

// maxRules bounds a rules file, in lines.
const maxRules = 1_000_000

// ParseRules reads rules from a text, one a line:
//
//	# a comment
//	exclude PATTERN
//	keep PATTERN
//	chmod MODE PATTERN
//	chown UID:GID PATTERN
//	xattr NAME VALUE PATTERN
//	dir PATH MODE UID:GID
//	file PATH MODE UID:GID FILE
//	text PATH MODE UID:GID CONTENT
//	symlink PATH TARGET
//	char PATH MODE UID:GID MAJOR MINOR
//	block PATH MODE UID:GID MAJOR MINOR
//	fifo PATH MODE UID:GID
//
// Words are separated by blanks; one in double quotes is as in Go, so that
// "a b\n" has a blank and a newline. MODE is octal, with setuid and its like
// (04755). A pattern that is not anchored is in quotes: "... *.orig".
//
// FILE is opened in files, now for its size and time and again when the image
// is built; nil means that there are none. What the other lines put has the
// time 1970-01-01. name is the file's in errors, which are a [*SyntaxError].
func ParseRules(name string, r io.Reader, files fs.FS) (*Rules, error) {
	rules := &Rules{}
	p := &ruleParser{name: name, files: files, rules: rules, put: make(map[string]int)}
	if err := p.lines(r, p.rule); err != nil {
		return nil, err
	}
	return rules, nil
}

// ParseExcludes reads a list of patterns as mksquashfs -wildcards -ef and
// LTSP's update-image have it: one a line, blanks around it and lines that
// begin with "#" left out. name is the file's in errors, which are a
// [*SyntaxError].
func ParseExcludes(name string, r io.Reader) ([]Pattern, error) {
	var list []Pattern
	p := &ruleParser{name: name}
	err := p.lines(r, func(text string) error {
		start := len(text) - len(strings.TrimLeft(text, " \t"))
		text = strings.TrimRight(text[start:], " \t\r")
		if text == "" || text[0] == '#' {
			return nil
		}
		pattern := Pattern(text) // "\#" is "#" in a pattern
		if err := pattern.Check(); err != nil {
			return &SyntaxError{name, p.line, start + 1, "the pattern " + strconv.Quote(string(pattern)), err}
		}
		list = append(list, pattern)
		return nil
	})
	return list, err
}

type ruleParser struct {
	name  string
	files fs.FS
	rules *Rules
	line  int
	words []word
	put   map[string]int // lines
}

type word struct {
	col  int
	text string
}

func (p *ruleParser) lines(r io.Reader, each func(string) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if p.line++; p.line > maxRules {
			return &SyntaxError{p.name, p.line, 1, fmt.Sprintf("more than %d lines", maxRules), nil}
		}
		if err := each(s.Text()); err != nil {
			return err
		}
	}
	if err := s.Err(); errors.Is(err, bufio.ErrTooLong) {
		return &SyntaxError{p.name, p.line + 1, 1, "the line is longer than 1 MiB", nil}
	} else if err != nil {
		return fmt.Errorf("squash: %s: %w", p.name, err)
	}
	return nil
}

func (p *ruleParser) fail(w int, msg string, err error) error {
	return &SyntaxError{p.name, p.line, p.words[w].col, msg, err}
}

// split cuts a line into words.
func (p *ruleParser) split(s string) error {
	p.words = p.words[:0]
	for i := 0; i < len(s); {
		switch s[i] {
		case ' ', '\t', '\r':
			i++
			continue
		case '#':
			return nil
		case '"':
			q, err := strconv.QuotedPrefix(s[i:])
			if err != nil || i+len(q) < len(s) && !strings.ContainsRune(" \t\r", rune(s[i+len(q)])) {
				return &SyntaxError{p.name, p.line, i + 1, "a word in quotes that does not end", nil}
			}
			text, err := strconv.Unquote(q)
			if err != nil {
				return &SyntaxError{p.name, p.line, i + 1, "a word in quotes", err}
			}
			p.words = append(p.words, word{i + 1, text})
			i += len(q)
			continue
		}
		end := strings.IndexAny(s[i:], " \t\r")
		if end < 0 {
			end = len(s) - i
		}
		p.words = append(p.words, word{i + 1, s[i : i+end]})
		i += end
	}
	return nil
}

// usage is what follows each word that begins a rule.
func usage(op string) string {
	switch op {
	case "exclude", "keep":
		return "PATTERN"
	case "chmod":
		return "MODE PATTERN"
	case "chown":
		return "UID:GID PATTERN"
	case "xattr":
		return "NAME VALUE PATTERN"
	case "dir", "fifo":
		return "PATH MODE UID:GID"
	case "file":
		return "PATH MODE UID:GID FILE"
	case "text":
		return "PATH MODE UID:GID CONTENT"
	case "symlink":
		return "PATH TARGET"
	case "char", "block":
		return "PATH MODE UID:GID MAJOR MINOR"
	}
	return ""
}

func (p *ruleParser) rule(line string) error {
	if err := p.split(line); err != nil || len(p.words) == 0 {
		return err
	}
	op := p.words[0].text
	args := usage(op)
	if args == "" {
		return p.fail(0, fmt.Sprintf("no rule begins with %q", op), nil)
	}
	if n := len(strings.Fields(args)); len(p.words) != 1+n {
		return p.fail(min(len(p.words)-1, n+1), fmt.Sprintf("the rule is: %s %s (words with blanks in double quotes)", op, args), nil)
	}
	switch op {
	case "exclude", "keep", "chmod", "chown", "xattr":
		return p.pattern(op)
	}
	return p.entry(op)
}

func (p *ruleParser) pattern(op string) error {
	last := len(p.words) - 1
	pattern := Pattern(p.words[last].text)
	if err := pattern.Check(); err != nil {
		return p.fail(last, "the pattern", err)
	}
	m := Modify{Pattern: pattern, Where: fmt.Sprintf("%s:%d", p.name, p.line)}
	switch op {
	case "exclude":
		p.rules.Exclude = append(p.rules.Exclude, pattern)
		return nil
	case "keep":
		p.rules.Keep = append(p.rules.Keep, pattern)
		return nil
	case "chmod":
		mode, err := p.mode(1)
		if err != nil {
			return err
		}
		m.Change = func(e *Entry) error { e.Mode = e.Mode.Type() | mode; return nil }
	case "chown":
		uid, gid, err := p.owner(1)
		if err != nil {
			return err
		}
		m.Change = func(e *Entry) error { e.Uid, e.Gid = uid, gid; return nil }
	case "xattr":
		name, value := p.words[1].text, []byte(p.words[2].text)
		m.Change = func(e *Entry) error {
			attrs := map[string][]byte{name: value}
			for n, v := range e.Xattrs { // the source's map is not ours
				if n != name {
					attrs[n] = v
				}
			}
			e.Xattrs = attrs
			return nil
		}
	}
	p.rules.Modify = append(p.rules.Modify, m)
	return nil
}

func (p *ruleParser) number(w, base, bits int, what string) (uint64, error) {
	n, err := strconv.ParseUint(p.words[w].text, base, bits)
	if err != nil {
		return 0, p.fail(w, fmt.Sprintf("%q is no %s", p.words[w].text, what), nil)
	}
	return n, nil
}

func (p *ruleParser) mode(w int) (fs.FileMode, error) {
	n, err := p.number(w, 8, 32, "mode in octal")
	if err == nil && n > 0o7777 {
		err = p.fail(w, "a mode has at most 07777", nil)
	}
	return goMode(kindFile, uint16(n)), err
}

func (p *ruleParser) owner(w int) (uid, gid uint32, err error) {
	u, g, _ := strings.Cut(p.words[w].text, ":")
	a, err1 := strconv.ParseUint(u, 10, 32)
	b, err2 := strconv.ParseUint(g, 10, 32)
	if err1 != nil || err2 != nil {
		return 0, 0, p.fail(w, fmt.Sprintf("%q is no owner and group in numbers, such as 0:0", p.words[w].text), nil)
	}
	return uint32(a), uint32(b), nil
}

func (p *ruleParser) entry(op string) error {
	name, err := cleanName(p.words[1].text)
	if err == nil && name == "." && op != "dir" {
		err = fs.ErrInvalid
	}
	if err != nil {
		return p.fail(1, fmt.Sprintf("%q is no path in the tree", p.words[1].text), err)
	}
	if line := p.put[name]; line > 0 {
		return p.fail(1, fmt.Sprintf("line %d puts %s, too", line, name), nil)
	}
	p.put[name] = p.line
	e := &Entry{Path: name, Mode: 0o777}
	if op != "symlink" {
		if e.Mode, err = p.mode(2); err != nil {
			return err
		}
		if e.Uid, e.Gid, err = p.owner(3); err != nil {
			return err
		}
	}
	switch op {
	case "dir":
		e.Mode |= fs.ModeDir
	case "symlink":
		e.Mode |= fs.ModeSymlink
		e.Target = p.words[2].text
	case "fifo":
		e.Mode |= fs.ModeNamedPipe
	case "char", "block":
		e.Mode |= fs.ModeDevice
		if op == "char" {
			e.Mode |= fs.ModeCharDevice
		}
		major, err := p.number(4, 10, 12, "major number")
		if err != nil {
			return err
		}
		minor, err := p.number(5, 10, 20, "minor number")
		if err != nil {
			return err
		}
		e.Major, e.Minor = uint32(major), uint32(minor)
	case "text":
		text := NewFile(name, e.Mode, []byte(p.words[4].text))
		text.Uid, text.Gid = e.Uid, e.Gid
		e = text
	case "file":
		if err := p.file(e); err != nil {
			return err
		}
	}
	p.rules.Put = append(p.rules.Put, e)
	return nil
}

func (p *ruleParser) file(e *Entry) error {
	from := p.words[4].text
	if p.files == nil {
		return p.fail(4, "there are no files to put", fs.ErrNotExist)
	}
	fi, err := fs.Stat(p.files, from)
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file: %w", from, fs.ErrInvalid)
	}
	if err != nil {
		return p.fail(4, "the file to put", err)
	}
	files := p.files
	e.Size, e.ModTime = fi.Size(), fi.ModTime().Truncate(time.Second)
	e.Open = func() (io.ReadCloser, error) { return files.Open(from) }
	return nil
}
