package pxecfg

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
	"time"
)

// Load reads the file as PXELINUX does, included files too, which it opens in
// fsys, the TFTP root. prefix is what PXELINUX puts before every name: see
// [Prefix]. fsys may be nil; no included file then exists.
//
// The time that it takes grows with the text only. A missing file is passed
// over, as PXELINUX does; the only error is a [*SyntaxError] for files that
// include each other more than 16 deep, or more than 4 MiB in all, where each
// file counts for 4 KiB more than it has.
func (f *File) Load(fsys fs.FS, prefix string) (*PXELINUX, error) {
	p, _, err := f.load(fsys, prefix)
	return p, err
}

// load also returns the files that are included, each once, also with an error.
func (f *File) load(fsys fs.FS, prefix string) (*PXELINUX, []*File, error) {
	hidden := &Menu{Tag: ".hidden", hotkeys: map[byte]bool{}}
	top := &Menu{Tag: ".top", hotkeys: map[byte]bool{}}
	l := &loader{
		fsys: fsys, prefix: prefix, current: top,
		// A menu that comes later hides an earlier one with the same tag.
		menus: map[string]*Menu{".hidden": hidden, ".top": top},
		out:   &PXELINUX{Top: top, Hidden: hidden, Start: top, AllowOptions: true, Implicit: true},
	}
	l.names = map[string]bool{f.Name: true}
	if err := l.file(f); err != nil {
		return nil, l.files, err
	}
	l.record(l.current)
	l.resolve()
	l.out.sysAppend = l.sysAppend
	return l.out, l.files, nil
}

// loader is the state of one reading. What PXELINUX keeps for an entry it
// keeps beyond the end of a file too: including is pasting.
type loader struct {
	fsys   fs.FS
	prefix string
	files  []*File // included, each once
	names  map[string]bool
	out    *PXELINUX
	menus  map[string]*Menu

	current   *Menu // of which MENU BEGIN makes a submenu
	entry     draft
	append    string
	sysAppend uint32
	depth     int
	size      int

	hasDefault bool // DEFAULT may have no operand
}

// draft is an entry that is not finished.
type draft struct {
	MenuEntry
	open                      bool // a LABEL has begun it
	menuLabel                 *string
	append                    *string
	hide, isDefault, disabled bool
	separator                 bool
	indent                    int
	exit                      *Menu
	help                      []string
}

// file reads one file. The menu to which entries go is remembered per file:
// when an included one leaves a submenu open, the file after it goes on in its
// own menu.
func (l *loader) file(f *File) error {
	l.depth++
	defer func() { l.depth-- }()
	m := l.current
	for i := 0; i < len(f.lines); i++ {
		line := &f.lines[i]
		if l.size += len(line.raw); l.size > maxConfig {
			return &SyntaxError{f.Name, line.Number, line.Col, "more than 4 MiB with all that is included"}
		}
		if l.out.unmodelled.Line == 0 && line.unmodelled() {
			l.out.unmodelled = Position{f.Name, line.Number, line.Col}
		}
		switch kw := line.Keyword; {
		case kw == "":
		case kw == "text help":
			i += l.help(f.lines[i+1:])
		case kw == "include" || kw == "menu include":
			name, tag := firstWord(line.Value)
			if tag = skipSpace(tag); kw == "include" {
				tag = ""
			}
			if err := l.include(Include{Pos: Position{f.Name, line.Number, line.valueCol()}, Name: name}, m, tag); err != nil {
				return err
			}
		case strings.HasPrefix(kw, "menu "):
			m = l.menu(m, kw[len("menu "):], line, f.Name)
		case kernelTypes[kw]:
			if l.entry.open {
				l.entry.Type, l.entry.Kernel = kw, line.Value
			}
		default:
			l.global(m, kw, line, f.Name)
		}
	}
	return nil
}

// noConfig are directives that work beyond the menu, or in U-Boot, and that a
// Config has no place for.
var noConfig = wordSet(`console serial kbdmap nohalt pxeretry sendcookies path
	fdt devicetree fdtdir devicetreedir fdtoverlays devicetree-overlay kaslrseed fallback`)

func (l *Line) unmodelled() bool {
	if l.Keyword == "" {
		word, _ := firstWord(l.text())
		return noConfig[fold(word)]
	}
	return noConfig[l.Keyword]
}

