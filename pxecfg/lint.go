package pxecfg

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Finding is something in a configuration that is read otherwise than it was
// probably meant.
type Finding struct {
	File      string
	Line, Col int // from 1; Col is in bytes
	// Code names the kind of finding, for those who want to leave some out.
	Code string
	// Loader is "U-Boot", or "GRUB, iPXE", if only these are in trouble.
	Loader string
	Msg    string
}

// String is in the form of compilers.
func (f Finding) String() string {
	loader := ""
	if f.Loader != "" {
		loader = f.Loader + ": "
	}
	return fmt.Sprintf("%s:%d:%d: %s%s (%s)", f.File, f.Line, f.Col, loader, f.Msg, f.Code)
}

// Lint looks for what PXELINUX, or U-Boot, reads otherwise than meant, in the
// order of lines. The codes are:
//
//	empty-file       counts as missing
//	syntax           what File.Load does not take
//	unknown-word     a line that is ignored
//	no-such-label    neither a label nor a file
//	duplicate-label  cannot be booted by name
//	no-such-menu     MENU GOTO or EXIT to a menu that is not there
//	no-such-file     a kernel, initrd or included file that is not there
//	misplaced        has no effect before the first LABEL
//	number           is not a number
//	trailing-comment is data: there are only whole lines of comment
//	kernel-type      the name's ending says how KERNEL boots it
//	initrd           is not loaded, or is taken from within a word
//	command-line     longer than kernels take
//	long-line, long-name, open-text
//	uboot-...        U-Boot only
//	pxelinux-only    what GRUB and iPXE, given the file by Existing, do without
//
// fsys is the TFTP root, prefix what PXELINUX puts before names. If fsys is nil
// no file is looked for. Included files are checked too, each once, where they
// are pasted; their findings follow those of the first file, in the order in
// which they are included.
func Lint(f *File, fsys fs.FS, prefix string) []Finding {
	l := &linter{
		fsys: fsys, prefix: prefix, rank: map[string]int{f.Name: 0},
		byName: make(map[string]*File), seen: make(map[*File]bool), missing: make(map[string]bool),
	}
	if len(f.lines) == 0 {
		l.add(f.Name, 1, 1, "empty-file", "PXELINUX takes an empty file for a missing one, and asks for its next name")
		return l.found
	}
	p, files, err := f.load(fsys, prefix)
	for _, inc := range files {
		l.rank[inc.Name] = len(l.rank)
		l.byName[inc.Name] = inc
	}
	l.files = append([]*File{f}, files...)
	l.lines(f)
	for _, file := range l.files {
		l.uboot(file)
	}
	var syntax *SyntaxError
	switch {
	case errors.As(err, &syntax):
		l.found = append(l.found, Finding{File: syntax.File, Line: syntax.Line, Col: syntax.Col, Code: "syntax", Msg: syntax.Msg})
	case err == nil:
		l.loaded(p)
	}
	slices.SortStableFunc(l.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(l.rank[a.File], l.rank[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col),
			cmp.Compare(a.Code, b.Code), cmp.Compare(a.Msg, b.Msg))
	})
	return slices.Compact(l.found) // what is included twice is said once
}

type linter struct {
	files    []*File // the first, and what it includes, each once
	rank     map[string]int
	fsys     fs.FS
	prefix   string
	found    []Finding
	labelled bool // a LABEL was seen, in whatever file
	byName   map[string]*File
	seen     map[*File]bool
	missing  map[string]bool // answers of fsys
	size     int             // of all command lines: a long global APPEND is in each
}

// included returns the file that a line includes, if it is to be checked.
func (l *linter) included(name string) *File {
	p, ok := treeName(l.prefix, name)
	if f := l.byName[p]; ok && f != nil && !l.seen[f] {
		return f
	}
	return nil
}

func (l *linter) add(file string, line, col int, code, format string, args ...any) {
	finding := Finding{File: file, Line: line, Col: col, Code: code, Msg: fmt.Sprintf(format, args...)}
	if strings.HasPrefix(code, "uboot-") {
		finding.Loader = "U-Boot"
	}
	if code == onlyPXELINUX {
		finding.Loader = "GRUB, iPXE"
	}
	l.found = append(l.found, finding)
}

const onlyPXELINUX = "pxelinux-only"

var numberKeywords = wordSet("timeout totaltimeout prompt allowoptions implicit noescape nocomplete nohalt console pxeretry sysappend")

// dataKeywords have values in which a # is surely a mistake.
var dataKeywords = wordSet("label kernel linux initrd append default ui ontimeout onerror include com32 pxe boot bss fdimage comboot config localboot")

