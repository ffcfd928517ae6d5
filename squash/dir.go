package squash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"syscall"
)

// Dir is the directory at a path as a [Source]: with owners, device numbers,
// hard links, extended attributes and names of any bytes on Linux, and as
// [FromFS] sees it elsewhere. What cannot be read without root is an error. A
// few directories are listed before it is their turn.
//
// A file or a directory that is replaced while the tree is read, or is a link by
// then, is an error too. That is for trees that change by accident: read what
// somebody hostile can write to from a snapshot.
func Dir(root string) Source { return dirSource(root) }

type dirSource string

func (s dirSource) Entries(ctx context.Context) iter.Seq2[*Entry, error] {
	return walk(ctx, s, readers)
}

func (s dirSource) stat() (fs.FileInfo, error) { return os.Stat(string(s)) }

// same fails when another directory has the name by now, or a link.
func (s dirSource) same(dir string, was fs.FileInfo) error {
	stat := os.Lstat
	if dir == "." { // which may be a link all the time
		stat = os.Stat
	}
	now, err := stat(s.path(dir))
	if err == nil && !os.SameFile(now, was) {
		err = errors.New("another directory stands here than when the tree was listed; build from a tree at rest")
	}
	return err
}

func (s dirSource) list(dir string, fi fs.FileInfo) ([]fs.DirEntry, error) {
	err := s.same(dir, fi)
	var list []fs.DirEntry
	if err == nil {
		list, err = os.ReadDir(s.path(dir))
	}
	if err != nil {
		return nil, wrapPath(dir, err)
	}
	return list, nil
}

func (s dirSource) path(name string) string { return string(s) + "/" + name }

func (s dirSource) entry(name string, fi fs.FileInfo) (*Entry, error) {
	e := &Entry{Path: name, Mode: fi.Mode(), ModTime: fi.ModTime()}
	var known bool
	e.Stat, known = statOf(fi)
	var err error
	if e.Xattrs, err = sysXattrs(s.path(name)); err != nil {
		return nil, err
	}
	switch kindOf(e.Mode) {
	case kindFile:
		e.Size = fi.Size()
		same := func(now fs.FileInfo) bool { return os.SameFile(now, fi) }
		if known { // two numbers take less memory than a FileInfo, until the file is read
			dev, ino := e.Dev, e.Ino
			same = func(now fs.FileInfo) bool {
				st, ok := statOf(now)
				return ok && st.Dev == dev && st.Ino == ino
			}
		}
		e.Open = func() (io.ReadCloser, error) { return s.open(name, same) }
	case kindSymlink:
		e.Target, err = os.Readlink(s.path(name))
	}
	return e, err
}

// open opens the file that was listed and no other.
func (s dirSource) open(name string, same func(fs.FileInfo) bool) (io.ReadCloser, error) {
	f, err := os.OpenFile(s.path(name), os.O_RDONLY|syscall.O_NONBLOCK|noFollow, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !same(fi) {
		err = fmt.Errorf("another file stands here than when the tree was listed; build from a tree at rest")
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
