package pxecfg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
)

// Existing is a [Source] of what is there already: a TFTP root with files in
// pxelinux.cfg/ that people, or another program, keep. PXELINUX and U-Boot get
// the files as they are, byte for byte; iPXE and GRUB get their entries as far
// as these can be expressed (see [PXELINUX.Config]), with the same default and
// timeout but without TOTALTIMEOUT. [Lint] finds what they do without.
//
// For each machine the first of [Client.Names] counts that exists and is not
// empty, as for PXELINUX itself. The file "default" is a [Config.Fallback].
// Files are read when they are asked for, so changes hold at once.
//
// Included files are not part of the answer: the Tree's Files must hold them,
// which they do if Files is FS. The methods may be called concurrently.
type Existing struct {
	// FS is the TFTP root.
	FS fs.FS
	// Prefix is what PXELINUX puts before every name: see [Prefix]. The files
	// are in its pxelinux.cfg directory. A loader that was started elsewhere
	// gets the file rewritten, since its names would mean others there.
	Prefix string
	// Logger gets, at Debug, each entry that iPXE and GRUB have to do
	// without, and a TOTALTIMEOUT. nil means slog.Default().
	Logger *slog.Logger
}

// Config implements [Source]. A file that no other loader can express is not an
// error here, but when it is rendered for one.
func (x *Existing) Config(_ context.Context, c Client) (*Config, error) {
	if x.FS == nil {
		return nil, fs.ErrNotExist
	}
	names := c.Names()
	for i, name := range names {
		p, ok := treeName(x.Prefix, name)
		if !ok {
			continue
		}
		f, err := openFile(x.FS, p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		}
		return x.config(f, c.Loader, i == len(names)-1), nil
	}
	return nil, fs.ErrNotExist
}

func (x *Existing) config(f *File, loader Loader, fallback bool) *Config {
	var left []error
	cfg := new(Config)
	p, err := f.Load(x.FS, x.Prefix)
	if err == nil {
		if cfg, left = p.Config(x.Prefix); cfg == nil {
			cfg, err = new(Config), fmt.Errorf("%s: %w", f.Name, someOf(left))
		}
	}
	if (loader == LoaderGRUB || loader == LoaderIPXE) && cfg.TotalTimeout > 0 {
		// A menu that one key stops for ever is better than no boot at all.
		left = append(left, &RenderError{Format: string(loader), Field: "total timeout", Value: cfg.TotalTimeout.String(), Reason: "it has only one that a key stops"})
		cfg.TotalTimeout = 0
	}
	cfg.Fallback = fallback
	cfg.verbatim = &verbatim{text: f.String(), prefix: treePath(x.Prefix), err: err, lost: p.lost(left)}
	log := x.Logger
	if log == nil {
		log = slog.Default()
	}
	for _, err := range left {
		log.Debug("only for PXELINUX", "file", f.Name, "err", err)
	}
	return cfg
}