// global does what is not a menu's.
func (l *loader) global(m *Menu, kw string, line *Line, file string) {
	out, e, v := l.out, &l.entry, line.Value
	switch kw {
	case "label":
		l.record(m)
		name, _ := firstWord(v)
		*e = draft{open: true, MenuEntry: MenuEntry{
			Label: name, labelled: true, Type: "kernel", Kernel: name, SysAppend: l.sysAppend,
			Pos: Position{file, line.Number, line.Col},
		}}
	case "append":
		if e.open {
			e.append = &v
		} else {
			l.append = v
		}
	case "initrd":
		if e.open {
			e.Initrd, e.initrdSet = v, true
		}
	case "sysappend":
		n, _, _ := parseNumber(v, 0)
		if e.open {
			e.SysAppend = uint32(n)
		} else {
			l.sysAppend = uint32(n)
		}
	case "default":
		l.hasDefault = true
		if out.Default = v; !out.UI {
			out.Command = v
		}
	case "ui":
		out.UI, out.Command = true, v
	case "ontimeout":
		out.OnTimeout = v
	case "onerror":
		m.OnError, out.OnError = v, v
	case "timeout":
		out.Timeout = time.Duration(max(atoi(v), 0)) * (time.Second / 10)
	case "totaltimeout":
		n, _, _ := parseNumber(v, 10)
		const most = math.MaxInt64 / (time.Second / 10)
		out.TotalTimeout = max(min(time.Duration(n), most), 0) * (time.Second / 10)
	case "prompt":
		out.Prompt = int(int16(atoi(v)))
	case "allowoptions":
		out.AllowOptions = atoi(v) != 0
	case "implicit":
		out.Implicit = int16(atoi(v)) != 0
	case "noescape":
		out.NoEscape = int16(atoi(v)) != 0
	case "nocomplete":
		out.NoComplete = int16(atoi(v)) != 0
	}
}

// menu does what MENU says and returns the menu to go on in.
func (l *loader) menu(m *Menu, kw string, line *Line, file string) *Menu {
	e, v := &l.entry, line.Value
	switch kw {
	case "label":
		if e.open {
			e.menuLabel = &v
		} else if m.entry != nil {
			m.entry.Display, m.tagShown = v, false
			m.Parent.hotkey(m.entry)
			if m.Title == "" {
				m.Title = strings.ReplaceAll(v, "^", "")
			}
		}
	case "title":
		m.Title = v
		if m.tagShown {
			m.entry.Display, m.tagShown = v, false
		}
	case "default":
		if e.open {
			e.isDefault = true
		} else if m.entry != nil {
			m.Parent.Default = m.entry.index
		}
	case "hide":
		e.hide = true
	case "passwd":
		if e.open {
			e.Password = v
		} else if m.entry != nil {
			m.entry.Password = v
		}
	case "master":
		if wordIs(v, "passwd") {
			m.MasterPassword = skipSpace(v[len("passwd"):])
		}
	case "onerror":
		m.OnError, l.out.OnError = v, v
	case "hidden":
		l.out.HiddenMenu = true
	case "separator":
		l.record(m)
		e.open, e.labelled, e.separator = true, true, true
		e.Pos = Position{file, line.Number, line.Col}
		l.record(m)
	case "disable":
		e.disabled = true
	case "indent":
		e.indent = atoi(v)
	case "begin":
		l.record(m)
		return l.begin(v, Position{file, line.Number, line.Col})
	case "end":
		l.record(m)
		return l.end()
	case "quit":
		if e.open {
			e.Action = ActionQuit
		}
	case "goto":
		if e.open {
			e.Action, e.Kernel = ActionGoto, v
		}
	case "exit":
		if e.open && m.Parent != nil {
			e.Action = ActionExit
			if e.exit = m.Parent; v != "" {
				e.exit, e.Kernel = nil, v
			}
		}
	case "start":
		l.out.Start = m
	}
	return m
}

// help reads the inside of TEXT HELP and returns how many lines it has.
func (l *loader) help(lines []Line) int {
	n := 0
	for n < len(lines) && lines[n].Keyword != "endtext" {
		l.size += len(lines[n].raw)
		l.entry.help = append(l.entry.help, untilNUL(lines[n].raw))
		n++
	}
	return n
}

// include reads another file in place. With a tag it becomes a submenu of its
// own.
func (l *loader) include(inc Include, m *Menu, tag string) error {
	f, err := l.open(inc.Name)
	var syntax *SyntaxError
	switch {
	case errors.As(err, &syntax):
		return err
	case err != nil:
		inc.Err = err
		l.out.Missing = append(l.out.Missing, inc)
		return nil
	}
	if l.depth == maxInclude {
		return &SyntaxError{inc.Pos.File, inc.Pos.Line, inc.Pos.Col,
			fmt.Sprintf("INCLUDE %s is more than %d deep: files include each other", inc.Name, maxInclude)}
	}
	if !l.names[f.Name] {
		l.names[f.Name] = true
		l.files = append(l.files, f)
	}
	// A file costs something even when it is empty: there are at most 1024.
	l.size += 4096
	if tag != "" {
		l.record(m)
		m = l.begin(tag, inc.Pos)
	}
	if err := l.file(f); err != nil || tag == "" {
		return err
	}
	l.record(m)
	l.end()
	return nil
}

