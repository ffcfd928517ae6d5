package tftp

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Mount is a tree and where it appears.
type Mount struct {
	// Path is the directory at which FS appears, slash-separated; empty is the
	// root. It need not exist in the other trees.
	Path string
	// FS is the tree. A nil FS is left out.
	FS fs.FS
}

// Union shows several trees as one. A name is looked for in the mounts in
// order, and what is missing (fs.ErrNotExist) in one is looked for in the
// next; any other error is the answer, so that a refusal in an earlier tree
// cannot be got round through a later one. Directories are merged: a listing
// has each name once, with the entry of the first tree that has it, and a tree
// that cannot list its directories just adds nothing.
//
// The files are those of the mounted trees: what they can do, seek or read at
// an offset, they can do here. It is an [fs.ReadDirFS], and safe for concurrent
// use when its trees are.
func Union(mounts ...Mount) fs.FS {
	u := make(union, 0, len(mounts))
	for _, m := range mounts {
		if m.FS == nil {
			continue
		}
		m.Path = strings.TrimPrefix(path.Clean("/"+m.Path), "/")
		u = append(u, m)
	}
	return u
}

type union []Mount

// in translates a name of the union to one of the mount's tree. above is the
// next element towards the mount when name is a directory above it.
func (m Mount) in(name string) (sub, above string, ok bool) {
	switch {
	case m.Path == "":
		return name, "", true
	case name == m.Path:
		return ".", "", true
	case strings.HasPrefix(name, m.Path+"/"):
		return name[len(m.Path)+1:], "", true
	}
	rest := m.Path
	if name != "." {
		var below bool
		if rest, below = strings.CutPrefix(m.Path, name+"/"); !below {
			return "", "", false
		}
	}
	above, _, _ = strings.Cut(rest, "/")
	return "", above, false
}

// Open opens the first tree's file or, for a directory, all of them.
func (u union) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	for _, m := range u {
		sub, above, ok := m.in(name)
		if above != "" {
			return &unionDir{u: u, name: name, info: dirInfo{name: path.Base(name)}}, nil
		}
		if !ok {
			continue
		}
		f, err := m.FS.Open(sub)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if !info.IsDir() {
			return f, nil
		}
		f.Close()
		return &unionDir{u: u, name: name, info: dirInfo{path.Base(name), info}}, nil
	}
	if name == "." {
		return &unionDir{u: u, name: name, info: dirInfo{name: "."}}, nil
	}
	return nil, notExist(name)
}

// ReadDir lists a directory of all trees, sorted.
func (u union) ReadDir(name string) ([]fs.DirEntry, error) {
	f, err := u.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d, ok := f.(*unionDir)
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	return d.ReadDir(-1)
}

// ReadLink returns the target of a link in the first tree that has the name.
func (u union) ReadLink(name string) (string, error) {
	return ask(u, "readlink", name, func(fsys fs.FS, sub string) (string, error) {
		if fsys == nil {
			return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
		}
		return fs.ReadLink(fsys, sub)
	})
}

// Lstat describes a file or a link of the first tree that has the name.
func (u union) Lstat(name string) (fs.FileInfo, error) {
	return ask(u, "lstat", name, func(fsys fs.FS, sub string) (fs.FileInfo, error) {
		if sub == "." {
			return fs.Stat(u, name) // a directory, under its name here
		}
		return fs.Lstat(fsys, sub)
	})
}

// ask puts a question about name to the trees in order. For a directory above
// a mount the tree is nil and the name is ".".
func ask[T any](u union, op, name string, question func(fs.FS, string) (T, error)) (v T, err error) {
	if !fs.ValidPath(name) {
		return v, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	for _, m := range u {
		sub, above, ok := m.in(name)
		if above != "" {
			return question(nil, ".")
		}
		if !ok {
			continue
		}
		if v, err = question(m.FS, sub); !errors.Is(err, fs.ErrNotExist) {
			return v, err
		}
	}
	return v, notExist(name)
}

// list merges the listings of all trees.
func (u union) list(name string) []fs.DirEntry {
	var all []fs.DirEntry
	seen := make(map[string]bool)
	add := func(e fs.DirEntry) {
		if !seen[e.Name()] {
			seen[e.Name()] = true
			all = append(all, e)
		}
	}
	for _, m := range u {
		sub, above, ok := m.in(name)
		if above != "" {
			add(aboveEntry{u, path.Join(name, above)})
		}
		if !ok {
			continue
		}
		entries, _ := fs.ReadDir(m.FS, sub)
		for _, e := range entries {
			add(e)
		}
	}
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return all
}