// openFile reads a configuration. One of no bytes counts as missing, as for
// PXELINUX, and so does a directory.
func openFile(fsys fs.FS, name string) (*File, error) {
	r, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() || info.Mode().IsRegular() && info.Size() == 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, err := ParseFile(name, r)
	if err == nil && len(f.lines) == 0 {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return f, err
}

// verbatim is a Config's own file for PXELINUX.
type verbatim struct {
	text   string
	prefix string // where its names are right
	err    error  // why there is nothing for other loaders
	lost   error  // what PXELINUX would lose with another file
}

// someOf joins the first errors of what may be a long list, and the last one,
// which is why nothing is left.
func someOf(errs []error) error {
	const most = 3
	if n := len(errs) - most; n > 1 {
		last := errs[len(errs)-1]
		errs = append(errs[:most:most], fmt.Errorf("and %d more", n-1), last)
	}
	return errors.Join(errs...)
}

// lost returns an error for the first thing that PXELINUX does with a file and
// not with what is made of its entries; left are those that are left out.
func (p *PXELINUX) lost(left []error) error {
	if p == nil || len(left) > 0 {
		return someOf(left)
	}
	for _, e := range p.entries {
		if e.Password != "" { // of an entry that nothing leads to
			return fmt.Errorf("%s:%d: a password would no longer be asked for: %w", e.Pos.File, e.Pos.Line, fs.ErrInvalid)
		}
	}
	for _, set := range []struct {
		what string
		is   bool
	}{
		{"ALLOWOPTIONS 0", !p.AllowOptions}, {"IMPLICIT 0", !p.Implicit}, {"NOESCAPE 1", p.NoEscape}, {"NOCOMPLETE 1", p.NoComplete},
		{"MENU HIDDEN", p.HiddenMenu},
	} {
		if set.is {
			return fmt.Errorf("%s would be lost: %w", set.what, fs.ErrInvalid)
		}
	}
	if at := p.unmodelled; at.Line > 0 {
		return fmt.Errorf("%s:%d: this line would be lost: %w", at.File, at.Line, fs.ErrInvalid)
	}
	return nil
}

// menuProgram returns the program that shows this file's menu: UI's or, as was
// done before there was UI, DEFAULT's, which may be a hidden label. One with
// arguments shows another file's.
func (p *PXELINUX) menuProgram() (file string, ok bool) {
	if p.UI {
		return p.Command, true
	}
	var rest string
	switch e := p.Lookup(p.Command); {
	case p.Prompt != 0:
		return "", false
	case e == nil:
		file, rest = firstWord(p.Resolve(p.Command, SysStrings{}))
	case e.Menu == p.Hidden && (e.Type == "kernel" || e.Type == "com32") && e.Append == "":
		file, rest = firstWord(e.Kernel)
	}
	name := fold(file[strings.LastIndexAny(file, "/:")+1:])
	return file, (name == "menu.c32" || name == "vesamenu.c32") && skipSpace(rest) == ""
}

// masterPassword returns a menu that has one.
func (p *PXELINUX) masterPassword() *Menu {
	if p.Top.MasterPassword != "" {
		return p.Top
	}
	for _, e := range p.entries {
		if e.Menu != nil && e.Menu.MasterPassword != "" {
			return e.Menu
		}
	}
	return nil
}

// write writes the file if its names mean the same to the loader at t.
func (v *verbatim) write(w io.Writer, t Target) (done bool, err error) {
	if v == nil || t.Prefix != v.prefix {
		return false, nil
	}
	_, err = io.WriteString(w, v.text)
	return true, err
}

// Config returns what a machine is offered, for loaders that do not read
// PXELINUX's files: commands become files in the tree, and of the entries with
// MENU HIDE those are kept that something leads to. What only changes the look
// of a menu is passed over: colours, pictures, messages, its layout, MENU EXIT
// to the menu above, and texts and hot keys that not every loader can have.
//
// A DEFAULT that shows this file's menu (menu.c32, vesamenu.c32, or a hidden
// label that is one of them) is taken for a UI.
//
// prefix is what PXELINUX puts before names. left has a [*RenderError] for each
// entry that only PXELINUX can have, which is left out: its own modules, disk
// images, another configuration file, MENU GOTO and QUIT, and all that asks for
// a password, with the entries of a menu that does. The Config is nil if the
// entry that boots by default is one of them, if nothing remains, or if the
// menu has a master password, since other loaders let anybody change an entry.
// A TOTALTIMEOUT is taken over, which GRUB and iPXE refuse to be given.
func (p *PXELINUX) Config(prefix string) (cfg *Config, left []error) {
	cv := converter{prefix: prefix, labels: make(map[string]bool), count: make(map[string]int), of: make(map[*MenuEntry]string)}
	cfg = &Config{Timeout: p.Timeout}
	if m := p.masterPassword(); m != nil {
		return nil, []error{&RenderError{Format: "another loader than PXELINUX", Field: "master password of menu", Value: m.Tag, Reason: "anybody could change its entries"}}
	}
	program, ui := p.menuProgram()
	prompt := ui || p.Prompt != 0
	waits := prompt && p.Timeout > 0 && p.OnTimeout != ""
	menu := prompt || p.Command == ""
	if menu {
		cfg.Title = cleanText(p.Top.Title)
		if ui {
			if file, err := cv.path(program); err == nil {
				cfg.UI = file
			}
		}
		if p.Timeout <= 0 || p.Command == "" && !waits {
			cfg.Timeout = -1
		}
		cfg.TotalTimeout = p.TotalTimeout
		cfg.Entries = cv.menu(p.Top, 0)
	}
	var err error
	// What is not in a menu comes before it.
	switch {
	case ui:
		if m := p.Start; m.Default < len(m.Entries) && m.Entries[m.Default].Action == ActionCommand {
			cfg.Default = cv.of[m.Entries[m.Default]]
			if cfg.Default == "" && !waits {
				_, err = cv.entry(m.Entries[m.Default], "") // says why
			}
		}
	case p.Command != "":
		cfg.Default, err = cv.command(cfg, p, p.Command, false)
	}
	if waits {
		var label string
		label, err = cv.command(cfg, p, p.OnTimeout, cfg.Default != "")
		if cfg.Default == "" {
			cfg.Default = label
		} else if label != cfg.Default {
			cfg.OnTimeout = label
		}
	}
	if err != nil {
		return nil, append(cv.left, err)
	}
	if cfg.OnError, err = cv.command(cfg, p, p.OnError, true); err != nil {
		cv.left = append(cv.left, err)
	}
	if len(cfg.Entries) == 0 {
		return nil, append(cv.left, fmt.Errorf("there is no entry to boot: %w", fs.ErrInvalid))
	}
	if !menu {
		cfg.Timeout = 0
	}
	if err := cfg.Validate(); err != nil {
		return nil, append(cv.left, err)
	}
	return cfg, cv.left
}

// command returns the label of what a command boots, which becomes an entry if
// it is none yet, or another thing than the menu's entry. hidden ones come last.
func (cv *converter) command(cfg *Config, p *PXELINUX, command string, hidden bool) (string, error) {
	if command == "" {
		return "", nil
	}
	_, extra := cutWord(command)
	e := p.Lookup(command)
	if e == nil {
		file := p.Resolve(command, SysStrings{})
		if file == "" {
			return "", fmt.Errorf("%q is no label, and IMPLICIT 0 lets nothing else boot: %w", cutShort(command), fs.ErrInvalid)
		}
		e, extra = &MenuEntry{Action: ActionCommand, Label: strings.TrimLeft(command, "-"), Type: "kernel", Kernel: file, SysAppend: p.sysAppend}, ""
	}
	if label, ok := cv.of[e]; ok && extra == "" {
		return label, nil
	}
	out, err := cv.entry(e, extra)
	if err != nil {
		return "", err
	}
	if extra == "" {
		cv.of[e] = out.Label
	}
	if hidden {
		out.Hidden, out.Hotkey = true, 0
		cfg.Entries = append(cfg.Entries, out)
	} else {
		out.Hotkey = 0
		cfg.Entries = append([]Entry{out}, cfg.Entries...)
	}
	return out.Label, nil
}
