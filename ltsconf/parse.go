package ltsconf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"unicode"
)

// DefaultMaxSize is the limit on the input of a [Parser] that does not set
// one: 4 MiB.
const DefaultMaxSize = 4 << 20

const (
	maxFiles    = 10 // getltscfg's limit, the first file included
	maxProblems = 100
)

// Parser reads lts.conf files. Its zero value is ready: strict, without
// includes. It is not changed by use.
type Parser struct {
	// Compatible makes the parser read as getltscfg does: a syntax error ends
	// the reading, what came before it counts, and [File.Problems] lists what
	// is wrong. Then Parse fails only when the input cannot be read or is too
	// large. Where getltscfg crashes (an include of a missing file) the
	// reading ends as at a syntax error; where it never ends (LIKE in a
	// circle) each section counts once.
	Compatible bool

	// MaxSize limits the input, included files counted in, in bytes:
	// 0 means [DefaultMaxSize], -1 (or less) no limit.
	MaxSize int64

	// Includes holds the files that include directives name; a path's leading
	// slash is dropped. When it is nil, an include is treated as one of a
	// missing file.
	//
	// Includes work as they do in getltscfg: the included file is read after
	// the end of the first 8192 bytes (or the next multiple, or the end) of
	// the one that names it, the rest of which is lost; of several in that
	// part only the last is read; a file that was read is not read again; and
	// after nine, further ones are ignored. The strict parser refuses an
	// include when anything is lost by it.
	Includes fs.FS
}

// Parse reads r strictly, with the default limit and without includes.
func Parse(r io.Reader) (*File, error) { return Parser{}.Parse("", r) }

// ParseFile reads the named file strictly, with the default limit and without
// includes.
func ParseFile(name string) (*File, error) {
	r, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return Parser{}.Parse(name, r)
}

// Parse reads r to its end. The name stands in errors and in the values'
// origin; it may be empty.
//
// A mistake in the input is a [*SyntaxError], the first that there is. Input
// over the limit is an error that is [fs.ErrInvalid].
func (o Parser) Parse(name string, r io.Reader) (*File, error) {
	limit := o.MaxSize
	if limit == 0 {
		limit = DefaultMaxSize
	}
	src, err := readLimited(name, r, limit)
	if err != nil {
		return nil, err
	}
	p := &parser{
		opts:   o,
		opened: []string{fsName(name)},
		f:      &File{opts: o, src: src, names: []string{name}, index: make(map[string]int32)},
		keyID:  make(map[string]int32),
		budget: limit - int64(len(src)),
	}
	if limit < 0 {
		p.budget = -1
	}
	p.scan = scanner{stream: newStream(src), line: 1, bol: true, lastLine: -1, complain: p.complain}
	p.file()
	p.link()
	switch {
	case p.err != nil:
		return nil, p.err
	case !o.Compatible && len(p.f.problems) > 0:
		return nil, p.f.problems[0]
	}
	p.f.stray = string(p.scan.stray)
	return p.f, nil
}

var errTooLarge = fmt.Errorf("split it, or raise Parser.MaxSize: %w", fs.ErrInvalid)

// readLimited reads at most limit bytes; any number when it is negative.
func readLimited(name string, r io.Reader, limit int64) ([]byte, error) {
	if limit < 0 || limit == math.MaxInt64 {
		return io.ReadAll(r)
	}
	src, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(src)) > limit {
		if name == "" {
			name = "lts.conf"
		}
		err = fmt.Errorf("%s: larger than %d bytes: %w", name, limit, errTooLarge)
	}
	return src, err
}

type parser struct {
	opts   Parser
	scan   scanner
	f      *File
	keyID  map[string]int32
	seen   []seenKey // by key: where the current section has it
	likes  []like
	used   lineRef  // where the last setting ended
	budget int64    // bytes that included files may still have; -1: any
	opened []string // paths of included files
	done   bool     // nothing is read any more
	err    error    // not a mistake in the input
}

type (
	seenKey struct{ section, pos int32 }
	lineRef struct{ file, line int32 }
	like    struct {
		section int32
		target  token
	}
)

