package squash

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
)

const maxLinks = 40 // as Linux

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// resolve finds a name; follow says whether a symbolic link in the last
// element is followed.
func (f *FS) resolve(op, name string, follow bool) (*node, error) {
	if !fs.ValidPath(name) {
		return nil, pathError(op, name, fs.ErrInvalid)
	}
	n, err := f.walk(name, follow)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	return n, nil
}

func (f *FS) walk(rest string, follow bool) (*node, error) {
	var dirs []*node // from the root to above cur
	cur := f.root
	whole, last := rest, strings.LastIndexByte(rest, '/')
	if last > 0 {
		if known := f.knownDir(rest[:last]); known != nil {
			up := len(known) - 1
			cur, dirs, rest = known[up], known[:up:up], rest[last+1:]
			last = 0
		}
	}
	for links := 0; rest != ""; {
		if last > 0 && links == 0 && len(rest) == len(whole)-last-1 && cur.kind == kindDir {
			f.keepDir(whole[:last], append(slices.Clone(dirs), cur))
		}
		if cur.kind != kindDir {
			return nil, fs.ErrNotExist
		}
		elem, tail, _ := strings.Cut(rest, "/")
		rest = tail
		switch elem {
		case "", ".":
			continue
		case "..":
			if len(dirs) > 0 {
				up := len(dirs) - 1
				cur, dirs = dirs[up], dirs[:up:up] // what is behind is others' to see
			}
			continue
		}
		e, err := f.find(cur, elem)
		if err != nil {
			return nil, err
		}
		n, err := f.child(cur, e)
		if err != nil {
			return nil, err
		}
		if n.kind != kindSymlink || rest == "" && !follow {
			if rest != "" {
				dirs = append(dirs, cur)
			}
			cur = n
			continue
		}
		if links++; links > maxLinks {
			return nil, syscall.ELOOP
		}
		if n.target == "" {
			return nil, fs.ErrNotExist
		}
		if n.target[0] == '/' {
			cur, dirs = f.root, nil
		}
		if rest == "" {
			rest = n.target
		} else {
			rest = n.target + "/" + rest
		}
	}
	return cur, nil
}

// maxDirs bounds the directories that are remembered by their paths.
const maxDirs = 256

// knownDir returns the directories from the root to the one at a path that has
// been walked before, without links, so that reading one file after another
// does not search all directories above it again.
func (f *FS) knownDir(path string) []*node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dirs[path]
}

func (f *FS) keepDir(path string, chain []*node) {
	if len(path) > 4096 { // what it costs is bounded, too
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dirs == nil || len(f.dirs) == maxDirs {
		f.dirs = make(map[string][]*node)
	}
	f.dirs[strings.Clone(path)] = chain
}

func (f *FS) info(op, name string, n *node) (fs.FileInfo, error) {
	attr, err := f.xattrs(n)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	return &fileInfo{name: path.Base(name), n: n, dev: f.dev, attr: attr}, nil
}

// Stat describes the named file, after symbolic links.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	n, err := f.resolve("stat", name, true)
	if err != nil {
		return nil, err
	}
	return f.info("stat", name, n)
}

// Lstat describes the named file or symbolic link.
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	n, err := f.resolve("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return f.info("lstat", name, n)
}

// ReadLink returns where the named symbolic link points, as it is stored.
func (f *FS) ReadLink(name string) (string, error) {
	n, err := f.resolve("readlink", name, false)
	if err != nil {
		return "", err
	}
	if n.kind != kindSymlink {
		return "", pathError("readlink", name, fs.ErrInvalid)
	}
	return n.target, nil
}

// ReadDir lists a directory, sorted by name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	d, err := f.resolve("readdir", name, true)
	if err != nil {
		return nil, err
	}
	if d.kind != kindDir {
		return nil, pathError("readdir", name, syscall.ENOTDIR)
	}
	l, err := f.listing(d)
	if err == nil {
		var list []fs.DirEntry
		if list, err = f.readEntries(d, l, -1); err == nil {
			return list, nil
		}
	}
	return nil, pathError("readdir", name, err)
}

// readEntries returns up to n entries, all when n is negative.
func (f *FS) readEntries(d *node, l *listing, n int) ([]fs.DirEntry, error) {
	list := []fs.DirEntry{}
	for n < 0 || len(list) < n {
		ok, err := l.next()
		if err != nil {
			return list, err
		}
		if !ok {
			break
		}
		list = append(list, &dirEntry{f, d, l.dirent()})
	}
	return slices.Clip(list), nil
}

// dirEntry is an entry whose inode is read when it is asked for.
type dirEntry struct {
	f *FS
	d *node
	e dirent
}

func (e *dirEntry) Name() string      { return e.e.name }
func (e *dirEntry) IsDir() bool       { return e.e.kind == kindDir }
func (e *dirEntry) Type() fs.FileMode { return modeOfKind(e.e.kind) }
func (e *dirEntry) String() string    { return fs.FormatDirEntry(e) }

func (e *dirEntry) Info() (fs.FileInfo, error) {
	n, err := e.f.child(e.d, e.e)
	if err != nil {
		return nil, pathError("lstat", e.e.name, err)
	}
	return e.f.info("lstat", e.e.name, n)
}

// errIsDir is what reading a directory's bytes gives.
const errIsDir = syscall.EISDIR
