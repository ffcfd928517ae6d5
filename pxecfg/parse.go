package pxecfg

import (
	"fmt"
	"io"
	"io/fs"
	"strings"
)

const (
	// maxLine is how much PXELINUX reads of a line at once; what follows is a
	// line of its own.
	maxLine = 4095
	// maxConfig bounds what is read from one file, and from all files that it
	// includes together.
	maxConfig = 4 << 20
	// maxInclude is how deep INCLUDE may nest, the first file counted.
	maxInclude = 16
)

// File is the text of a PXELINUX configuration, line by line in its order and
// byte for byte: comments, spelling and words that nobody knows are kept.
// [File.Load] tells what PXELINUX makes of it.
//
// A File is not safe for concurrent use while it is edited.
type File struct {
	// Name is used in positions. It may be empty.
	Name  string
	lines []Line
}

// Line is one line as PXELINUX reads it: of one that is longer than 4095
// bytes, every further piece of that length is a Line too.
type Line struct {
	// Number and Col are where it begins, counted from 1; Col is in bytes
	// and 1 but for the rest of an overlong line.
	Number, Col int
	// Keyword is the directive in lower case and one spelling: "append",
	// "sysappend" for IPAPPEND too, "menu label", "text help", "f1". It is
	// empty in blank lines, comments, the inside of TEXT, and where PXELINUX
	// does not know the word.
	Keyword string
	// Value is what follows the keyword without leading white space. Space at
	// the end belongs to it. It is empty if Keyword is.
	Value string
	raw   string
}

// String returns the line's bytes, its end of line included.
func (l Line) String() string { return l.raw }

// text is the line as PXELINUX looks at it: up to the first CR, LF or NUL, and
// without leading white space.
func (l Line) text() string { return skipSpace(chomp(l.raw)) }

// valueCol is the column at which Value begins.
func (l Line) valueCol() int {
	return l.Col + len(chomp(l.raw)) - len(l.Value)
}

// SyntaxError is a place that stops PXELINUX, or would let it run out of
// memory. There are few: any line that PXELINUX does not understand it ignores.
// See [Lint] for what it reads otherwise than meant. It is an [fs.ErrInvalid].
type SyntaxError struct {
	File      string
	Line, Col int // from 1; Col is in bytes
	Msg       string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg)
}

// Is makes a SyntaxError an fs.ErrInvalid.
func (e *SyntaxError) Is(target error) bool { return target == fs.ErrInvalid }

// ParseFile reads a PXELINUX configuration. Any text is one, so that the only
// errors are those of r, and a [*SyntaxError] for more than 4 MiB.
func ParseFile(name string, r io.Reader) (*File, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfig {
		return nil, &SyntaxError{name, 1, 1, "longer than 4 MiB, which is no boot configuration"}
	}
	f := &File{Name: name}
	f.parse(string(data))
	return f, nil
}

// parse splits text into lines.
func (f *File) parse(text string) {
	f.lines = make([]Line, 0, strings.Count(text, "\n")+1)
	number, col := 1, 1
	inText := false
	for len(text) > 0 {
		n := strings.IndexByte(text, '\n') + 1
		if n == 0 {
			n = len(text)
		}
		n = min(n, maxLine)
		l := Line{Number: number, Col: col, raw: text[:n]}
		text = text[n:]
		if l.raw[n-1] == '\n' {
			number, col = number+1, 1
		} else {
			col += n
		}
		if inText {
			// The end is looked for before CR is taken off; all the same to
			// a keyword, which any control character ends.
			if p := skipSpace(untilNUL(l.raw)); wordIs(p, "endtext") {
				l.Keyword, inText = "endtext", false
			}
		} else {
			l.Keyword, l.Value = keyword(l.text())
			inText = strings.HasPrefix(l.Keyword, "text")
		}
		f.lines = append(f.lines, l)
	}
}

// Lines returns the lines. They must not be changed.
func (f *File) Lines() []Line { return f.lines }

// WriteTo implements [io.WriterTo]: without edits it writes exactly what was
// read.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, f.String())
	return int64(n), err
}

// String returns the text of the file.
func (f *File) String() string {
	var b strings.Builder
	for _, l := range f.lines {
		b.WriteString(l.raw)
	}
	return b.String()
}

// PXELINUX has two ideas of white space. Any control character ends a word...
func isSpace(c byte) bool { return c <= ' ' || c == 0x7f }

// ...but only what its C library calls a space, of which backspace and Latin-1's
// no-break space are two, is passed over before one.
func isBlank(c byte) bool { return c == ' ' || c >= '\b' && c <= '\r' || c == 0xa0 }

func skipSpace(s string) string {
	i := 0
	for i < len(s) && isBlank(s[i]) {
		i++
	}
	return s[i:]
}

