package ltsconf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// LTSPFile is a parsed ltsp.conf, the configuration of LTSP 19 and later. It
// does not change, and may be used by any number of goroutines.
//
// Such a file looks like an lts.conf and is another language: each section is
// the body of a shell function, and several of them run one after the other.
// What they set with assignments, conditions, case and for is known here
// without a shell; see [LTSPFile.Undecided] for what is not.
type LTSPFile struct {
	src      []byte
	name     string
	sections []ltspSection
	byID     map[string]int32 // the section that runs, by its function's name
	exact    map[string]int32 // the first section with this as an alternative
	patterns patterns
	problems []*SyntaxError
	broken   bool
}

type ltspSection struct {
	label string // what remains of the header
	id    string // name of the shell function
	line  int    // of the header
	lines []int  // offsets of the body's lines
	body  *node
}

// WriteTo writes the file byte for byte as it was read.
func (f *LTSPFile) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(f.src)
	return int64(n), err
}

// Problems returns what the strict reader would have refused, in the order of
// the file; nil for a file that the strict reader took. Only the first
// hundred are kept.
func (f *LTSPFile) Problems() []*SyntaxError { return slices.Clone(f.problems) }

// Broken reports whether a client's shell cannot read the file: then it stops
// the boot, and no client has settings.
func (f *LTSPFile) Broken() bool { return f.broken }

// LTSPParser reads ltsp.conf files. Its zero value is ready and strict. It is
// not changed by use.
type LTSPParser struct {
	// Compatible makes the parser take whatever LTSP takes, and list in
	// [LTSPFile.Problems] what the strict one refuses. Then Parse fails only
	// when the input cannot be read or is too large.
	Compatible bool

	// MaxSize limits the input, in bytes: 0 means [DefaultMaxSize], -1 (or
	// less) no limit.
	MaxSize int64
}

// ParseLTSP reads an ltsp.conf strictly, with the default limit.
func ParseLTSP(r io.Reader) (*LTSPFile, error) { return LTSPParser{}.Parse("", r) }

// ParseLTSPFile reads the named file strictly, with the default limit.
func ParseLTSPFile(name string) (*LTSPFile, error) {
	r, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return LTSPParser{}.Parse(name, r)
}

// Parse reads r to its end. The name stands in errors and in the values'
// origin; it may be empty.
//
// The strict reader refuses with a [*SyntaxError] what a shell cannot read,
// and what does not mean what it looks like: a header that loses characters,
// two sections of one name, or of names that differ only in punctuation (the
// later one counts), an indented INCLUDE, carriage returns, and commands
// other than those that only set, test or print ("A=x y" runs y).
func (o LTSPParser) Parse(name string, r io.Reader) (*LTSPFile, error) {
	limit := o.MaxSize
	if limit == 0 {
		limit = DefaultMaxSize
	}
	if name == "" {
		name = "ltsp.conf"
	}
	src, err := readLimited(name, r, limit)
	if err != nil {
		return nil, err
	}
	f := &LTSPFile{src: src, name: name, byID: make(map[string]int32), exact: make(map[string]int32)}
	f.read()
	if !o.Compatible && len(f.problems) > 0 {
		return nil, f.problems[0]
	}
	return f, nil
}

func (f *LTSPFile) complain(line, col int, format string, args ...any) {
	if len(f.problems) < maxProblems {
		f.problems = append(f.problems, &SyntaxError{File: f.name, Line: line, Col: col, Msg: fmt.Sprintf(format, args...)})
	}
}

// refuse notes what no shell can read.
func (f *LTSPFile) refuse(line, col int, format string, args ...any) {
	f.complain(line, col, format, args...)
	f.broken = true
}

const unnamed = "unnamed" // the lines above all sections

