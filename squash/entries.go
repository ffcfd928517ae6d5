package squash

import (
	"context"
	"io"
	"io/fs"
	"iter"
	"path"
	"syscall"
)

// Entries iterates over the image, so that an *FS is a [Source] and names that
// are not UTF-8, which [fs.FS] cannot open, are reached. Each directory comes
// before what it holds, its files before the directories in it, sorted by
// bytes.
//
// The entries of a file with several names have equal Dev and Ino. What Open
// returns has the methods of a file that [FS.Open] returns.
func (f *FS) Entries(ctx context.Context) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		e, err := f.entry(".", f.root)
		if !yield(e, err) || err != nil {
			return
		}
		f.entries(ctx, ".", f.root, yield)
	}
}

func (f *FS) entries(ctx context.Context, name string, d *node, yield func(*Entry, error) bool) bool {
	fail := func(err error) bool { yield(nil, err); return false }
	l, err := f.listing(d)
	if err != nil {
		return fail(pathError("readdir", name, err))
	}
	type sub struct {
		name string
		n    *node
	}
	var dirs []sub
	for {
		if err := context.Cause(ctx); err != nil {
			return fail(err)
		}
		ok, err := l.next()
		if err != nil {
			return fail(pathError("readdir", name, err))
		}
		if !ok {
			break
		}
		full := path.Join(name, string(l.name))
		if len(full) > maxPath {
			return fail(pathError("readdir", full[:100]+"...", syscall.ENAMETOOLONG))
		}
		n, err := f.child(d, l.dirent())
		if err != nil {
			return fail(pathError("lstat", full, err))
		}
		e, err := f.entry(full, n)
		if err != nil {
			return fail(err)
		}
		if !yield(e, nil) {
			return false
		}
		if n.kind == kindDir {
			dirs = append(dirs, sub{full, n})
		}
	}
	for _, s := range dirs {
		if !f.entries(ctx, s.name, s.n, yield) {
			return false
		}
	}
	return true
}

func (f *FS) entry(name string, n *node) (*Entry, error) {
	fi, err := f.info("lstat", name, n)
	if err != nil {
		return nil, err
	}
	e := &Entry{Path: name, Mode: fi.Mode(), ModTime: fi.ModTime(), Target: n.target, Stat: *fi.Sys().(*Stat)}
	if n.kind == kindFile {
		e.Size = n.size
		e.Open = func() (io.ReadCloser, error) { return f.open(name, n), nil }
	}
	return e, nil
}

var _ Source = (*FS)(nil)
var _ fs.File = (*file)(nil)