// lines checks what can be seen in a line by itself.
func (l *linter) lines(f *File) {
	l.seen[f] = true
	inText, textLine := false, 0
	for i := range f.lines {
		line := &f.lines[i]
		kw, v := line.Keyword, line.Value
		if line.Col > 1 {
			l.add(f.Name, line.Number, line.Col, "long-line", "PXELINUX reads %d bytes at once: here begins a line of its own", maxLine)
		}
		if inText {
			inText = kw != "endtext"
			continue
		}
		text := line.text()
		col := line.Col + len(chomp(line.raw)) - len(text)
		switch {
		case kw == "include" || kw == "menu include":
			if name, _ := firstWord(v); name != "" {
				if inc := l.included(name); inc != nil {
					l.lines(inc)
				}
			}
		case strings.HasPrefix(kw, "text"):
			inText, textLine = true, i
		case kw == "" && text != "" && text[0] != '#' && !knownElsewhere(text):
			word, _ := firstWord(text)
			l.add(f.Name, line.Number, col, "unknown-word", "%q is no directive: the line is ignored", cutShort(word))
		case kw == "label":
			l.labelled = true
		case !l.labelled && (kw == "initrd" || kernelTypes[kw]):
			l.add(f.Name, line.Number, col, "misplaced", "%s has no effect before the first LABEL", strings.ToUpper(kw))
		case numberKeywords[kw]:
			base := uint64(10)
			if kw == "sysappend" {
				base = 0
			}
			if _, rest, ok := parseNumber(v, base); !ok || skipSpace(rest) != "" {
				l.add(f.Name, line.Number, line.valueCol(), "number", "%q is not a whole number: PXELINUX reads what digits it begins with, or 0", cutShort(v))
			}
		}
		if i := strings.IndexByte(v, '#'); dataKeywords[kw] && i > 0 && isSpace(v[i-1]) {
			l.add(f.Name, line.Number, line.valueCol()+i, "trailing-comment", "# begins a comment only at the beginning of a line: this is part of the value")
		}
		if kw == "append" && v != "-" && strings.TrimRight(v, " \t") == "-" {
			l.add(f.Name, line.Number, line.valueCol(), "trailing-comment", "APPEND - empties the arguments only without anything after it, spaces too")
		}
	}
	if inText {
		l.add(f.Name, f.lines[textLine].Number, 1, "open-text", "TEXT without ENDTEXT: all that follows is text")
	}
}

// knownElsewhere tells whether a line is for the menu programs or U-Boot.
func knownElsewhere(text string) bool {
	word, rest := firstWord(text)
	w := fold(word)
	if w == "menu" {
		word, _ = firstWord(skipSpace(rest))
		return menuProgramKeywords[fold(word)]
	}
	return ubootLabelWords[w] || ubootTopWords[w]
}

// loaded checks what takes the whole configuration.
func (l *linter) loaded(p *PXELINUX) {
	for _, inc := range p.Missing {
		if l.fsys != nil {
			l.add(inc.Pos.File, inc.Pos.Line, inc.Pos.Col, "no-such-file", "%s is not there: PXELINUX goes on without it", cutShort(inc.Name))
		}
	}
	labels := make(map[string]bool)
	folded := make(map[string]string)
	for _, e := range p.entries {
		if e.labelled && labels[e.Label] {
			l.add(e.Pos.File, e.Pos.Line, e.Pos.Col, "duplicate-label", "label %q is there already: the name means the first one", cutShort(e.Label))
		}
		if e.labelled {
			labels[e.Label] = true
			folded[strings.ToLower(e.Label)] = e.Label
		}
		l.entry(e)
	}
	if m := p.masterPassword(); m != nil {
		l.add(l.files[0].Name, 1, 1, onlyPXELINUX, "MENU MASTER PASSWD in menu %q: they cannot keep anybody from changing an entry, and get nothing", cutShort(m.Tag))
	}
	for _, f := range l.files {
		for i := range f.lines {
			line := &f.lines[i]
			switch line.Keyword {
			case "totaltimeout":
				l.add(f.Name, line.Number, line.Col, onlyPXELINUX, "they have no TOTALTIMEOUT: a key stops their menus for ever")
			case "default", "ontimeout", "onerror", "menu onerror":
				name, _ := firstWord(line.Value)
				if labels[name] || l.isFile(name) {
					continue
				}
				msg := "no label is " + fmt.Sprintf("%q", cutShort(name)) + ": PXELINUX takes it for a file"
				if other, ok := folded[strings.ToLower(name)]; ok {
					msg += fmt.Sprintf("; labels are case-sensitive, and there is %q", cutShort(other))
				}
				l.add(f.Name, line.Number, line.valueCol(), "no-such-label", "%s", msg)
			}
		}
	}
}

