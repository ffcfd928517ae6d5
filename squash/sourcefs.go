package squash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
)

// FromFS makes a [Source] of any file system. Owners, device numbers, hard
// links and extended attributes come from each FileInfo's Sys, see [Stat];
// symbolic links need an [fs.ReadLinkFS]. io/fs can open only names that are
// valid UTF-8; another name is an error.
//
// FromFS(os.DirFS(dir)) sees owners and links but no extended attributes:
// [Dir] does.
func FromFS(fsys fs.FS) Source { return fsSource{fsys} }

type fsSource struct{ fsys fs.FS }

func (s fsSource) Entries(ctx context.Context) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		fi, err := fs.Stat(s.fsys, ".")
		if err != nil {
			yield(nil, fmt.Errorf("squash: the source's root: %w", err))
			return
		}
		e, err := s.entry(".", fi)
		if !yield(e, err) || err != nil {
			return
		}
		s.walk(ctx, ".", yield)
	}
}

// walk yields a directory's entries, then what lies below them.
func (s fsSource) walk(ctx context.Context, dir string, yield func(*Entry, error) bool) bool {
	fail := func(err error) bool { yield(nil, err); return false }
	if err := context.Cause(ctx); err != nil {
		return fail(err)
	}
	list, err := fs.ReadDir(s.fsys, dir)
	if err != nil {
		return fail(wrapPath(dir, err))
	}
	list = slices.SortedFunc(slices.Values(list), func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var dirs []string
	for i, de := range list {
		name := de.Name()
		full := path.Join(dir, name)
		if err := checkName(name); err != nil {
			return fail(entryError(full, err))
		}
		if !fs.ValidPath(name) {
			return fail(entryError(full, fmt.Errorf("the name %q is not UTF-8, which io/fs cannot open: rename it, or use Dir as the source: %w", name, fs.ErrInvalid)))
		}
		if i > 0 && list[i-1].Name() == name {
			return fail(entryError(full, errors.New("the source lists this name twice")))
		}
		fi, err := de.Info()
		if err != nil {
			return fail(wrapPath(full, err))
		}
		e, err := s.entry(full, fi)
		if err != nil {
			return fail(err)
		}
		if !yield(e, nil) {
			return false
		}
		if fi.IsDir() {
			dirs = append(dirs, full)
		}
	}
	for _, d := range dirs {
		if !s.walk(ctx, d, yield) {
			return false
		}
	}
	return true
}

func (s fsSource) entry(name string, fi fs.FileInfo) (*Entry, error) {
	e := &Entry{Path: name, Mode: fi.Mode(), ModTime: fi.ModTime()}
	var known bool
	e.Stat, known = statOf(fi)
	switch kindOf(e.Mode) {
	case kindFile:
		e.Size = fi.Size()
		e.Open = func() (io.ReadCloser, error) { return s.fsys.Open(name) }
	case kindSymlink:
		if _, ok := s.fsys.(fs.ReadLinkFS); !ok {
			return nil, entryError(name, fmt.Errorf("the source has symbolic links but is no fs.ReadLinkFS: %w", fs.ErrInvalid))
		}
		target, err := fs.ReadLink(s.fsys, name)
		if err != nil {
			return nil, wrapPath(name, err)
		}
		e.Target = target
	case kindBlock, kindChar:
		if !known {
			return nil, entryError(name, errors.New("the source does not tell the device's numbers: its FileInfo.Sys must be a *squash.Stat"))
		}
	}
	return e, nil
}
