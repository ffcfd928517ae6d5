package nbd

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOverlayGivesSpaceBack: what is trimmed counts no more, neither for the
// quota nor on the disk.
func TestOverlayGivesSpaceBack(t *testing.T) {
	const size = 4 << 20
	overlayKinds(t, func(t *testing.T, open func(base Device) *Overlay) {
		o := open(bytesBase(randomBytes(1, size)))
		o.Quota = 1 << 20
		full := randomBytes(2, 1<<20)
		_, err := o.WriteAt(full, 0)
		require.NoError(t, err)
		_, err = o.WriteAt(full[:1], 2<<20)
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.NoError(t, o.Trim(0, 1<<20))
		require.Zero(t, o.Usage())
		_, err = o.WriteAt(full, 2<<20)
		require.NoError(t, err, "the quota has room again")
		require.NoError(t, o.Zero(0, size, ZeroFast))
		require.Zero(t, o.Usage())
		checkExtents(t, o, make([]byte, size))
		var all [4]Extent
		n, err := o.Extents(0, size, all[:])
		require.NoError(t, err)
		require.Equal(t, []Extent{{Length: size, Hole: true, Zero: true}}, all[:n])

		require.ErrorIs(t, o.Zero(0, size, ZeroFast|ZeroNoHole), errors.ErrUnsupported)
		require.ErrorIs(t, o.Zero(0, size, ZeroNoHole), syscall.ENOSPC)
		require.ErrorIs(t, o.Trim(1, size), fs.ErrInvalid)
		require.ErrorIs(t, o.Zero(-1, 1, 0), fs.ErrInvalid)
		_, err = o.Extents(0, size+1, all[:])
		require.ErrorIs(t, err, fs.ErrInvalid)
	})
}

// TestOverlayConcurrentZero: neighbours zero, write and flush at a time; each
// must find what it did last.
func TestOverlayConcurrentZero(t *testing.T) {
	overlayKinds(t, func(t *testing.T, open func(base Device) *Overlay) {
		const workers, piece, blocks = 8, overlayBlock / 2, 64
		o := open(bytesBase(bytes.Repeat([]byte{9}, workers*piece*blocks)))
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				data, got := bytes.Repeat([]byte{byte(w + 1)}, piece), make([]byte, piece)
				for i := range int64(400) {
					off := (i%blocks*workers + int64(w)) * piece
					want := data
					var err error
					if i%3 == 0 {
						want = make([]byte, piece)
						err = o.Zero(off, piece, 0)
					} else {
						_, err = o.WriteAt(data, off)
					}
					_, readErr := o.ReadAt(got, off)
					if err = errors.Join(err, readErr); err != nil || !bytes.Equal(want, got) {
						t.Error("piece", i, "of", w, err)
						return
					}
					if i%50 == 0 {
						if err := o.Sync(); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		data := int64(0)
		buf := make([]Extent, 1000)
		for off := int64(0); off < o.Size(); {
			n, err := o.Extents(off, o.Size()-off, buf)
			require.NoError(t, err)
			for _, e := range buf[:n] {
				if off += e.Length; !e.Hole {
					data += e.Length
				}
			}
		}
		require.Equal(t, o.Usage(), data, "all blocks are its own: those that count are the ones with data")
	})
}

func TestOverlayCommitKeepsWhatWasThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(path, []byte("former"), 0o600))
	base := &failingBase{bytesBase: randomBytes(1, 1<<20)}
	o := NewOverlay(base)
	check := func() {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "former", string(text))
		entries, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Len(t, entries, 1, "nothing half-done is left")
	}
	base.err = syscall.EIO
	require.ErrorIs(t, o.Commit(t.Context(), path), syscall.EIO)
	check()
	base.err = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, o.Commit(ctx, path), context.Canceled)
	check()
	require.NoError(t, o.Close())
	require.ErrorIs(t, o.Commit(t.Context(), path), fs.ErrClosed)
	check()
}
