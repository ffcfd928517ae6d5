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
// as these can be expressed, with the same default and timeout.
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
	// without. nil means slog.Default().
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
		return x.config(f, i == len(names)-1), nil
	}
	return nil, fs.ErrNotExist
}

func (x *Existing) config(f *File, fallback bool) *Config {
	var left []error
	cfg := new(Config)
	p, err := f.Load(x.FS, x.Prefix)
	if err == nil {
		if cfg, left = p.Config(x.Prefix); cfg == nil {
			cfg, err = new(Config), fmt.Errorf("%s: %w", f.Name, errors.Join(left...))
		}
	}
	cfg.Fallback = fallback
	cfg.verbatim = &verbatim{text: f.String(), prefix: treePath(x.Prefix), err: err}
	log := x.Logger
	if log == nil {
		log = slog.Default()
	}
	for _, err := range left {
		log.Debug("entry only for PXELINUX", "file", f.Name, "err", err)
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
// PXELINUX's files: menus become one list, and commands files in the tree.
// prefix is what PXELINUX puts before names.
//
// left has a [*RenderError] for each entry that only PXELINUX can boot (its own
// modules, disk images, another configuration file), which is left out; the
// Config is nil if the entry that boots by default is one of them, or nothing
// remains.
func (p *PXELINUX) Config(prefix string) (cfg *Config, left []error) {
	cv := converter{prefix: prefix, labels: make(map[string]bool), count: make(map[string]int), of: make(map[*MenuEntry]string)}
	cfg = &Config{Timeout: p.Timeout}
	first, extra := p.first()
	menu := p.UI || p.Prompt != 0 || p.Command == ""
	if menu {
		cfg.Title = cleanText(p.Top.Title)
		if p.UI {
			if ui, err := cv.path(p.Command); err == nil {
				cfg.UI = ui
			}
		}
		if p.Timeout <= 0 || p.Command == "" {
			cfg.Timeout = -1
		}
		cv.menu(p.Top, 0)
	}
	label, known := cv.of[first]
	if first != nil && (!known || extra != "") {
		// Not in a menu, or another thing than the menu's entry.
		e, err := cv.entry(first, extra)
		if err != nil {
			return nil, append(cv.left, err)
		}
		cv.entries, label = append([]Entry{e}, cv.entries...), e.Label
	}
	if len(cv.entries) == 0 {
		return nil, append(cv.left, fmt.Errorf("there is no entry to boot: %w", fs.ErrInvalid))
	}
	cfg.Entries, cfg.Default = cv.entries, label
	if !menu {
		cfg.Timeout = 0
	}
	if err := cfg.Validate(); err != nil {
		return nil, append(cv.left, err)
	}
	return cfg, cv.left
}

// first returns the entry that boots when nobody does anything, and arguments
// that are added to it. A command that is no label becomes an entry.
func (p *PXELINUX) first() (e *MenuEntry, extra string) {
	command := p.Command
	switch {
	case (p.UI || p.Prompt != 0) && p.Timeout > 0 && p.OnTimeout != "":
		command = p.OnTimeout
	case p.UI:
		m := p.Start
		if m.Default < len(m.Entries) && m.Entries[m.Default].Action == ActionCommand {
			return m.Entries[m.Default], ""
		}
		return nil, ""
	case command == "":
		return nil, ""
	}
	_, extra = firstWord(command)
	if e = p.Lookup(command); e != nil {
		return e, skipSpace(extra)
	}
	return &MenuEntry{Action: ActionCommand, Label: strings.TrimLeft(command, "-"), Type: "kernel", Kernel: command}, ""
}
