package squash

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Overlay puts the files of upper over those of lower, as a source for
// [Build]: device nodes, a marker, a replaced configuration file, without
// writing to the tree they are put over. Both are only read.
//
// A directory in both shows the names of both and has the attributes of
// lower, so that upper may be an [testing/fstest.MapFS] that names only files.
// Anything else in upper replaces what lower has under that name, a whole
// directory too. A symbolic link is followed within the one tree that holds
// it.
//
// The result may be used concurrently when both trees may.
func Overlay(lower, upper fs.FS) fs.ReadLinkFS { return &overlay{lower, upper} }

type overlay struct{ lower, upper fs.FS }

// pick returns the tree whose file a name is: upper's if it has one that is no
// directory over a directory, or if something in upper stands above it.
func (o *overlay) pick(op, name string) (from fs.FS, both bool, err error) {
	if !fs.ValidPath(name) {
		return nil, false, pathError(op, name, fs.ErrInvalid)
	}
	for end := 0; end < len(name); {
		if i := strings.IndexByte(name[end+1:], '/'); i >= 0 {
			end += 1 + i
		} else {
			end = len(name)
		}
		up, err := fs.Lstat(o.upper, name[:end])
		if errors.Is(err, fs.ErrNotExist) {
			return o.lower, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		if low, err := fs.Lstat(o.lower, name[:end]); err != nil || !up.IsDir() || !low.IsDir() {
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, false, err
			}
			return o.upper, false, nil
		}
	}
	return o.lower, true, nil
}

func (o *overlay) Open(name string) (fs.File, error) {
	from, both, err := o.pick("open", name)
	if err != nil {
		return nil, err
	}
	f, err := from.Open(name)
	if err != nil || !both {
		return f, err
	}
	return &overlayDir{File: f, o: o, name: name}, nil
}

func (o *overlay) Lstat(name string) (fs.FileInfo, error) {
	from, _, err := o.pick("lstat", name)
	if err != nil {
		return nil, err
	}
	return fs.Lstat(from, name)
}

func (o *overlay) Stat(name string) (fs.FileInfo, error) {
	from, _, err := o.pick("stat", name)
	if err != nil {
		return nil, err
	}
	return fs.Stat(from, name)
}

func (o *overlay) ReadLink(name string) (string, error) {
	from, _, err := o.pick("readlink", name)
	if err != nil {
		return "", err
	}
	return fs.ReadLink(from, name)
}

func (o *overlay) ReadDir(name string) ([]fs.DirEntry, error) {
	from, both, err := o.pick("readdir", name)
	if err != nil {
		return nil, err
	}
	list, err := fs.ReadDir(from, name)
	if err != nil || !both {
		return list, err
	}
	upper, err := fs.ReadDir(o.upper, name)
	if err != nil {
		return nil, err
	}
	at := make(map[string]int, len(list))
	for i, e := range list {
		at[e.Name()] = i
	}
	for _, e := range upper {
		i, ok := at[e.Name()]
		switch {
		case !ok:
			list = append(list, e)
		case !e.IsDir() || !list[i].IsDir():
			list[i] = e
		}
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

// overlayDir is an open directory that both trees have.
type overlayDir struct {
	fs.File
	o    *overlay
	name string
	list []fs.DirEntry
	read bool
}

func (d *overlayDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.read {
		list, err := d.o.ReadDir(d.name)
		if err != nil {
			return nil, err
		}
		d.list, d.read = list, true
	}
	if n <= 0 {
		n = len(d.list)
	} else if len(d.list) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.list))
	list := d.list[:n:n]
	d.list = d.list[n:]
	return list, nil
}
