package ltsconf

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Set returns the file with one setting changed, or added behind the last one
// of its section; all other bytes stay as they are, comments included. The
// receiver does not change.
//
// The section is the first of that name, compared without regard to case, and
// must exist ([fs.ErrNotExist]; see [File.AddSection]). Of several settings
// of that name, or LIKEs, in the section the last is changed: of settings it
// is the one that counts. An error that is [fs.ErrInvalid] says what cannot
// be: see [Settings.WriteTo] for values; a section in an included file; a
// file with [File.Problems].
func (f *File) Set(section, name string, v Value) (*File, error) {
	s, err := f.editable(section)
	if err != nil {
		return nil, err
	}
	name = upper(name)
	switch err := v.check(); {
	case err != nil:
		return nil, fmt.Errorf("setting %s: %w: %w", clip(name), err, fs.ErrInvalid)
	case !isName(name):
		return nil, fmt.Errorf("setting %q: letters, digits and _ only: %w", clip(name), fs.ErrInvalid)
	case isShellsOwn(name):
		return nil, fmt.Errorf("setting %s: clients' shells keep this name for themselves, and the boot would end: %w", name, fs.ErrInvalid)
	}
	var last, found *span
	for i := range f.spans {
		if sp := &f.spans[i]; sp.section == s {
			last = sp
			if sp.name == name {
				found = sp
			}
		}
	}
	if found != nil {
		quoted := f.src[found.val] == '"'
		return f.edited(section, name, v, []change{{found.val, found.end, quoteValue(v.Raw, quoted)}})
	}
	// Like the line above it: indented, aligned and spelled the same way.
	line := f.lineStart(last.key)
	indent := string(f.src[line:last.key])
	if strings.Trim(indent, " \t") != "" {
		indent = "    " // behind a header
	}
	equals := string(f.src[last.key+len(last.keyTok.text) : last.val])
	if pad := len(last.name) - len(name); strings.HasPrefix(equals, " ") {
		spaces := strings.Index(equals, "=")
		equals = strings.Repeat(" ", max(1, spaces+pad)) + equals[spaces:]
	}
	at, text := f.afterLine(last.end), indent+name+equals+quoteValue(v.Raw, f.src[last.val] == '"')
	if at > 0 && f.src[at-1] != '\n' {
		text = "\n" + text
	} else {
		text += "\n"
	}
	return f.edited(section, name, v, []change{{at, at, text}})
}

// Unset returns the file without a setting: every one of that name (or each
// LIKE) is taken out of the section. A comment behind it stays. When there is
// none the file is returned as it is. A section cannot lose its last setting,
// since clients stop reading at an empty one: see [File.RemoveSection].
// Other errors are those of [File.Set].
func (f *File) Unset(section, name string) (*File, error) {
	s, err := f.editable(section)
	if err != nil {
		return nil, err
	}
	name = upper(name)
	var changes []change
	rest := 0
	for _, sp := range f.spans {
		switch {
		case sp.section != s:
		case sp.name != name:
			rest++
		default:
			changes = append(changes, f.cut(sp.key, sp.end))
		}
	}
	if len(changes) == 0 {
		return f, nil
	}
	if rest == 0 {
		return nil, fmt.Errorf("[%s] would be empty without %s, and clients stop reading at an empty section; use RemoveSection: %w", clip(section), clip(name), fs.ErrInvalid)
	}
	return f.reparse(changes)
}