func (f *LTSPFile) read() {
	f.sections = append(f.sections, ltspSection{label: unnamed, id: unnamed})
	f.byID[unnamed] = 0
	f.exact[unnamed] = 0
	var body strings.Builder
	finish := func() {
		f.body(&f.sections[len(f.sections)-1], body.String())
		body.Reset()
	}
	cr := false
	for n, rest := 1, f.src; len(rest) > 0; n++ {
		line, more, _ := bytes.Cut(rest, []byte("\n"))
		rest = more
		if i := bytes.IndexByte(line, '\r'); i >= 0 && !cr {
			cr = true
			f.complain(n, i+1, "carriage return: save the file with Unix line ends, or values end in one")
		}
		if i := bytes.IndexByte(line, 0); i >= 0 {
			f.complain(n, i+1, "NUL byte: the file is not text")
			line = bytes.ReplaceAll(line, []byte{0}, nil)
		}
		if isHeader(line) {
			finish()
			f.header(n, string(line))
			continue
		}
		cur := &f.sections[len(f.sections)-1]
		cur.lines = append(cur.lines, body.Len())
		body.WriteString(shellLine(string(line)))
		body.WriteByte('\n')
	}
	finish()
	slices.SortStableFunc(f.problems, func(a, b *SyntaxError) int { return a.Line - b.Line })
}

// isHeader reports whether the line is a section's header: spaces, but no tabs,
// may stand before it.
func isHeader(line []byte) bool {
	line = bytes.TrimLeft(line, " ")
	return len(line) > 0 && line[0] == '[' && bytes.IndexByte(line, ']') > 0
}

// label is what remains of a line's text as a section's name.
func label(line string) string {
	line, _, _ = strings.Cut(fold(line), "#")
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r < 0x80 && strings.IndexByte("-*./:?@_|", byte(r)) >= 0 {
			return r
		}
		return -1
	}, line)
}

// functionID is the name of a section's shell function.
func functionID(label string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, label)
}

func (f *LTSPFile) header(n int, line string) {
	s := ltspSection{label: label(line), line: n}
	s.id = functionID(s.label)
	i := int32(len(f.sections))
	col := strings.IndexByte(line, '[') + 1
	written, _, _ := strings.Cut(line, "#")
	written = strings.Trim(written, " \t\r")
	if w := strings.TrimSuffix(strings.TrimPrefix(written, "["), "]"); fold(strings.Trim(w, " ")) != s.label {
		f.complain(n, col, "the section is called %q; letters, digits and -*./:?@_| only, and nothing behind the ]", clip(s.label))
	}
	alternatives := strings.Split(s.label, "|")
	switch {
	case slices.Contains(alternatives, ""):
		f.refuse(n, col, "a section without a name, or with an empty alternative; clients do not boot with it")
	case alternatives[0] == "esac":
		f.refuse(n, col, "a section cannot be called esac; clients do not boot with it")
	case s.id == "call" || s.id == "list":
		f.complain(n, col, "a section cannot be called %s: LTSP has a function of that name", s.id)
	}
	if first, ok := f.byID[s.id]; ok {
		switch old := f.sections[first]; {
		case s.id == unnamed && old.line == 0:
			if old.body != nil && len(old.body.list) > 0 {
				f.complain(n, col, "[unnamed] replaces the lines above the first section")
			}
		case old.label == s.label:
			f.complain(n, col, "section [%s] is there already, in line %d, and this one replaces it", clip(s.label), old.line)
		default:
			f.complain(n, col, "section [%s] replaces [%s] of line %d: punctuation does not tell them apart", clip(s.label), clip(old.label), old.line)
		}
	}
	f.byID[s.id] = i
	for _, a := range alternatives {
		if strings.ContainsAny(a, "*?") {
			f.patterns.add(a, i)
		} else if _, ok := f.exact[a]; !ok {
			f.exact[a] = i
		}
	}
	f.sections = append(f.sections, s)
}

// shellLine is the shell code that a line stands for.
func shellLine(line string) string {
	name := nameBytes(line)
	rest := strings.TrimLeft(line[name:], " ")
	if !strings.HasPrefix(rest, "=") {
		return line
	}
	if fold(line[:name]) == "include" {
		rest, _, _ = strings.Cut(rest, "#")
		return includeCommand + ` "` + label(strings.TrimLeft(rest[1:], " ")) + `"`
	}
	return line[:name] + "=" + strings.TrimLeft(rest[1:], " ")
}

