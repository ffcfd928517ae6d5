package nbd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// disk is how Roots and Images change their directories. The zero value does
// it. In tests hook sees each step, and may record it, leave it out or fail it;
// wrap does the same for the files of an overlay, whose path is a hot one.
type disk struct {
	hook func(s diskStep, do func() error) error
	wrap func(path string, d overlayDir) overlayDir
}

type diskStep struct {
	op       diskOp
	path, to string // to: link and rename
	text     []byte // write
}

type diskOp string

const (
	opMkdir   diskOp = "mkdir"
	opLink    diskOp = "link"
	opRename  diskOp = "rename"
	opRemove  diskOp = "remove" // with all that is in it
	opWrite   diskOp = "write"  // a new file, or in the place of its content
	opSync    diskOp = "sync"
	opSyncDir diskOp = "syncdir"
)

func (d disk) do(s diskStep, do func() error) error {
	if d.hook != nil {
		return d.hook(s, do)
	}
	return do()
}

func (d disk) mkdir(path string, mode fs.FileMode) error {
	return d.do(diskStep{op: opMkdir, path: path}, func() error { return os.Mkdir(path, mode) })
}

// mkdirAll makes a directory and those above it that are missing, durably: also
// when it is there, for who made it may have come no further.
func (d disk) mkdirAll(path string, mode fs.FileMode) error {
	err := d.mkdir(path, mode)
	if errors.Is(err, fs.ErrNotExist) {
		if err = d.mkdirAll(filepath.Dir(path), mode); err == nil {
			err = d.mkdir(path, mode)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

func (d disk) link(from, to string) error {
	return d.do(diskStep{op: opLink, path: from, to: to}, func() error { return os.Link(from, to) })
}

func (d disk) rename(from, to string) error {
	return d.do(diskStep{op: opRename, path: from, to: to}, func() error { return os.Rename(from, to) })
}

func (d disk) remove(path string) error {
	return d.do(diskStep{op: opRemove, path: path}, func() error { return os.Remove(path) })
}

func (d disk) removeAll(path string) error {
	return d.do(diskStep{op: opRemove, path: path}, func() error { return os.RemoveAll(path) })
}

// syncFile makes a file's content durable.
func (d disk) syncFile(f *os.File) error {
	return d.do(diskStep{op: opSync, path: f.Name()}, f.Sync)
}

// syncDir makes what was created, renamed or removed in a directory durable.
func (d disk) syncDir(path string) error {
	return d.do(diskStep{op: opSyncDir, path: path}, func() error {
		dir, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(dir.Sync(), dir.Close())
	})
}

// writeNew writes path.new, durably, for [disk.rename] to put it in the place
// of path: what can fail for want of space has been done then.
func (d disk) writeNew(path string, text []byte, mode fs.FileMode) error {
	path += ".new"
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	err = d.do(diskStep{op: opWrite, path: path, text: text}, func() error {
		_, err := f.Write(text)
		return err
	})
	if err == nil {
		err = d.syncFile(f)
	}
	return errors.Join(err, f.Close())
}

// putNew puts path.new in the place of path: after a crash either is there.
func (d disk) putNew(path string) error {
	if err := d.rename(path+".new", path); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

// writeFile puts a file in the place of another one, durably: after a crash
// either is there, whole.
func (d disk) writeFile(path string, text []byte, mode fs.FileMode) error {
	if err := d.writeNew(path, text, mode); err != nil {
		return err
	}
	return d.putNew(path)
}
