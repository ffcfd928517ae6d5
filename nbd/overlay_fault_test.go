package nbd

import (
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
