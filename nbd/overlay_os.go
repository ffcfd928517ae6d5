package nbd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// osDir is an overlayDir in the file system.
type osDir struct {
	path string
	dir  *os.File // held open for its lock
}

func (d disk) openOverlayDir(path string) (overlayDir, error) {
	err := d.mkdir(path, 0o700)
	if err == nil {
		err = d.syncDir(filepath.Dir(path))
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	dir, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	if d.wrap != nil {
		return d.wrap(path, &osDir{path: path, dir: dir}), nil
	}
	return &osDir{path: path, dir: dir}, nil
}

// lockDir opens a directory and locks it against other processes, where the
// system can.
func lockDir(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := lockFile(dir); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

func (d *osDir) open(name string, create bool) (overlayFile, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(filepath.Join(d.path, name), flags, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d *osDir) rename(from, to string) error {
	return os.Rename(filepath.Join(d.path, from), filepath.Join(d.path, to))
}

func (d *osDir) remove(name string) error {
	return os.Remove(filepath.Join(d.path, name))
}

func (d *osDir) boot() string { return hostBoot() }
func (d *osDir) sync() error  { return d.dir.Sync() }
func (d *osDir) close() error { return d.dir.Close() }

type osFile struct{ *os.File }

func (f osFile) size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f osFile) mapped(n int64) (*Mapping, error) { return MapFile(f.File, n) }

func (f osFile) truncate(n int64) error { return f.Truncate(n) }
func (f osFile) punch(off, n int64) error {
	return punchHole(f.File, off, n)
}
func (f osFile) sync() error  { return syncData(f.File) }
func (f osFile) close() error { return f.Close() }
