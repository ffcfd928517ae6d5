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

func (s fsSource) Entries(ctx context.Context) iter.Seq2[*Entry, error] { return walk(ctx, s, 0) }

func (s fsSource) stat() (fs.FileInfo, error) { return fs.Stat(s.fsys, ".") }

func (s fsSource) same(string, fs.FileInfo) error { return nil }

// list sorts, which a foreign ReadDir may not have done, and checks the names.
func (s fsSource) list(dir string, _ fs.FileInfo) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(s.fsys, dir)
	if err != nil {
		return nil, wrapPath(dir, err)
	}
	list = slices.SortedFunc(slices.Values(list), func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for i, de := range list {
		name := de.Name()
		err := checkName(name)
		switch {
		case err != nil:
		case !fs.ValidPath(name):
			err = fmt.Errorf("the name %q is not UTF-8, which io/fs cannot open: rename it, or use Dir as the source: %w", name, fs.ErrInvalid)
		case i > 0 && list[i-1].Name() == name:
			err = errors.New("the source lists this name twice")
		}
		if err != nil {
			return nil, entryError(path.Join(dir, name), err)
		}
	}
	return list, nil
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
			return nil, fmt.Errorf("the source has symbolic links but is no fs.ReadLinkFS: %w", fs.ErrInvalid)
		}
		target, err := fs.ReadLink(s.fsys, name)
		if err != nil {
			return nil, err
		}
		e.Target = target
	case kindBlock, kindChar:
		if !known {
			return nil, errors.New("the source does not tell the device's numbers: its FileInfo.Sys must be a *squash.Stat")
		}
	}
	return e, nil
}