// isFile tells whether a name is surely a file. Elsewhere, and without a tree,
// a name with an ending or a directory is taken for one.
func (l *linter) isFile(name string) bool {
	p, ok := treeName(l.prefix, name)
	if !ok || l.fsys == nil {
		return name != "" && strings.ContainsAny(name, "./:")
	}
	return !l.isMissing(p)
}

// isMissing asks for each file once.
func (l *linter) isMissing(p string) bool {
	missing, asked := l.missing[p]
	if !asked {
		_, err := fs.Stat(l.fsys, p)
		// What no tree can have is an fs.ErrInvalid.
		missing = errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid)
		l.missing[p] = missing
	}
	return missing
}

func (l *linter) entry(e *MenuEntry) {
	at := e.Pos
	if e.Action == ActionDisabled && e.target != "" {
		l.add(at.File, at.Line, at.Col, "no-such-menu", "no menu has the tag %q: the entry is disabled", cutShort(e.target))
	}
	switch typ := e.ImageType(); {
	case e.Password != "":
		l.add(at.File, at.Line, at.Col, onlyPXELINUX, "they ask for no MENU PASSWD: this is left out")
	case e.Action == ActionGoto || e.Action == ActionQuit:
		l.add(at.File, at.Line, at.Col, onlyPXELINUX, "they have no MENU %s: this is left out", strings.ToUpper(string(e.Action)))
	case e.Action == ActionCommand && typ != "linux" && typ != "pxe" && typ != "localboot":
		l.add(at.File, at.Line, at.Col, onlyPXELINUX, "they cannot boot a file of type %s: this is left out", strings.ToUpper(typ))
	}
	if e.Action != ActionCommand {
		return
	}
	before := l.size
	if l.size += e.commandLen(); l.size > maxConfig {
		if before <= maxConfig {
			l.add(at.File, at.Line, at.Col, "command-line", "all command lines up to here take more than 4 MiB: no others are checked")
		}
		return
	}
	file, _ := firstWord(e.Kernel)
	typ := e.ImageType()
	if base := file[strings.LastIndexByte(file, '/')+1:]; e.Type == "kernel" && typ != "linux" && typ != "com32" &&
		(e.Append != "" || e.Initrd != "" || strings.HasPrefix(base, "vmlinu") || strings.HasPrefix(base, "linux") || strings.HasPrefix(base, "bzImage")) {
		l.add(at.File, at.Line, at.Col, "kernel-type", "KERNEL %s boots as type %s because of the end of its name: write LINUX", cutShort(file), strings.ToUpper(typ))
	}
	if typ == "localboot" {
		return
	}
	l.file(at, "file", file)
	line, ok := e.KernelLine(SysStrings{})
	if !ok {
		return
	}
	if n := len(line) + sysAppendLen(e.SysAppend); n > MaxCommandLine {
		l.add(at.File, at.Line, at.Col, "command-line", "the kernel's command line is up to %d bytes long, and only %d are taken", n, MaxCommandLine)
	}
	head, after, found := strings.Cut(line, "initrd=")
	if !found {
		return
	}
	if !isSpace(head[len(head)-1]) {
		l.add(at.File, at.Line, at.Col, "initrd", "PXELINUX takes initrd= even from within a word, and loads what follows")
	}
	if strings.Contains(after, " initrd=") {
		l.add(at.File, at.Line, at.Col, "initrd", "PXELINUX loads the files of the first initrd= only, and there are several; separate files by commas")
	}
	list, _, _ := strings.Cut(after, " ")
	for name := range strings.SplitSeq(list, ",") {
		if !l.file(at, "initrd", name) {
			return // PXELINUX stops there too
		}
	}
}

// file returns whether the file is there, as far as can be told.
func (l *linter) file(at Position, what, name string) bool {
	if len(name) > maxName {
		l.add(at.File, at.Line, at.Col, "long-name", "the %s's name is cut off after %d bytes", what, maxName)
		return false
	}
	p, ok := treeName(l.prefix, name)
	if l.fsys == nil || !ok || !l.isMissing(p) {
		return true
	}
	l.add(at.File, at.Line, at.Col, "no-such-file", "%s %s is not there", what, cutShort(p))
	return false
}

func cutShort(s string) string {
	if len(s) > 60 {
		return s[:60] + "..."
	}
	return s
}
