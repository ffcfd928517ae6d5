package pxecfg

import (
	"fmt"
	"io/fs"
	"strings"
)

// Set gives a directive a value: in the entry with the label, or before the
// first entry if label is empty. Where the directive is there already, its
// last line, which is the one that counts, gets the value and keeps its
// spelling; otherwise a line is added to the end of the entry. All other lines
// stay as they are. directive is as in Line.Keyword: "append", "menu title".
//
// What PXELINUX would read otherwise is an fs.ErrInvalid, and an entry that is
// not in this file (but maybe in an included one) an fs.ErrNotExist.
func (f *File) Set(label, directive, value string) error {
	kw, _ := keyword(directive + " x")
	switch {
	case kw == "" || kw == "label" || strings.HasPrefix(kw, "text"):
		return fmt.Errorf("%q is not a directive with a value: %w", directive, fs.ErrInvalid)
	case chomp(value) != value || skipSpace(value) != value:
		return fmt.Errorf("%s %q: a value has no line break and no leading space: %w", directive, value, fs.ErrInvalid)
	case len(directive)+len(value) > maxLine-80:
		return fmt.Errorf("%s: the line would be longer than PXELINUX reads: %w", directive, fs.ErrInvalid)
	}
	start, end, err := f.section(label)
	if err != nil {
		return err
	}
	for i := end - 1; i >= start; i-- {
		l := &f.lines[i]
		if l.Keyword != kw {
			continue
		}
		content := chomp(l.raw)
		head := content[:len(content)-len(l.Value)]
		if value != "" && l.Value == "" && !strings.HasSuffix(head, " ") {
			head += " "
		}
		if l.raw = head + value + l.raw[len(content):]; i+1 < len(f.lines) && !strings.HasSuffix(l.raw, "\n") {
			l.raw += "\n" // the rest of an overlong line stays a line of its own
		}
		f.renumber()
		return nil
	}
	if f.openText(end) {
		return fmt.Errorf("label %q ends in a TEXT without ENDTEXT: %w", label, fs.ErrInvalid)
	}
	text := directive + " " + value
	at := end
	for at > start && strings.TrimSpace(f.lines[at-1].raw) == "" {
		at-- // blank lines separate this entry from the next
	}
	eol := "\n"
	if at > 0 {
		last := &f.lines[at-1]
		if label != "" && at-1 >= start {
			text = last.raw[:len(last.raw)-len(strings.TrimLeft(last.raw, " \t"))] + text
		} else if label != "" {
			text = "  " + text
		}
		switch {
		case strings.HasSuffix(last.raw, "\r\n"):
			eol = "\r\n"
		case !strings.HasSuffix(last.raw, "\n"):
			last.raw += "\n"
		}
	}
	f.splice(at, at, text+eol)
	return nil
}

// Unset removes all lines of a directive from an entry, or from before the
// first one if label is empty. That there are none is no error.
func (f *File) Unset(label, directive string) error {
	kw, _ := keyword(directive + " x")
	start, end, err := f.section(label)
	if err != nil {
		return err
	}
	kept := f.lines[:start:start]
	for i, l := range f.lines[start:] {
		if kw == "" || l.Keyword != kw || start+i >= end {
			kept = append(kept, l)
		}
	}
	f.lines = kept
	f.renumber()
	return nil
}

// AddEntry adds an entry without directives to the end of the file. One that
// the file has already is an fs.ErrExist.
func (f *File) AddEntry(label string) error {
	if word, rest := firstWord(label); word == "" || rest != "" || skipSpace(label) != label || len(word) > 1000 {
		return fmt.Errorf("label %q: a label is one word: %w", label, fs.ErrInvalid)
	}
	if _, _, err := f.section(label); err == nil {
		return fmt.Errorf("label %q: %w", label, fs.ErrExist)
	}
	text := "LABEL " + label + "\n"
	if f.openText(len(f.lines)) {
		return fmt.Errorf("the file ends in a TEXT without ENDTEXT: %w", fs.ErrInvalid)
	}
	if n := len(f.lines); n > 0 && !strings.HasSuffix(f.lines[n-1].raw, "\n") {
		f.lines[n-1].raw += "\n"
	}
	f.splice(len(f.lines), len(f.lines), text)
	return nil
}

// RemoveEntry removes an entry with all its lines.
func (f *File) RemoveEntry(label string) error {
	start, end, err := f.section(label)
	if err != nil {
		return err
	}
	if label == "" {
		return fmt.Errorf("an entry has a label: %w", fs.ErrInvalid)
	}
	f.splice(start-1, end, "")
	return nil
}

// section returns the lines of an entry, without its LABEL line. With several
// of that name the first is the one that boots.
func (f *File) section(label string) (start, end int, err error) {
	start = -1
	if label == "" {
		start = 0
	}
	for i, l := range f.lines {
		switch l.Keyword {
		case "label", "menu begin", "menu end", "menu separator":
			if start >= 0 {
				return start, i, nil
			}
		}
		if name, _ := firstWord(l.Value); l.Keyword == "label" && label != "" && name == label {
			start = i + 1
		}
	}
	if start < 0 {
		return 0, 0, fmt.Errorf("label %q: %w", label, fs.ErrNotExist)
	}
	return start, len(f.lines), nil
}

// openText tells whether the line before end is inside of TEXT.
func (f *File) openText(end int) bool {
	for i := end - 1; i >= 0; i-- {
		switch f.lines[i].Keyword {
		case "text", "text help":
			return true
		case "":
			continue
		}
		return false
	}
	return false
}

// splice replaces lines by text.
func (f *File) splice(start, end int, text string) {
	var b strings.Builder
	for i, l := range f.lines {
		if i == start {
			b.WriteString(text)
		}
		if i < start || i >= end {
			b.WriteString(l.raw)
		}
	}
	if start == len(f.lines) {
		b.WriteString(text)
	}
	f.parse(b.String())
}

// renumber reads the lines anew after a change.
func (f *File) renumber() { f.parse(f.String()) }
