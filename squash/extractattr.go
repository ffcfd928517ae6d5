package squash

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"
)

// attributes sets what a file has besides its content. The owner is first, for
// changing it takes setuid and capabilities away. f is the file if it is open.
func (x *extractor) attributes(at *openDir, base string, e *Entry, f *os.File) error {
	mode := e.Mode
	err := error(syscall.EINVAL)
	if e.Uid != none32 && e.Gid != none32 { // which would leave the caller's, with setuid perhaps
		err = at.root.Lchown(base, int(e.Uid), int(e.Gid))
	}
	if err != nil {
		if !x.skip(err) {
			return x.needs(fmt.Errorf("owner %d:%d: %w", e.Uid, e.Gid, bare(err)))
		}
		x.count(&x.done.Owners, &x.first.owner, e.Path)
		if mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 && !mode.IsDir() {
			mode &^= fs.ModeSetuid | fs.ModeSetgid
			x.count(&x.done.Modes, &x.first.mode, e.Path)
		}
	}
	for name, value := range e.Xattrs {
		if err := sysSetXattr(at.dir, base, name, value); err != nil {
			if !x.skip(err) {
				return x.needs(fmt.Errorf("extended attribute %s: %w", name, err))
			}
			x.count(&x.done.Xattrs, &x.first.xattr, e.Path)
		}
	}
	mode &= fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	err = nil
	switch {
	case e.Mode&fs.ModeSymlink != 0: // has no mode
	case f != nil:
		err = f.Chmod(mode)
	default:
		err = at.root.Chmod(base, mode)
	}
	if err != nil {
		return err
	}
	when := e.ModTime
	if when.IsZero() {
		when = time.Unix(0, 0)
	}
	return sysChtimes(at, base, e.Mode, when)
}

// skip says whether an error is one that Partial passes over.
func (x *extractor) skip(err error) bool { return x.o.Partial && forbidden(err) }

// forbidden tells what another caller, or another file system, could do. An
// owner that a user namespace does not know is EINVAL.
func forbidden(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL)
}

func (x *extractor) needs(err error) error {
	if err != nil && forbidden(err) {
		return fmt.Errorf("%w: extract as root to a file system that can hold it, or set ExtractOptions.Partial", err)
	}
	return err
}

func (x *extractor) count(n *int, first *string, name string) {
	if *n++; *n == 1 {
		*first = name
	}
}

// warn tells an operator once of each kind of thing that was left out.
func (x *extractor) warn() {
	for _, w := range []struct {
		n     int
		first string
		what  string
	}{
		{x.done.Owners, x.first.owner, "files belong to the caller, not to their owners"},
		{x.done.Modes, x.first.mode, "files lost setuid or setgid with their owners"},
		{x.done.Devices, x.first.device, "device nodes or sockets were not made"},
		{x.done.Xattrs, x.first.xattr, "extended attributes were not set"},
	} {
		if w.n > 0 {
			x.o.Logger.Warn("squash: "+w.what+"; extract as root to have them", "count", w.n, "first", path.Clean(w.first))
		}
	}
}
