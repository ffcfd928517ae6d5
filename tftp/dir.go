package tftp

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strings"
	"syscall"
)

// DirFS is a directory tree as an [fs.FS] from which nothing outside can be
// reached, symbolic links included, whatever the names and whatever changes
// meanwhile: it is built on [os.Root]. Only regular files and directories can
// be opened, so a FIFO or a device blocks nobody.
//
// What an operator would look for is named in the log as a Warn: a link that
// leads out (with its target), a file that may not be read, a special file. A
// file that is just missing is not. The errors are fs.ErrPermission for all of
// these, and fs.ErrNotExist.
//
// It may be used concurrently. As os.Root does, it refuses an absolute link
// also when the target lies in the tree.
type DirFS struct {
	root *os.Root
	log  *slog.Logger
}

// Dir opens the directory called name. A nil logger is slog.Default(). Close
// the DirFS when it is no longer used.
func Dir(name string, logger *slog.Logger) (*DirFS, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("tftp: directory to serve: %w", err)
	}
	if logger == nil {
		logger = slog.Default()
	}
	return &DirFS{root, logger}, nil
}

// Close releases the directory. Files opened before stay usable.
func (d *DirFS) Close() error { return d.root.Close() }

// Open opens a regular file or a directory. The file of a regular one is an
// [*os.File].
func (d *DirFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	// Look first: opening a device can already do something to it.
	info, err := d.root.Stat(name)
	if err == nil {
		err = d.servable(name, info)
	}
	if err != nil {
		return nil, d.refuse(name, err)
	}
	f, err := d.root.OpenFile(name, os.O_RDONLY|openNonblock, 0)
	if err != nil {
		return nil, d.refuse(name, err)
	}
	// And again: a FIFO may have taken the name since.
	if info, err = f.Stat(); err == nil {
		err = d.servable(name, info)
	}
	if err != nil {
		f.Close()
		return nil, d.refuse(name, err)
	}
	return f, nil
}

// ReadLink and Lstat make DirFS an [fs.ReadLinkFS]: they look at links without
// following the last one, and refuse nothing that lies in the tree.
func (d *DirFS) ReadLink(name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return d.root.Readlink(name)
}

// Lstat describes a file or a link.
func (d *DirFS) Lstat(name string) (fs.FileInfo, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrInvalid}
	}
	return d.root.Lstat(name)
}

var errSpecial = fmt.Errorf("not a regular file: %w", fs.ErrPermission)

func (d *DirFS) servable(name string, info fs.FileInfo) error {
	if info.Mode().IsRegular() || info.IsDir() {
		return nil
	}
	return &fs.PathError{Op: "open", Path: name, Err: errSpecial}
}

// refuse logs an error that the operator should see, and makes it one of those
// that DirFS promises.
func (d *DirFS) refuse(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrClosed):
		return err
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EINVAL):
		return &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if link, target, ok := d.leadsOut(name); ok {
		d.log.Warn("tftp: refused a symbolic link that leads out of the tree; make it relative and within, or serve its target's directory as well",
			"dir", d.root.Name(), "name", name, "link", link, "target", target)
		return logged{&fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}}
	}
	d.log.Warn("tftp: cannot serve a file; see its permissions and its kind", "dir", d.root.Name(), "name", name, "error", err)
	return logged{err}
}

// leadsOut finds the link on the way to name that leaves the tree. It explains
// a refusal; the refusal itself is os.Root's.
func (d *DirFS) leadsOut(name string) (link, target string, ok bool) {
	at, todo := ".", strings.Split(name, "/")
	for hops := 0; len(todo) > 0 && hops < 1000; hops++ {
		elem := todo[0]
		todo = todo[1:]
		switch elem {
		case "", ".":
			continue
		case "..":
			if at == "." {
				return link, target, true
			}
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, elem)
		t, err := d.root.Readlink(next)
		if err != nil { // no link
			at = next
			continue
		}
		link, target = next, t
		if path.IsAbs(t) {
			return link, target, true
		}
		todo = append(strings.Split(t, "/"), todo...)
	}
	return "", "", false
}