// firstWord returns the first word and what follows it.
func firstWord(s string) (word, rest string) {
	i := 0
	for i < len(s) && !isSpace(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

// cutWord is firstWord for commands: all that ends words is passed over behind
// the first one.
func cutWord(s string) (word, rest string) {
	word, rest = firstWord(s)
	for rest != "" && isSpace(rest[0]) {
		rest = rest[1:]
	}
	return word, rest
}

func untilNUL(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return s
}

func chomp(s string) string {
	if i := strings.IndexAny(s, "\r\n\x00"); i >= 0 {
		return s[:i]
	}
	return s
}

// fold is how PXELINUX compares letters: it ignores one bit.
func fold(word string) string {
	var small [24]byte
	if len(word) > len(small) {
		return "" // longer than any keyword
	}
	for i := 0; i < len(word); i++ {
		small[i] = word[i] | 0x20
	}
	return string(small[:len(word)])
}

func wordIs(s, kw string) bool {
	w, _ := firstWord(s)
	return len(w) == len(kw) && fold(w) == kw
}

// kernelTypes are the words that say what to boot, and how.
var kernelTypes = map[string]bool{
	"none": true, "localboot": true, "kernel": true, "linux": true, "boot": true, "bss": true, "pxe": true,
	"fdimage": true, "comboot": true, "com32": true, "config": true,
}

// keywords are the other words at the beginning of a line, and keywordAlias
// second spellings.
var keywords = wordSet(`append initrd label include timeout totaltimeout ontimeout onerror allowoptions sysappend
	default ui display font kbdmap implicit prompt console noescape nocomplete nohalt pxeretry serial say path sendcookies`)

// menuKeywords follow MENU.
var menuKeywords = wordSet(`label title default hide passwd shiftkey save nosave onerror master include background
	hidden autoboot tabmsg notabmsg passprompt color msgcolor separator disable indent begin end quit goto exit start
	width margin passwordmargin rows tabmsgrow cmdlinerow endrow passwordrow timeoutrow helpmsgrow helpmsgendrow
	hshift vshift hiddenrow`)

// menuProgramKeywords follow MENU and are known to menu.c32 and vesamenu.c32
// only, which read the file again.
var menuProgramKeywords = wordSet("hiddenkey clear immediate resolution")

var keywordAlias = map[string]string{"ipappend": "sysappend", "disabled": "disable", "colour": "color", "msgcolour": "msgcolor"}

func wordSet(words string) map[string]bool {
	set := make(map[string]bool)
	for w := range strings.FieldsSeq(words) {
		set[w] = true
	}
	return set
}

// keyword reads a line without leading space. It returns "" for what PXELINUX
// does not know.
func keyword(p string) (kw, value string) {
	word, rest := firstWord(p)
	w := fold(word)
	if alias, ok := keywordAlias[w]; ok && keywords[alias] {
		w = alias
	}
	switch {
	case w == "":
		return "", ""
	case w == "menu":
		word, value = firstWord(skipSpace(rest))
		w = fold(word)
		if alias, ok := keywordAlias[w]; ok {
			w = alias
		}
		if !menuKeywords[w] {
			return "", ""
		}
		return "menu " + w, skipSpace(value)
	case w == "text":
		value = skipSpace(rest)
		if wordIs(value, "help") {
			return "text help", ""
		}
		return "text", value
	case keywords[w], kernelTypes[w]:
		return w, skipSpace(rest)
	case w[0] == 'f':
		if n, rest, ok := functionKey(p[1:]); ok {
			return fmt.Sprintf("f%d", n), skipSpace(rest)
		}
	}
	return "", ""
}

// functionKey reads the number after F. F0, and F alone, is F11.
func functionKey(s string) (n int, rest string, ok bool) {
	v, rest, _ := parseNumber(s, 10)
	if n = int(int32(v)); n < 0 || n > 12 || rest != "" && !isSpace(rest[0]) {
		return 0, "", false
	}
	if n == 0 {
		n = 11
	}
	return n, rest, true
}

// parseNumber reads a number as the strtoul of PXELINUX's C library does; base
// 0 is C's notation. It wraps at 64 bits. Without a digit, for which ok is
// false, rest still is what follows white space, a sign and 0x.
func parseNumber(s string, base uint64) (v uint64, rest string, ok bool) {
	t := skipSpace(s)
	minus := false
	if t != "" && (t[0] == '-' || t[0] == '+') {
		minus = t[0] == '-'
		t = t[1:]
	}
	if base == 0 {
		base = 10
		switch {
		case len(t) > 1 && t[0] == '0' && t[1]|0x20 == 'x':
			base, t = 16, t[2:]
		case t != "" && t[0] == '0':
			base = 8
		}
	}
	for t != "" {
		d, digit := unhex(t[0])
		if !digit || uint64(d) >= base {
			break
		}
		v, t, ok = v*base+uint64(d), t[1:], true
	}
	if minus {
		v = -v
	}
	return v, t, ok
}

// atoi is C's but for wrapping: no number is 0.
func atoi(s string) int {
	v, _, _ := parseNumber(s, 10)
	return int(int32(v))
}
