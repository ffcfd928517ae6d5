package squash

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"path"
)

// walker is what the sources that list directories have in common.
type walker interface {
	stat() (fs.FileInfo, error)                             // of the root
	list(dir string, fi fs.FileInfo) ([]fs.DirEntry, error) // its error names the path
	same(dir string, fi fs.FileInfo) error                  // it is still the one that was listed
	entry(name string, fi fs.FileInfo) (*Entry, error)
}

// walk yields the root and all that is below it.
func walk(ctx context.Context, w walker) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		fi, err := w.stat()
		if err != nil {
			yield(nil, fmt.Errorf("squash: the source's root: %w", err))
			return
		}
		e, err := w.entry(".", fi)
		if !yield(e, err) || err != nil {
			return
		}
		walkDir(ctx, w, ".", fi, yield)
	}
}

// walkDir yields a directory's entries, then what lies below them.
func walkDir(ctx context.Context, w walker, dir string, fi fs.FileInfo, yield func(*Entry, error) bool) bool {
	fail := func(err error) bool { yield(nil, err); return false }
	if err := context.Cause(ctx); err != nil {
		return fail(err)
	}
	list, err := w.list(dir, fi)
	if err != nil {
		return fail(err)
	}
	type sub struct {
		name string
		fi   fs.FileInfo
	}
	var dirs []sub
	for _, de := range list {
		full := path.Join(dir, de.Name())
		fi, err := de.Info()
		if err != nil {
			return fail(wrapPath(full, err))
		}
		e, err := w.entry(full, fi)
		if err != nil {
			return fail(wrapPath(full, err))
		}
		if !yield(e, nil) {
			return false
		}
		if fi.IsDir() {
			dirs = append(dirs, sub{full, fi})
		}
	}
	if err := w.same(dir, fi); err != nil {
		return fail(wrapPath(dir, err))
	}
	for _, d := range dirs {
		if !walkDir(ctx, w, d.name, d.fi, yield) {
			return false
		}
	}
	return true
}
