package squash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ExtractOptions says how [Extract] works. A nil *ExtractOptions and the zero
// value are the defaults: everything as it is, which takes root on Linux.
type ExtractOptions struct {
	// Partial makes do with what the caller may make, as a user who is not
	// root wants it: owners, device nodes, extended attributes that the caller
	// or the file system does not allow are left out, counted in [Extracted]
	// and logged; a file whose owner could not be set loses setuid and setgid,
	// which would be the caller's own. Without Partial each of these is an
	// error.
	Partial bool

	// MaxSize is how many bytes all regular files may have together, holes
	// counted; 0 means 1 TiB, -1 no limit. An image can claim files of any
	// size in few bytes.
	MaxSize int64

	// MaxEntries is how many names there may be; 0 means 10,000,000, -1 no
	// limit.
	MaxEntries int

	// Logger gets a warning for each kind of thing that Partial left out. nil
	// means slog.Default().
	Logger *slog.Logger
}

// Extracted is what [Extract] made, and what it left out because
// [ExtractOptions.Partial] said so.
type Extracted struct {
	// Entries is the number of names made, the directory itself included.
	Entries int
	// Bytes is the size of the regular files, holes counted, hard links once.
	Bytes int64
	// Owners counts the files that do not have their owner and group.
	Owners int
	// Modes counts the files that lost setuid or setgid with their owner.
	Modes int
	// Devices counts the device nodes and sockets that were not made.
	Devices int
	// Xattrs counts the extended attributes that were not set.
	Xattrs int
}

// Extract writes a source into the directory at a path, which is made unless
// it is there and empty: files, holes as holes, links, device nodes, owners,
// modes, extended attributes and times (in full seconds or as exact as the
// source has them). Directories get their modes and times last, so that an
// extraction that ended early leaves directories that only the caller can
// enter.
//
// Nothing outside of the directory is touched, whatever names and symbolic
// links the source has, nor if somebody changes the directory meanwhile: see
// [os.Root]. A name that comes twice, other than a directory's, is an error
// that matches [fs.ErrExist]; an image has none.
//
// Device nodes, FIFOs, sockets and extended attributes can be made on Linux
// only, where /proc must be mounted for the attributes; elsewhere they count
// as what the caller may not make.
//
// Extract ends early when ctx is done, with its cause. An error that concerns
// one file is or wraps an [*fs.PathError] with its name. What has been made is
// left there. Nothing is synced to the disk.
func Extract(ctx context.Context, dir string, src Source, opts *ExtractOptions) (Extracted, error) {
	var o ExtractOptions
	if opts != nil {
		o = *opts
	}
	if o.MaxSize == 0 {
		o.MaxSize = 1 << 40
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = 10_000_000
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return Extracted{}, fmt.Errorf("squash: %w", err)
	}
	top, err := os.OpenRoot(dir)
	if err != nil {
		return Extracted{}, fmt.Errorf("squash: %w", err)
	}
	x := &extractor{ctx: ctx, o: o, top: top, dirs: make(map[string]*Entry), links: make(map[linkKey]string), buf: make([]byte, 128<<10)}
	defer x.close()
	if err := x.run(dir, src); err != nil {
		return x.done, err
	}
	x.warn()
	return x.done, nil
}

// extractor makes files, each below the directory that holds it.
type extractor struct {
	ctx  context.Context
	o    ExtractOptions
	done Extracted
	top  *os.Root
	buf  []byte

	dirs  map[string]*Entry // made, with what they shall be
	attrs int               // bytes of their extended attributes
	order []string          // of dirs, parents first
	links map[linkKey]string

	// The directory of the last entry, which the next one mostly shares.
	path string
	at   *openDir

	first struct{ owner, mode, device, xattr string }
}

// openDir is an open directory.
type openDir struct {
	root *os.Root
	dir  *os.File
}

func (x *extractor) close() {
	x.leave()
	_ = x.top.Close()
}

func (x *extractor) leave() {
	if x.at == nil {
		return
	}
	_ = x.at.dir.Close()
	if x.at.root != x.top {
		_ = x.at.root.Close()
	}
	x.at = nil
}

// enter opens a directory that was made before.
func (x *extractor) enter(dir string) (*openDir, error) {
	if x.at != nil && x.path == dir {
		return x.at, nil
	}
	x.leave()
	root := x.top
	if dir != "." {
		var err error
		if root, err = x.top.OpenRoot(dir); err != nil {
			return nil, err
		}
	}
	f, err := root.Open(".")
	if err != nil {
		if root != x.top {
			_ = root.Close()
		}
		return nil, err
	}
	x.path, x.at = dir, &openDir{root, f}
	return x.at, nil
}

