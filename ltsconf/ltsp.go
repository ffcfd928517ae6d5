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
// What they set is known here without a shell; see [LTSPFile.Undecided] for
// what is not.
type LTSPFile struct {
	src      []byte
	name     string
	sections []ltspSection
	byID     map[string]int32 // the section that runs, by its function's name
	exact    map[string]int32 // the first section with this as an alternative
	patterns patterns
	problems []*SyntaxError
	broken   bool

	code  strings.Builder // the shell code that clients make of the file
	lines []codeLine
	names map[string]bool // functions of the file's own
	top   *node           // all of it, when a section does not end where it seems to
}

type ltspSection struct {
	label      string // what remains of the header
	id         string // name of the shell function
	line       int    // of the header
	start, end int    // of the body, in the code
	body       *node
}

// codeLine is where a line of the code comes from.
type codeLine struct {
	off     int
	line    int32 // in the file
	section int32
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
// other than those that only set, test or print ("A=x y" runs y), settings in
// a subshell, a pipeline or the background, which are lost, and quotes and
// braces that cross a section's border.
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
	f.begin(ltspSection{label: unnamed, id: unnamed})
	f.exact[unnamed] = 0
	cr, n := false, 1
	for rest := f.src; len(rest) > 0; n++ {
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
			f.finish(n)
			f.header(n, string(line))
			continue
		}
		f.write(n, shellLine(string(line)))
	}
	f.finish(n)
	f.parse()
	slices.SortStableFunc(f.problems, func(a, b *SyntaxError) int { return a.Line - b.Line })
}

// write adds a line to the code.
func (f *LTSPFile) write(line int, text string) {
	f.lines = append(f.lines, codeLine{f.code.Len(), int32(line), int32(len(f.sections) - 1)})
	f.code.WriteString(text)
	f.code.WriteByte('\n')
}

// begin starts the function of a section.
func (f *LTSPFile) begin(s ltspSection) {
	f.byID[s.id] = int32(len(f.sections))
	f.sections = append(f.sections, s)
	f.write(max(s.line, 1), sectionPrefix+s.id+"() {")
	f.write(max(s.line, 1), ":")
	f.sections[len(f.sections)-1].start = f.code.Len()
}

func (f *LTSPFile) finish(line int) {
	f.sections[len(f.sections)-1].end = f.code.Len()
	f.write(line, "}")
}

// at returns where an offset in the code comes from.
func (f *LTSPFile) at(off int) (section int32, line, col int) {
	i, found := slices.BinarySearchFunc(f.lines, off, func(l codeLine, off int) int { return l.off - off })
	if !found {
		i--
	}
	l := f.lines[max(i, 0)]
	return l.section, int(l.line), off - l.off + 1
}

// parse reads the code: each section by itself, for that is how it is meant,
// and all at once when one of them does not end where its text does. Quotes
// and braces do not care for headers.
func (f *LTSPFile) parse() {
	code, whole := f.code.String(), false
	var first *shellError
	for i := range f.sections {
		s := &f.sections[i]
		n, open, err := parseShell(code[:s.end], s.start)
		if err != nil {
			whole = true
			if e := (*shellError)(nil); first == nil && errors.As(err, &e) {
				first = e
				if e.off >= s.end && s.end > s.start {
					e.off = s.end - 1
				}
			}
			continue
		}
		if s.body = n; open {
			whole = true
			if first == nil {
				first = &shellError{max(s.end-1, 0), "the section's last command goes on behind its end"}
			}
		}
	}
	if len(f.sections) == 1 {
		// The list of no sections is a string that does not end.
		whole = true
		if first == nil {
			first = &shellError{0, "a file without sections; put [clients] above the settings"}
		}
	}
	if whole {
		f.functions(&f.code)
		n, open, err := parseShell(f.code.String(), 0)
		_, line, col := f.at(first.off)
		if err != nil || open {
			f.refuse(line, col, "%s; clients do not boot with it", first.msg)
		} else {
			f.complain(line, col, "%s; it takes in what follows", first.msg)
			f.top = n
		}
	}
	for i := range f.sections {
		if body := f.sections[i].body; body != nil {
			f.check(body)
		}
	}
	if f.top == nil {
		f.code = strings.Builder{}
	}
}

