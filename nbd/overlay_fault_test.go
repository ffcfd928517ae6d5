package nbd

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// faultDir fails what is asked for: "write data", "sync map" and so on.
type faultDir struct {
	*crashDir
	fail map[string]error
}

func (d *faultDir) open(name string, create bool) (overlayFile, error) {
	f, err := d.crashDir.open(name, create)
	if err == nil {
		f = &faultFile{f.(*crashFile), d.fail}
	}
	return f, err
}

func (d *faultDir) rename(from, to string) error {
	if err := d.fail["rename"]; err != nil {
		return err
	}
	return d.crashDir.rename(from, to)
}

func (d *faultDir) sync() error {
	if err := d.fail["sync directory"]; err != nil {
		return err
	}
	return d.crashDir.sync()
}

type faultFile struct {
	*crashFile
	fail map[string]error
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fail["write "+strings.TrimSuffix(f.name, ".new")]; err != nil {
		return 0, err
	}
	return f.crashFile.WriteAt(p, off)
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fail["read "+f.name]; err != nil {
		return 0, err
	}
	return f.crashFile.ReadAt(p, off)
}

func (f *faultFile) sync() error {
	if err := f.fail["sync "+strings.TrimSuffix(f.name, ".new")]; err != nil {
		return err
	}
	return f.crashFile.sync()
}

func TestOverlayFaults(t *testing.T) {
	const size = 10 * overlayBlock
	open := func(d *faultDir) *Overlay {
		s, err := openFileStore(d, size, "id")
		require.NoError(t, err)
		o := &Overlay{base: rampBase(size), size: size, store: s}
		o.used.Store(s.count())
		return o
	}
	byteAt := func(o *Overlay, off int64) byte {
		var p [1]byte
		_, err := o.ReadAt(p[:], off)
		require.NoError(t, err)
		return p[0]
	}
	start := func() (*faultDir, *Overlay) {
		d := &faultDir{newCrashDir(), map[string]error{}}
		o := open(d)
		_, err := o.WriteAt([]byte{255}, 100)
		require.NoError(t, err)
		require.NoError(t, o.Sync())
		return d, o
	}

	t.Run("no space", func(t *testing.T) {
		d, o := start()
		d.fail["write data"] = syscall.ENOSPC
		_, err := o.WriteAt([]byte{255}, overlayBlock)
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.EqualValues(t, overlayBlock, o.Usage())
		require.EqualValues(t, 255, byteAt(o, 100))
		require.NotEqualValues(t, 255, byteAt(o, overlayBlock), "the block is the base's")
		clear(d.fail)
		_, err = o.WriteAt([]byte{255}, overlayBlock)
		require.NoError(t, err, "there is space again")
		require.NoError(t, o.Sync())
	})
	for _, what := range []string{"sync data", "write map", "sync map"} {
		t.Run(what, func(t *testing.T) {
			d, o := start()
			_, err := o.WriteAt([]byte{255}, overlayBlock)
			require.NoError(t, err)
			d.fail[what] = syscall.EIO
			require.ErrorIs(t, o.Sync(), syscall.EIO)
			clear(d.fail)
			require.ErrorIs(t, o.Sync(), syscall.EIO, "the kernel may have dropped what it could not write")
			_, err = o.WriteAt([]byte{255}, 0)
			require.ErrorIs(t, err, syscall.EIO)
			require.EqualValues(t, 255, byteAt(o, overlayBlock), "reads go on")
			require.EqualValues(t, 255, byteAt(open(d), 100), "what was flushed before is there")
			require.True(t, open(d).Lost(), "and what was not may be gone")
			require.NoError(t, o.Reset())
			_, err = o.WriteAt([]byte{255}, 0)
			require.NoError(t, err)
			require.NoError(t, o.Sync())
		})
	}
	for _, what := range []string{"write map", "sync map", "rename"} {
		t.Run("reset "+what, func(t *testing.T) {
			d, o := start()
			d.fail[what] = syscall.EIO
			require.ErrorIs(t, o.Reset(), syscall.EIO)
			require.EqualValues(t, 255, byteAt(o, 100), "nothing happened")
			clear(d.fail)
			require.NoError(t, o.Sync())
			require.EqualValues(t, 255, byteAt(open(d), 100))
			require.NoError(t, o.Reset())
			require.NotEqualValues(t, 255, byteAt(open(d), 100))
		})
	}
	t.Run("reset sync directory", func(t *testing.T) {
		d, o := start()
		d.fail["sync directory"] = syscall.EIO
		require.ErrorIs(t, o.Reset(), syscall.EIO)
		_, err := o.WriteAt([]byte{255}, 0)
		require.ErrorIs(t, err, syscall.EIO, "nobody knows which map is there after a crash")
		clear(d.fail)
		require.NoError(t, o.Reset())
		require.NotEqualValues(t, 255, byteAt(o, 100))
	})
}

// fullDir is a directory in which no file can be made.
type fullDir struct{ overlayDir }

func (d fullDir) open(name string, create bool) (overlayFile, error) {
	if create {
		return nil, syscall.ENOSPC
	}
	return d.overlayDir.open(name, create)
}

// TestFullDiskTakesWhatIsStored: an overlay that was written to and closed can be
// written over, and trimmed, when it is opened again on a full disk.
func TestFullDiskTakesWhatIsStored(t *testing.T) {
	base := bytesBase(make([]byte, 1<<20))
	dir := filepath.Join(t.TempDir(), "o")
	o, err := OpenOverlay(base, dir, "id")
	require.NoError(t, err)
	_, err = o.WriteAt(randomBytes(1, 64<<10), 0)
	require.NoError(t, err)
	require.NoError(t, o.Close())
	full := disk{wrap: func(_ string, d overlayDir) overlayDir { return fullDir{d} }}
	for i := range int64(3) {
		o, err = full.openOverlay(base, dir, "id")
		require.NoError(t, err)
		require.False(t, o.Lost())
		want := randomBytes(uint64(2+i), 8192)
		_, err = o.WriteAt(want, 4096)
		require.NoError(t, err)
		require.NoError(t, o.Trim(16<<10*(1+i), 8192))
		require.NoError(t, o.Close())
		got := make([]byte, 8192)
		o, err = OpenOverlay(base, dir, "id")
		require.NoError(t, err)
		_, err = o.ReadAt(got, 4096)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.EqualValues(t, 64<<10-8192*(1+i), o.Usage())
		require.NoError(t, o.Close())
	}
}
