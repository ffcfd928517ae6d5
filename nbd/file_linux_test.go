package nbd_test

import (
	"bytes"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// A File's abilities at its padding, which is not in the file.
func TestFilePadding(t *testing.T) {
	path := tempFile(t, bytes.Repeat([]byte{1}, 5000))
	f, err := nbd.OpenFileRW(path)
	require.NoError(t, err)
	defer f.Close()
	exts := make([]nbd.Extent, 4)
	n, err := f.Extents(4000, 1120, exts)
	require.NoError(t, err)
	require.Equal(t, []nbd.Extent{{Length: 1000}, {Length: 120, Hole: true, Zero: true}}, exts[:n])
	n, err = f.Extents(5100, 20, exts)
	require.NoError(t, err)
	require.Equal(t, []nbd.Extent{{Length: 20, Hole: true, Zero: true}}, exts[:n])
	require.NoError(t, f.Trim(5000, 120))
	require.NoError(t, f.Cache(0, 5120))
	require.NoError(t, f.Zero(4900, 220, 0))
	require.NoError(t, f.Zero(4800, 320, nbd.ZeroNoHole))
	p := make([]byte, 5120)
	_, err = f.ReadAt(p, 0)
	require.NoError(t, err)
	require.Equal(t, append(bytes.Repeat([]byte{1}, 4800), make([]byte, 320)...), p)
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, int64(5000), st.Size(), "padding was written")
	for _, err := range []error{f.Trim(5000, 121), f.Zero(-1, 5, 0), f.Cache(5121, 0)} {
		require.ErrorIs(t, err, fs.ErrInvalid)
	}
	ro, err := nbd.OpenFile(path)
	require.NoError(t, err)
	defer ro.Close()
	require.ErrorIs(t, ro.Trim(0, 512), fs.ErrPermission)
	require.ErrorIs(t, ro.Zero(0, 512, 0), fs.ErrPermission)
}

// TestFileCut: what was cut off a file in place is no hole: a client that is
// told of holes gets an error for it, as all others do, and no zeroes.
func TestFileCut(t *testing.T) {
	path := tempFile(t, bytes.Repeat([]byte{1}, 64<<10))
	f, err := nbd.OpenFile(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Truncate(path, 20<<10))
	exts := make([]nbd.Extent, 8)
	n, err := f.Extents(0, f.Size(), exts)
	require.NoError(t, err)
	sum := int64(0)
	for _, e := range exts[:n] {
		require.False(t, e.Hole || e.Zero, "%v", exts[:n])
		sum += e.Length
	}
	require.Equal(t, f.Size(), sum)
	c, err := nbd.Dial(t.Context(), "tcp", named(t, f), "any")
	require.NoError(t, err)
	defer c.Close()
	p := make([]byte, 4096)
	_, err = c.ReadAt(p, 16<<10)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{1}, 4096), p)
	_, err = c.ReadAt(p, 32<<10)
	require.ErrorIs(t, err, syscall.EIO)
}