// complain notes a problem. It ends the reading in strict mode.
func (p *parser) complain(t token, format string, args ...any) {
	if p.done || len(p.f.problems) >= maxProblems {
		return
	}
	p.note(t, format, args...)
	p.done = !p.opts.Compatible
}

// stop notes a problem that ends the reading in either mode.
func (p *parser) stop(t token, format string, args ...any) {
	if !p.done {
		p.note(t, format, args...)
		p.done = true
	}
}

func (p *parser) note(t token, format string, args ...any) {
	p.f.problems = append(p.f.problems, &SyntaxError{
		File: p.f.names[t.file], Line: int(t.line), Col: int(t.col), Msg: fmt.Sprintf(format, args...),
	})
}

func (p *parser) next() token {
	t := p.scan.next()
	if p.done {
		t.kind = tokEnd
	}
	return t
}

// file parses: (section | include)*.
func (p *parser) file() {
	t := p.next()
	for !p.done {
		switch t.kind {
		case tokEnd:
			return
		case tokInclude:
			p.include(t)
			t = p.next()
		case tokOpen:
			t = p.section(t)
		case tokWord:
			if strings.HasPrefix(t.text, "\ufeff") {
				p.stop(t, "byte order mark: save the file as UTF-8 without it")
			} else {
				p.stop(t, "%q is outside a section; put a header such as [Default] above it", clip(t.text))
			}
		default:
			p.stop(t, "unexpected %s; a section starts with [name]", t)
		}
	}
}

// section parses a header and the settings below it, and returns the token
// behind them. The section exists from its header on: one without settings is
// an error, but still hides a later one of its name.
func (p *parser) section(open token) token {
	if p.used == (lineRef{open.file, open.line}) {
		p.complain(open, "a section header needs a line of its own; a bracket in a value needs double quotes around the value")
	}
	name := p.next()
	if name.kind != tokWord {
		p.stop(name, "unexpected %s; a section name belongs between [ and ]", name)
		return name
	}
	end := p.next()
	if end.kind != tokClose {
		p.stop(end, "unexpected %s in a section header; only * and ? work as patterns", end)
		return end
	}
	if end.line != open.line {
		p.complain(open, "the section header spans lines")
	}
	p.addSection(name.text, open, end)
	key := p.next()
	if key.kind != tokWord {
		p.stop(key, "section [%s] has no settings: clients stop reading here; remove it or put it in comments", clip(name.text))
		return key
	}
	for !p.done && key.kind == tokWord {
		key = p.setting(key)
	}
	return key
}

func (p *parser) setting(key token) token {
	if p.used == (lineRef{key.file, key.line}) {
		p.complain(key, "a second setting on one line: put each on its own")
	}
	eq := p.next()
	if eq.kind != tokEqual {
		if strings.HasPrefix(key.text, ";") || strings.HasPrefix(key.text, "//") {
			p.stop(key, "comments start with #")
		}
		p.stop(key, "%q is not followed by =; every setting is NAME=value", clip(key.text))
		return eq
	}
	val := p.next()
	if val.kind != tokWord {
		p.stop(key, "%s has no value; write %s=\"\" for an empty one", clip(key.text), clip(key.text))
		return val
	}
	p.used = lineRef{val.file, val.line}
	if eq.line != key.line || val.line != key.line {
		p.complain(key, "%s takes its value from line %d; write %s=\"\" for an empty one", clip(key.text), val.line, clip(key.text))
	}
	if !isName(key.text) {
		p.complain(key, "%q is no name for a setting: letters, digits and _ only", clip(key.text))
	} else if isShellsOwn(upper(key.text)) {
		p.complain(key, "clients' shells keep %s for themselves, and setting it ends the boot", upper(key.text))
	}
	if key.file == 0 {
		p.f.spans = append(p.f.spans, span{
			section: int32(len(p.f.sections) - 1), name: upper(key.text),
			key: key.off, val: val.off, end: val.end, keyTok: key, valText: val.text,
		})
	}
	if upper(key.text) == "LIKE" {
		p.likes = append(p.likes, like{int32(len(p.f.sections) - 1), val})
	} else {
		if _, err := checkQuoted(val.text); err != nil {
			p.complain(val, "%s: %v", clip(key.text), err)
		}
		p.addSetting(key, val)
	}
	t := p.next()
	if t.kind == tokEqual {
		p.stop(t, "a second = on this line: put the value in double quotes, and each setting on its own line")
	}
	return t
}

