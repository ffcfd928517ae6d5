package ltsconf

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
)

// Setting is a name and what it is set to.
type Setting struct {
	Name  string
	Value Value
}

// Settings is a list of settings in the order in which a client evaluates
// them. As an [io.WriterTo] it is an lts.conf for exactly one client.
type Settings []Setting

// Collect makes a list of what [File.Resolve] returns.
func Collect(settings iter.Seq2[string, Value]) Settings {
	var s Settings
	for name, v := range settings {
		s = append(s, Setting{name, v})
	}
	return s
}

// WriteTo writes an lts.conf with one section, Default, from which any client
// that fetches it gets these settings and no others:
//
//	[Default]
//	NAME="value"
//
// Without settings the file is a comment: an empty one would leave the client
// with the lts.conf in its image, and a section may not be empty.
//
// What such a file cannot hold is an error that is [fs.ErrInvalid], and then
// nothing is written: a name that is no shell variable, is the shell's own
// (OPTIND, UID, EUID, PPID and bash's SHELLOPTS, BASHOPTS, BASH_VERSINFO) or is
// LIKE, a name set twice, a value with a newline, carriage return or NUL, the value NONE, and
// shell text that would not end where the value does (an odd backslash at the
// end, a bare double quote, an open command substitution).
func (s Settings) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	if len(s) == 0 {
		b.WriteString("# No settings for this client.\n")
	} else {
		b.WriteString("[Default]\n")
	}
	seen := make(map[string]bool, len(s))
	for _, set := range s {
		name := upper(set.Name)
		if err := set.Value.check(); err != nil {
			return 0, fmt.Errorf("setting %s%s: %w: %w", clip(name), set.Value.origin(), err, fs.ErrInvalid)
		}
		switch {
		case !isName(name):
			return 0, fmt.Errorf("setting %q%s: letters, digits and _ only: %w", clip(name), set.Value.origin(), fs.ErrInvalid)
		case isShellsOwn(name):
			return 0, fmt.Errorf("setting %s%s: clients' shells keep this name for themselves, and the boot would end: %w", name, set.Value.origin(), fs.ErrInvalid)
		case name == "LIKE":
			return 0, fmt.Errorf("setting LIKE%s: it means nothing in a resolved file: %w", set.Value.origin(), fs.ErrInvalid)
		case seen[name]:
			return 0, fmt.Errorf("setting %s%s: set twice: %w", clip(name), set.Value.origin(), fs.ErrInvalid)
		}
		seen[name] = true
		b.WriteString(name)
		b.WriteString(`="`)
		b.WriteString(set.Value.Raw)
		b.WriteString("\"\n")
	}
	return b.WriteTo(w)
}

// origin returns where v comes from, for messages.
func (v Value) origin() string {
	if v.Line == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s line %d)", v.File, v.Line)
}

// check tells why v cannot be written.
func (v Value) check() error {
	if i := strings.IndexAny(v.Raw, "\n\r\x00"); i >= 0 {
		return fmt.Errorf("the value has %q in it, which lts.conf cannot hold", v.Raw[i])
	}
	if equalNone(v.Raw) {
		return fmt.Errorf("the value %s means not set; leave the setting out", v.Raw)
	}
	_, err := checkQuoted(v.Raw)
	return err
}