func nameBytes(line string) int {
	n := 0
	for n < len(line) && (line[n] == '_' || line[n] >= '0' && line[n] <= '9' || line[n]|0x20 >= 'a' && line[n]|0x20 <= 'z') {
		n++
	}
	return n
}

const includeCommand = "section_call"

// body reads the code of a section.
func (f *LTSPFile) body(s *ltspSection, code string) {
	n, err := parseShell(code)
	if err != nil {
		var e *shellError
		if errors.As(err, &e) {
			line, col := s.at(e.off)
			f.refuse(line, col, "%s; clients do not boot with it", e.msg)
		}
		return
	}
	s.body = n
	f.check(s, n)
}

// at returns line and column of an offset in the body.
func (s *ltspSection) at(off int) (line, col int) {
	if len(s.lines) == 0 {
		return s.line, 1
	}
	i, found := slices.BinarySearch(s.lines, off)
	if !found {
		i--
	}
	return s.line + 1 + i, off - s.lines[i] + 1
}

// check complains about what is not settings, or only looks like them.
func (f *LTSPFile) check(s *ltspSection, n *node) {
	complain := func(off int, format string, args ...any) {
		line, col := s.at(off)
		f.complain(line, col, format, args...)
	}
	switch n.kind {
	case opaqueNode:
		complain(n.off, "%s: what it sets is known on the client only", n.name)
	case simpleNode:
		for _, a := range n.assigns {
			if upper(a.name) == "INCLUDE" {
				complain(a.off, "INCLUDE counts in the first column only")
			}
		}
		if len(n.words) > 0 {
			switch cmd := plainText(n.words[0]); {
			case len(n.words[0]) == 1 && isKnownCommand(cmd):
			case len(n.assigns) > 0:
				complain(n.off, "this runs the command %s; put the value in quotes", clip(cmd))
			default:
				complain(n.off, "this runs the command %s on the client", clip(cmd))
			}
		}
	}
	for _, c := range n.list {
		f.check(s, c)
	}
	for _, a := range n.arms {
		f.check(s, a.body)
	}
}

// WriteLTSP writes an ltsp.conf with one section, clients, from which a client
// of LTSP 19 or later gets these settings and no others. Values may have line
// ends. What such a file cannot hold is an error that is [fs.ErrInvalid], and
// then nothing is written: a name that is no shell variable or is INCLUDE, a
// name set twice, a NUL, shell text that would not end where the value does,
// and a value with a line in it that would count as a section, an INCLUDE or
// a setting with spaces around its equals sign.
func (s Settings) WriteLTSP(w io.Writer) (int64, error) {
	var b bytes.Buffer
	b.WriteString("[clients]\n")
	seen := make(map[string]bool, len(s))
	for _, set := range s {
		bad := func(err any) (int64, error) {
			return 0, fmt.Errorf("setting %s%s: %v: %w", clip(set.Name), set.Value.origin(), err, fs.ErrInvalid)
		}
		switch _, err := checkQuoted(set.Value.Raw); {
		case err != nil:
			return bad(err)
		case !isName(set.Name):
			return bad("letters, digits and _ only")
		case upper(set.Name) == "INCLUDE":
			return bad("it means nothing in a resolved file")
		case seen[set.Name]:
			return bad("set twice")
		case strings.Contains(set.Value.Raw, "\x00"):
			return bad("the value has a NUL in it")
		}
		lines := strings.Split(set.Value.Raw, "\n")
		for i, line := range lines[1:] {
			if i == len(lines)-2 {
				line += `"`
			}
			if isHeader([]byte(line)) || shellLine(line) != line {
				return bad(fmt.Sprintf("LTSP would change the line %q of the value", clip(line)))
			}
		}
		seen[set.Name] = true
		fmt.Fprintf(&b, "%s=\"%s\"\n", set.Name, set.Value.Raw)
	}
	return b.WriteTo(w)
}