func (l *loader) open(name string) (*File, error) {
	p, ok := treeName(l.prefix, name)
	if !ok || l.fsys == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	r, err := l.fsys.Open(p)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, int64(maxConfig-min(l.size, maxConfig))+1))
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist} // as PXELINUX has it
	}
	f := &File{Name: p}
	f.parse(string(data))
	return f, nil
}

// begin opens a submenu.
func (l *loader) begin(tag string, pos Position) *Menu {
	parent := l.current
	e := &MenuEntry{Display: tag, Action: ActionSubmenu, Menu: parent, Pos: pos}
	m := &Menu{
		Tag: tag, Parent: parent, OnError: parent.OnError, MasterPassword: parent.MasterPassword,
		entry: e, tagShown: true, hotkeys: map[byte]bool{},
	}
	e.Target = m
	l.add(parent, e)
	if tag != "" {
		l.menus[tag] = m
	}
	l.current = m
	return m
}

func (l *loader) end() *Menu {
	if l.current.Parent != nil {
		l.current = l.current.Parent
	}
	return l.current
}

func (l *loader) add(m *Menu, e *MenuEntry) {
	e.Menu, e.index = m, len(m.Entries)
	m.Entries = append(m.Entries, e)
	l.out.entries = append(l.out.entries, e)
}

// record finishes the open entry.
func (l *loader) record(m *Menu) {
	d := &l.entry
	if !d.open {
		return
	}
	if d.hide {
		m = l.out.Hidden
	}
	e := d.MenuEntry
	if e.Action == "" {
		e.Action = ActionCommand
	}
	e.Display = e.Label
	if d.menuLabel != nil {
		e.Display = *d.menuLabel
	}
	if d.indent != 0 {
		// A width without bound would be a way to fill the memory.
		e.Display = strings.Repeat(" ", min(max(d.indent, -d.indent), 255)) + e.Display
	}
	if d.separator {
		e.Display = ""
	}
	if d.separator || d.disabled {
		e.Action, e.Label, e.labelled, e.Password = ActionDisabled, "", false, ""
	}
	e.Help = strings.Join(d.help, "")
	l.add(m, &e)
	if d.menuLabel != nil {
		m.hotkey(&e)
	}
	switch e.Action {
	case ActionCommand:
		if e.Append = l.append; d.append != nil {
			e.Append = *d.append
		}
		if e.Append == "-" {
			e.Append = ""
		}
		if d.isDefault {
			m.Default = len(m.Entries) - 1
		}
	case ActionGoto, ActionExit:
		if e.Target = d.exit; e.Target == nil {
			e.target = e.Kernel
		}
	}
	if e.Action != ActionCommand {
		e.Type, e.Kernel, e.Initrd, e.initrdSet, e.SysAppend = "", "", "", false, 0
	}
	l.entry = draft{}
}

// hotkey gives the entry the key after ^ unless another one has it.
func (m *Menu) hotkey(e *MenuEntry) {
	_, after, ok := strings.Cut(e.Display, "^")
	if !ok || after == "" || e.Action == ActionDisabled {
		return
	}
	if key := after[0] &^ 0x20; !m.hotkeys[key] {
		m.hotkeys[key], e.Hotkey = true, key
	}
}

// resolve does what needs all labels and menus.
func (l *loader) resolve() {
	for _, e := range l.out.entries {
		if e.target == "" && (e.Target != nil || e.Action != ActionGoto && e.Action != ActionExit) {
			continue
		}
		if e.Target = l.menus[e.target]; e.Target == nil {
			e.Action = ActionDisabled
		}
	}
	if !l.hasDefault {
		return
	}
	if e := l.out.Lookup(l.out.Default); e != nil && e.Menu != l.out.Hidden {
		e.Menu.Default = e.index
		l.out.Start = e.Menu
	}
}

// treeName returns where in the tree PXELINUX looks for a name. ok is false for
// names on other servers.
func treeName(prefix, name string) (p string, ok bool) {
	name, ok = strings.CutPrefix(RequestName(prefix, name), "::")
	if !ok {
		return "", false
	}
	p = path.Clean("/" + name)[1:]
	return p, p != ""
}
