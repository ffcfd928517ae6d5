package tftp

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"time"
)

// unionDir is an open directory.
type unionDir struct {
	u       union
	name    string
	info    fs.FileInfo
	listed  bool
	entries []fs.DirEntry // not yet returned
}

func (d *unionDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *unionDir) Close() error               { return nil }

func (d *unionDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("is a directory")}
}

func (d *unionDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.listed {
		d.listed, d.entries = true, d.u.list(d.name)
	}
	if n <= 0 || n > len(d.entries) {
		if n > 0 && len(d.entries) == 0 {
			return nil, io.EOF
		}
		n = len(d.entries)
	}
	list := d.entries[:n:n]
	d.entries = d.entries[n:]
	return list, nil
}

// dirInfo describes a directory under its name in the union; without a
// FileInfo of its own it is one that exists only because a mount is below.
type dirInfo struct {
	name string
	fs.FileInfo
}

func (i dirInfo) Name() string { return i.name }
func (i dirInfo) IsDir() bool  { return true }

func (i dirInfo) Mode() fs.FileMode {
	if i.FileInfo != nil {
		return i.FileInfo.Mode()
	}
	return fs.ModeDir | 0o555
}

func (i dirInfo) Size() int64 {
	if i.FileInfo != nil {
		return i.FileInfo.Size()
	}
	return 0
}

func (i dirInfo) ModTime() time.Time {
	if i.FileInfo != nil {
		return i.FileInfo.ModTime()
	}
	return time.Time{}
}

func (i dirInfo) Sys() any { return nil }

// aboveEntry lists a directory that leads to a mount.
type aboveEntry struct {
	u    union
	name string
}

func (e aboveEntry) Name() string               { return path.Base(e.name) }
func (e aboveEntry) IsDir() bool                { return true }
func (e aboveEntry) Type() fs.FileMode          { return fs.ModeDir }
func (e aboveEntry) String() string             { return fs.FormatDirEntry(e) }
func (e aboveEntry) Info() (fs.FileInfo, error) { return fs.Stat(e.u, e.name) }
