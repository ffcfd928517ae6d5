package dhcp

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// osJournalDir is a directory of the system's.
type osJournalDir string

func (d osJournalDir) open(name string, create bool) (journalFile, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(filepath.Join(string(d), name), flags, 0o600)
	if err != nil {
		return nil, err
	}
	return &osJournalFile{f, newDataSync()}, nil
}

func (d osJournalDir) rename(from, to string) error {
	return os.Rename(filepath.Join(string(d), from), filepath.Join(string(d), to))
}

func (d osJournalDir) renamesOpen() bool { return runtime.GOOS != "windows" }

func (d osJournalDir) sync() error { return syncDir(string(d)) }

// followLinks is where symbolic links of that name lead, though nothing be there
// yet: what is written anew is to take the place of the file, not of the link.
func followLinks(name string) (string, error) {
	for range 40 {
		to, err := os.Readlink(name)
		if err != nil { // no link
			return name, nil
		}
		if !filepath.IsAbs(to) {
			dir, err := filepath.EvalSymlinks(filepath.Dir(name)) // before .. leads out of it
			if err != nil {
				return "", err
			}
			to = filepath.Join(dir, to)
		}
		name = to
	}
	return "", fmt.Errorf("its symbolic links lead in a circle: %w", fs.ErrInvalid)
}

type osJournalFile struct {
	*os.File
	data dataSync
}

func (f *osJournalFile) truncate(size int64) error { return f.Truncate(size) }
func (f *osJournalFile) sync() error               { return f.data.sync(f.File) }

func (f *osJournalFile) close() error {
	f.data.close()
	return f.Close()
}

func (f *osJournalFile) size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