// functions adds the functions that LTSP writes behind the sections.
func (f *LTSPFile) functions(code *strings.Builder) {
	code.WriteString("section_list() {\necho \"\\")
	for _, s := range f.sections[1:] {
		code.WriteString("\n" + sectionPrefix + s.id)
	}
	code.WriteString("\"\n}\n# \"\"\nsection_call() {\nfor section in \"$@\"; do\ncase \"$section\" in\nunnamed) section_unnamed \"$@\" ;;")
	for _, s := range f.sections[1:] {
		code.WriteString("\n" + s.label + ") " + sectionPrefix + s.id + " \"$@\" ;;")
	}
	code.WriteString("\nesac\ndone\n}\n")
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
		if strings.HasPrefix(written, "[ ") {
			f.complain(n, col, "a line that starts with [ is a section's header, here of %q; write test in place of [", clip(s.label))
		} else {
			f.complain(n, col, "the section is called %q; letters, digits and -*./:?@_| only, and nothing behind the ]", clip(s.label))
		}
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
			if strings.TrimSpace(f.code.String()[old.start:old.end]) != "" {
				f.complain(n, col, "[unnamed] replaces the lines above the first section")
			}
		case old.label == s.label:
			f.complain(n, col, "section [%s] is there already, in line %d, and this one replaces it", clip(s.label), old.line)
		default:
			f.complain(n, col, "section [%s] replaces [%s] of line %d: punctuation does not tell them apart", clip(s.label), clip(old.label), old.line)
		}
	}
	for _, a := range alternatives {
		if strings.ContainsAny(a, "*?") {
			f.patterns.add(a, i)
		} else if _, ok := f.exact[a]; !ok {
			f.exact[a] = i
		}
	}
	f.begin(s)
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

// check complains about what is not settings, or only looks like them.
func (f *LTSPFile) check(n *node) {
	complain := func(off int, format string, args ...any) {
		_, line, col := f.at(off)
		f.complain(line, col, format, args...)
	}
	walk(n, func(n *node) {
		switch n.kind {
		case subNode, pipeNode:
			for _, c := range n.list {
				if c.kind == listNode && len(c.list) > 0 {
					c = c.list[0]
				}
				switch {
				case c.kind != simpleNode || len(c.assigns) == 0 || len(c.words) > 0:
				case n.async:
					complain(n.off, "this sets nothing: & runs it in the background; put the value in quotes")
				case n.kind == pipeNode:
					complain(n.off, "what is set in a pipeline is lost; put the value in quotes")
				default:
					complain(n.off, "what a subshell sets is lost; use { } in place of ( )")
				}
			}
		case simpleNode:
			for _, a := range n.assigns {
				if upper(a.name) == "INCLUDE" {
					complain(a.off, "INCLUDE counts in the first column only")
				}
			}
			if len(n.words) > 0 {
				switch cmd := plainText(n.words[0]); {
				case len(n.words[0]) == 1 && (isKnownCommand(cmd) || f.defines(cmd)):
				case len(n.assigns) > 0:
					complain(n.off, "this runs the command %s; put the value in quotes", clip(cmd))
				default:
					complain(n.off, "this runs the command %s on the client", clip(cmd))
				}
			}
		}
	})
}

// defines reports whether the file has a function of that name.
func (f *LTSPFile) defines(cmd string) bool {
	if id, ok := strings.CutPrefix(cmd, sectionPrefix); ok {
		if _, ok := f.byID[id]; ok {
			return true
		}
	}
	if f.names == nil {
		f.names = make(map[string]bool)
		for i := range f.sections {
			walk(f.sections[i].body, func(n *node) {
				if n.kind == funcNode {
					f.names[n.name] = true
				}
			})
		}
	}
	return f.names[cmd]
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
		case isShellsOwn(set.Name):
			return bad("clients' shells keep this name for themselves, and the boot would end")
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
