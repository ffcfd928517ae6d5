package dhcp

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A lease file is written anew in its own place, not in that of a symbolic link
// to it.
func TestFileStoreSymlink(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"etc", "var", "var/leases", "disk"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	link, middle, file := filepath.Join(dir, "etc/leases"), filepath.Join(dir, "var/leases/now"), filepath.Join(dir, "disk/leases")
	require.NoError(t, os.Symlink("../var/leases/now", link))
	require.NoError(t, os.Symlink(file, middle))
	for life := range 2 { // at first there is no such file yet
		s, err := OpenFileStore(link, nil)
		require.NoError(t, err)
		for _, other := range []string{middle, file} {
			_, err = OpenFileStore(other, nil)
			require.ErrorContains(t, err, "another process", "by whatever name")
		}
		s.compactAbove = 1000
		for n, end := 0, s.file.end; s.file.end >= end; n++ { // until it is written anew
			end = s.file.end
			require.NoError(t, s.Commit(t.Context(), promised(byte(life), n)))
			s.wg.Wait()
		}
		require.NoError(t, s.Close())
	}
	for _, l := range []string{link, middle} {
		info, err := os.Lstat(l)
		require.NoError(t, err)
		require.Equal(t, fs.ModeSymlink, info.Mode().Type(), l)
	}
	s, err := OpenFileStore(file, nil)
	require.NoError(t, err)
	for life := range byte(2) {
		_, err = s.LeaseByAddr(t.Context(), testAddr(life))
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())

	// .. is that of the directory that a link leads to.
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "deep/down"), 0o700))
	require.NoError(t, os.Symlink("deep/down", filepath.Join(dir, "alias")))
	require.NoError(t, os.Symlink("../kept", filepath.Join(dir, "alias/leases")))
	s, err = OpenFileStore(filepath.Join(dir, "alias/leases"), nil)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.FileExists(t, filepath.Join(dir, "deep/kept"))

	circle := filepath.Join(dir, "circle")
	require.NoError(t, os.Symlink("circle", circle))
	_, err = OpenFileStore(circle, nil)
	require.ErrorContains(t, err, "in a circle")
	require.ErrorIs(t, err, fs.ErrInvalid)
}

// A file that was kept for its damage is not lost to the next one.
func TestFileStoreDamagedAgain(t *testing.T) {
	whole, starts := leaseFile(t, 6, false)
	d := newTape()
	d.files, d.names["leases"] = [][]byte{whole}, 0
	damage := func(kept string) []byte {
		f := d.files[d.names["leases"]]
		f[starts[1]+frameHeader] ^= 0xff
		found := bytes.Clone(f)
		logger, log := logTo(slog.LevelWarn)
		s, err := openFileStore(d, "leases", &FileStoreOptions{Logger: logger}, thisHost())
		require.NoError(t, err)
		require.Contains(t, log.String(), `"damaged file"=`+kept+"\n")
		require.NoError(t, s.Close())
		require.Equal(t, found, d.files[d.names[kept]])
		return found
	}
	first := damage("leases.damaged")
	damage("leases.damaged.2")
	d.files[d.names["leases.damaged.2"]] = nil // a copy for which there was no room
	second := damage("leases.damaged.2")
	damage("leases.damaged.3")
	require.Equal(t, first, d.files[d.names["leases.damaged"]])
	require.Equal(t, second, d.files[d.names["leases.damaged.2"]])
}

// closedDir is a system where files that are open cannot be renamed or replaced.
type closedDir struct {
	*tape
	inUse map[int]int // how often files are open
}

func (d *closedDir) renamesOpen() bool { return false }

func (d *closedDir) open(name string, create bool) (journalFile, error) {
	f, err := d.tape.open(name, create)
	if err != nil {
		return nil, err
	}
	i := f.(*tapeFile).i
	d.inUse[i]++
	return &closingFile{journalFile: f, closed: func() { d.inUse[i]-- }}, nil
}

func (d *closedDir) rename(from, to string) error {
	for _, name := range []string{from, to} {
		if i, ok := d.names[name]; ok && d.inUse[i] > 0 {
			return fmt.Errorf("%s is used by another process", name)
		}
	}
	return d.tape.rename(from, to)
}

type closingFile struct {
	journalFile
	closed func()
}

func (f *closingFile) close() error {
	if f.closed == nil {
		return fs.ErrClosed
	}
	f.closed()
	f.closed = nil
	return f.journalFile.close()
}

func TestFileStoreRenamesClosed(t *testing.T) {
	d := &closedDir{tape: newTape(), inUse: map[int]int{}}
	version := 0
	for range 3 {
		s, err := openFileStore(d, "leases", nil, thisHost())
		require.NoError(t, err)
		s.compactAbove = 1000
		for end := s.file.end; s.file.end >= end; {
			end = s.file.end
			version++
			require.NoError(t, s.Commit(t.Context(), promised(1, version)))
			s.wg.Wait()
		}
		require.NoError(t, s.Commit(t.Context(), promised(2, version)))
		require.NoError(t, s.Close())
	}
	for i, n := range d.inUse {
		require.Zero(t, n, "file %d", i)
	}
	s, err := openFileStore(d, "leases", nil, thisHost())
	require.NoError(t, err)
	for n := range byte(2) {
		l, err := s.LeaseByAddr(t.Context(), testAddr(1+n))
		require.NoError(t, err)
		require.WithinDuration(t, promised(1, version).Expires, l.Expires, 0)
	}
	require.NoError(t, s.Close())
	require.NotContains(t, d.names, "leases.new")
}

// stuckDir is one where no file gets another's name.
type stuckDir struct {
	*tape
	stuck bool
}

func (d *stuckDir) rename(from, to string) error {
	if d.stuck {
		return fs.ErrPermission
	}
	return d.tape.rename(from, to)
}

// A new file that does not get its name: which of the two has it is not known for
// sure, so nothing more is promised, and what was is kept.
func TestFileStoreRenameFails(t *testing.T) {
	d := &stuckDir{tape: newTape()}
	s, err := openFileStore(d, "leases", nil, thisHost())
	require.NoError(t, err)
	s.compactAbove, d.stuck = 1000, true
	version := 0
	for err == nil {
		version++
		err = s.Commit(t.Context(), promised(1, version))
		s.wg.Wait()
	}
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "writing it anew")
	_, err = s.LeaseByAddr(t.Context(), testAddr(1))
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorIs(t, s.Close(), fs.ErrPermission)

	s, err = openFileStore(d.tape, "leases", nil, thisHost())
	require.NoError(t, err)
	l, err := s.LeaseByAddr(t.Context(), testAddr(1))
	require.NoError(t, err)
	require.WithinDuration(t, promised(1, version-1).Expires, l.Expires, 0)
	require.NoError(t, s.Close())
}