func (p *parser) addSection(name string, open, end token) {
	i := int32(len(p.f.sections))
	p.f.sections = append(p.f.sections, section{name: name, file: open.file, line: open.line, col: open.col, off: open.off, end: end.end})
	if k := fold(name); !has(p.f.index, k) {
		p.f.index[k] = i
	}
}

func has(m map[string]int32, k string) bool { _, ok := m[k]; return ok }

// addSetting adds a setting to the last section. A name set twice keeps its
// first place and takes the last value.
func (p *parser) addSetting(key, val token) {
	name := upper(key.text)
	id, ok := p.keyID[name]
	if !ok {
		id = int32(len(p.f.keys))
		p.keyID[name] = id
		p.f.keys = append(p.f.keys, name)
		p.seen = append(p.seen, seenKey{section: -1})
	}
	i := int32(len(p.f.sections) - 1)
	s := &p.f.sections[i]
	v := setting{key: id, file: key.file, line: key.line, col: key.col, raw: val.text}
	if at := p.seen[id]; at.section == i {
		s.settings[at.pos] = v
		return
	}
	p.seen[id] = seenKey{i, int32(len(s.settings))}
	s.settings = append(s.settings, v)
}

// include lets the scanner go on in another file.
func (p *parser) include(t token) {
	s := &p.scan
	switch last := s.starts[len(s.starts)-1]; {
	case s.eof:
		p.complain(t, "an include at the end of the file needs a newline after it, or clients ignore it")
	case s.pos < last:
		p.complain(t, "a second include in one file: clients read only the last")
	case len(s.rest) > 0:
		p.complain(t, "clients lose what follows the first %d bytes of a file with an include; make the file smaller or do without", len(s.buf)-last)
	}
	name := fsName(t.text)
	if slices.Contains(p.opened, name) {
		p.complain(t, "%q is included already; clients ignore this line", clip(t.text))
		return
	}
	if len(p.opened) >= maxFiles {
		p.complain(t, "more than %d files; clients ignore this include", maxFiles)
		return
	}
	src, err := p.readInclude(name)
	switch {
	case errors.Is(err, errTooLarge):
		p.err, p.done = err, true
	case err != nil && !errors.Is(err, syscall.EISDIR):
		p.stop(t, "include: clients crash here: %v", err)
	default:
		if err != nil { // what is in the buffer is parsed before it is read
			p.complain(t, "include: clients crash behind this: %v", err)
		}
		p.opened = append(p.opened, name)
		p.f.names = append(p.f.names, t.text)
		s.divert(src)
	}
}

func (p *parser) readInclude(name string) ([]byte, error) {
	if p.opts.Includes == nil || !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	r, err := p.opts.Includes.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if info, err := r.Stat(); err == nil && info.IsDir() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: syscall.EISDIR}
	}
	src, err := readLimited(name, r, p.budget)
	if err == nil && p.budget >= 0 {
		p.budget -= int64(len(src))
	}
	return src, err
}

// fsName makes the path in an include a name for an [fs.FS].
func fsName(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

// clip keeps messages readable when the input is not.
func clip(s string) string {
	if len(s) > 40 {
		s = s[:37] + "..."
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// shellsOwn are names that shells keep for themselves: dash ends over an
// OPTIND that is no number, and bash over the others, whatever they are set to.
var shellsOwn = [...]string{"OPTIND", "UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO"}

// isShellsOwn reports whether setting the variable ends a client's shell.
func isShellsOwn(name string) bool { return slices.Contains(shellsOwn[:], name) }

// isName reports whether the shell takes s as the name of a variable.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if !(c >= 'a' && c <= 'z' || s[i] == '_' || i > 0 && s[i] >= '0' && s[i] <= '9') {
			return false
		}
	}
	return s != ""
}
