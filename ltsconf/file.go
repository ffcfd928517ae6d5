package ltsconf

import (
	"fmt"
	"io"
	"io/fs"
)

// File is a parsed lts.conf. It does not change, and may be used by any
// number of goroutines.
type File struct {
	src      []byte
	names    []string // of the files, included ones follow
	sections []section
	keys     []string         // each name once, upper case
	index    map[string]int32 // first section of each folded name
	patterns patterns
	problems []*SyntaxError
	stray    string
	opts     Parser // as it was read
	likes    []like
	spans    []span // settings of the first file, in order
}

type section struct {
	name     string
	file     int32
	line     int32
	col      int32
	off, end int       // of the header, in the first file
	like     []int32   // the sections that its LIKE settings name, in order
	settings []setting // one for each name, LIKE not among them
}

// span is where a setting stands in the first file; all of them, also those
// that a later one of the same name replaces, and LIKE.
type span struct {
	section  int32
	name     string
	key, val int // offsets of the first byte
	end      int // behind the value
	keyTok   token
	valText  string
}

type setting struct {
	key       int32 // in File.keys
	file      int32 // in File.names
	line, col int32
	raw       string
}

// WriteTo writes the file byte for byte as it was read. What an include
// brought in is not part of it.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(f.src)
	return int64(n), err
}

// Problems returns what the strict reader would have refused, in the order
// found; nil for a file that the strict reader took. Only the first hundred
// are kept, and the one at which a compatible reader stopped.
func (f *File) Problems() []*SyntaxError { return append([]*SyntaxError(nil), f.problems...) }

// Stray returns the characters that getltscfg prints in front of its output
// because no rule of its grammar takes them. When there are any, the shell
// code that the client evaluates is broken, and so is its boot.
func (f *File) Stray() string { return f.stray }

// SyntaxError is a mistake in an lts.conf, or something in it that clients
// would not understand the way it looks.
type SyntaxError struct {
	File string // as given to the parser; empty for an unnamed reader
	Line int    // from 1
	Col  int    // in bytes, from 1
	Msg  string
}

// Error returns file:line:col: message.
func (e *SyntaxError) Error() string {
	name := e.File
	if name == "" {
		name = "lts.conf"
	}
	return fmt.Sprintf("%s:%d:%d: %s", name, e.Line, e.Col, e.Msg)
}

// Unwrap makes the error an [fs.ErrInvalid].
func (e *SyntaxError) Unwrap() error { return fs.ErrInvalid }

// fold makes names that differ only in the case of ASCII letters equal.
func fold(s string) string { return mapASCII(s, 'A', 'Z') }

// upper is how clients see the name of a setting.
func upper(s string) string { return mapASCII(s, 'a', 'z') }

// mapASCII flips the case of the letters from lo to hi. The originals run in
// the C locale, where other letters have no case.
func mapASCII(s string, lo, hi byte) string {
	for i := range len(s) {
		if s[i] >= lo && s[i] <= hi {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] >= lo && b[i] <= hi {
					b[i] ^= 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c | 0x20
	}
	return c
}
