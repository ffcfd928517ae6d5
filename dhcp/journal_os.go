package dhcp

import (
	"os"
	"path/filepath"
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

func (d osJournalDir) sync() error { return syncDir(string(d)) }

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