// AddSection returns the file with a new section at its end. It needs at
// least one setting; LIKE may be among them, and more than once. A section of
// that name must not exist ([fs.ErrExist]): of two, clients see only the
// first.
func (f *File) AddSection(name string, settings Settings) (*File, error) {
	if len(f.problems) > 0 {
		return nil, f.notEditable()
	}
	if _, ok := f.index[fold(name)]; ok {
		return nil, fmt.Errorf("section [%s]: %w", clip(name), fs.ErrExist)
	}
	if strings.ContainsAny(name, "\"\n\r\x00") {
		return nil, fmt.Errorf("section %q: no quotes, no line ends: %w", clip(name), fs.ErrInvalid)
	}
	if len(settings) == 0 {
		return nil, fmt.Errorf("section [%s] needs a setting: clients stop reading at an empty one: %w", clip(name), fs.ErrInvalid)
	}
	var b bytes.Buffer
	if n := len(f.src); n > 0 {
		if f.src[n-1] != '\n' {
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	header := name
	if name == "" || strings.Trim(name, " \t\v\f") != name || strings.ContainsAny(name, "=[]'#") {
		header = `"` + name + `"`
	}
	fmt.Fprintf(&b, "[%s]\n", header)
	var plain Settings
	for _, set := range settings {
		if upper(set.Name) == "LIKE" {
			if err := set.Value.check(); err != nil {
				return nil, fmt.Errorf("LIKE: %w: %w", err, fs.ErrInvalid)
			}
			fmt.Fprintf(&b, "LIKE=\"%s\"\n", set.Value.Raw)
			continue
		}
		plain = append(plain, set)
	}
	if len(plain) > 0 {
		var body bytes.Buffer
		if _, err := plain.WriteTo(&body); err != nil {
			return nil, err
		}
		b.Write(bytes.TrimPrefix(body.Bytes(), []byte("[Default]\n")))
	}
	return f.reparse([]change{{len(f.src), len(f.src), b.String()}})
}

// RemoveSection returns the file without the sections of that name: headers
// and settings go, comments stay. Where the section was named exactly after a
// client, other sections apply to that client now: see [File.Resolve].
func (f *File) RemoveSection(name string) (*File, error) {
	if _, err := f.editable(name); err != nil {
		return nil, err
	}
	var changes []change
	gone := make(map[int32]bool)
	for i, s := range f.sections {
		if fold(s.name) != fold(name) {
			continue
		}
		if s.file != 0 {
			return nil, fmt.Errorf("section [%s] is also in %s, an included file: %w", clip(name), f.names[s.file], fs.ErrInvalid)
		}
		gone[int32(i)] = true
		changes = append(changes, f.cut(s.off, s.end))
	}
	for _, sp := range f.spans {
		if gone[sp.section] {
			changes = append(changes, f.cut(sp.key, sp.end))
		}
	}
	return f.reparse(changes)
}

// change replaces the bytes from one offset to another.
type change struct {
	from, to int
	text     string
}

func (f *File) notEditable() error {
	return fmt.Errorf("correct the file before it is edited: %w", f.problems[0])
}

// editable returns the section, if it can be edited.
func (f *File) editable(name string) (int32, error) {
	if len(f.problems) > 0 {
		return 0, f.notEditable()
	}
	s, ok := f.index[fold(name)]
	if !ok {
		return 0, fmt.Errorf("section [%s]: %w", clip(name), fs.ErrNotExist)
	}
	if file := f.sections[s].file; file != 0 {
		return 0, fmt.Errorf("section [%s] is in %s, an included file; edit that one: %w", clip(name), f.names[file], fs.ErrInvalid)
	}
	return s, nil
}

// cut takes out the bytes from one offset to another, and the line with them
// when nothing else is on it.
func (f *File) cut(from, to int) change {
	line, end := f.lineStart(from), to
	for end < len(f.src) && (f.src[end] == ' ' || f.src[end] == '\t') {
		end++
	}
	if len(bytes.Trim(f.src[line:from], " \t")) == 0 && (end == len(f.src) || f.src[end] == '\n') {
		return change{line, min(end+1, len(f.src)), ""}
	}
	return change{from, to, ""}
}

func (f *File) lineStart(off int) int { return bytes.LastIndexByte(f.src[:off], '\n') + 1 }

// afterLine returns the offset behind the line that off is on.
func (f *File) afterLine(off int) int {
	if i := bytes.IndexByte(f.src[off:], '\n'); i >= 0 {
		return off + i + 1
	}
	return len(f.src)
}

// quoteValue writes a value, in quotes when it needs them or quoted says so.
func quoteValue(raw string, quoted bool) string {
	plain := raw != "" && !strings.ContainsFunc(raw, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("_./:,@%+-*", r))
	})
	if plain && !quoted {
		return raw
	}
	return `"` + raw + `"`
}

// edited applies the changes and makes sure that the setting is what clients
// see: a double quote in a comment behind a value would become part of it.
func (f *File) edited(section, name string, v Value, changes []change) (*File, error) {
	g, err := f.reparse(changes)
	if err == nil {
		s := g.index[fold(section)]
		for _, sp := range slices.Backward(g.spans) {
			if sp.section == s && sp.name == name {
				if sp.valText == v.Raw {
					return g, nil
				}
				break
			}
		}
	}
	return nil, fmt.Errorf("%s cannot be set on its line (is there a double quote in a comment behind it?): %w", clip(name), fs.ErrInvalid)
}

func (f *File) reparse(changes []change) (*File, error) {
	slices.SortStableFunc(changes, func(a, b change) int { return a.from - b.from })
	var b bytes.Buffer
	at := 0
	for _, c := range changes {
		if c.from > at {
			b.Write(f.src[at:c.from])
		}
		b.WriteString(c.text)
		at = max(at, c.to)
	}
	b.Write(f.src[at:])
	o := f.opts
	o.Compatible = false
	g, err := o.Parse(f.names[0], &b)
	if err != nil {
		return nil, fmt.Errorf("the edit would break the file: %w", err)
	}
	g.opts = f.opts
	return g, nil
}