func (x *extractor) run(dir string, src Source) error {
	at, err := x.enter(".")
	if err != nil {
		return fmt.Errorf("squash: %w", err)
	}
	if names, err := at.dir.Readdirnames(1); len(names) > 0 {
		return &fs.PathError{Op: "squash", Path: dir, Err: fmt.Errorf("the directory is not empty: choose a new one: %w", fs.ErrExist)}
	} else if err != io.EOF {
		return fmt.Errorf("squash: %w", err)
	}
	x.leave() // its place in the listing is at the end
	x.dirs["."] = &Entry{Path: ".", Mode: fs.ModeDir | 0o755}
	x.order = append(x.order, ".")
	x.done.Entries = 1
	for e, err := range src.Entries(x.ctx) {
		if err == nil {
			err = context.Cause(x.ctx)
		}
		if err != nil {
			return err
		}
		if err := x.entry(e); err != nil {
			return x.fail(e.Path, err)
		}
	}
	// The innermost first: a directory may not let its owner in.
	for _, name := range slices.Backward(x.order) {
		if err := context.Cause(x.ctx); err != nil {
			return err
		}
		e := x.dirs[name]
		parent, base := split(name)
		if name == "." {
			parent, base = ".", "."
		}
		at, err := x.enter(parent)
		if err == nil {
			err = x.attributes(at, base, e, nil)
		}
		if err != nil {
			return x.fail(name, err)
		}
	}
	return nil
}

// fail names the file by its path in the source, once.
func (x *extractor) fail(name string, err error) error {
	var pe *fs.PathError
	if cause := context.Cause(x.ctx); cause != nil && errors.Is(err, cause) {
		return cause
	}
	if errors.As(err, &pe) && pe.Path == name {
		return err
	}
	return entryError(name, bare(err))
}

// bare is an error without the name that it has in its directory.
func bare(err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		return pe.Err
	}
	return err
}

// dir makes a directory and what is missing above it.
func (x *extractor) dir(name string) error {
	if x.dirs[name] != nil {
		return nil
	}
	parent, base := split(name)
	if err := x.name(parent, base); err != nil {
		return err
	}
	at, err := x.enter(parent)
	if err != nil {
		return err
	}
	if err := at.root.Mkdir(base, 0o700); err != nil {
		return err
	}
	x.dirs[name] = &Entry{Path: name, Mode: fs.ModeDir | 0o755}
	x.order = append(x.order, name)
	return nil
}

// name checks and counts a new name, and makes the directory it stands in.
func (x *extractor) name(parent, base string) error {
	if err := checkName(base); err != nil {
		return err
	}
	if !filepath.IsLocal(base) || filepath.Separator != '/' && strings.ContainsAny(base, `\:`) {
		return fmt.Errorf("this system cannot have a file of the name %q: %w", base, fs.ErrInvalid)
	}
	if x.done.Entries++; x.o.MaxEntries >= 0 && x.done.Entries > x.o.MaxEntries {
		return fmt.Errorf("there are more names than ExtractOptions.MaxEntries allows (%d)", x.o.MaxEntries)
	}
	return x.dir(parent)
}

func (x *extractor) entry(e *Entry) error {
	if len(e.Path) > maxPath {
		return syscall.ENAMETOOLONG
	}
	kind := kindOf(e.Mode)
	if kind == kindDir {
		if e.Path != "." {
			if err := x.dir(e.Path); err != nil {
				return err
			}
		}
		for name, value := range e.Xattrs { // they wait in memory until the end
			x.attrs += len(name) + len(value)
		}
		if x.attrs > maxXattrTable {
			return fmt.Errorf("the directories have more than %d MiB of extended attributes: %w", maxXattrTable>>20, syscall.E2BIG)
		}
		x.dirs[e.Path] = e
		return nil
	}
	parent, base := split(e.Path)
	if err := x.name(parent, base); err != nil {
		return err
	}
	key := linkKey{e.Dev, e.Ino, kind}
	if e.Nlink > 1 {
		switch first, again := x.links[key]; {
		case again && first == "": // was left out
			x.done.Entries--
			x.done.Devices++
			return nil
		case again:
			return x.top.Link(first, e.Path)
		}
	}
	at, err := x.enter(parent)
	if err != nil {
		return err
	}
	made, err := x.make(at, base, kind, e)
	if e.Nlink > 1 && err == nil {
		x.links[key] = ""
		if made {
			x.links[key] = e.Path
		}
	}
	return err
}
