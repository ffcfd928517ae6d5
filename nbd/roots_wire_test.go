package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// TestFaultsAreErrors: whatever fails below a root, in whatever operation, the
// client gets as an error with its number, and the connection stays.
func TestFaultsAreErrors(t *testing.T) {
	ops := map[nbd.Op]func(c *nbd.Client) error{
		nbd.OpRead:  func(c *nbd.Client) error { _, err := c.ReadAt(make([]byte, 8192), 4096); return err },
		nbd.OpWrite: func(c *nbd.Client) error { _, err := c.WriteAt(make([]byte, 200<<10), 4096); return err },
		nbd.OpSync:  func(c *nbd.Client) error { return c.Sync() },
		nbd.OpTrim:  func(c *nbd.Client) error { return c.Trim(0, 64<<10) },
		nbd.OpZero:  func(c *nbd.Client) error { return c.Zero(0, 64<<10, 0) },
		nbd.OpExtents: func(c *nbd.Client) error {
			_, err := c.Extents(0, 64<<10, make([]nbd.Extent, 4))
			return err
		},
	}
	for op, do := range ops {
		for _, fault := range []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, errors.New("who knows"), nil} {
			t.Run(fmt.Sprint(op, " ", fault), func(t *testing.T) {
				content := pattern(1 << 20)
				faults := &nbd.Faults{}
				dev := faults.Filter(nbd.NewOverlay(nbd.NewReaderAt(bytes.NewReader(content), 1<<20)))
				c := dial(t, nbdtest.ServeServer(t, &nbd.Server{Handler: nbd.Share(dev), Logger: quiet}), "")
				faults.Add(nbd.Fault{Ops: []nbd.Op{op}, Err: fault, Delay: time.Millisecond, Count: 1})
				want := map[error]error{syscall.EDQUOT: syscall.ENOSPC, syscall.EROFS: syscall.EPERM}[fault]
				switch {
				case want != nil:
				case fault == nil:
				case errors.Is(fault, syscall.EIO), errors.Is(fault, syscall.ENOSPC):
					want = fault
				default:
					want = syscall.EIO
				}
				err := do(c)
				require.Equal(t, 1, faults.Hits())
				if fault == nil {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, want)
				}
				require.NoError(t, do(c), "the same connection goes on")
				p := make([]byte, 4096)
				_, err = c.ReadAt(p, 512<<10)
				require.NoError(t, err)
				require.True(t, bytes.Equal(content[512<<10:512<<10+4096], p))
			})
		}
	}
}

// TestQuotaOnTheWire: a machine that needs more than its share gets ENOSPC and
// goes on; the image and the other machines notice nothing.
func TestQuotaOnTheWire(t *testing.T) {
	for _, stored := range []bool{false, true} {
		dir := t.TempDir()
		image := pattern(1 << 20)
		path := filepath.Join(dir, "disk.img")
		require.NoError(t, os.WriteFile(path, image, 0o600))
		images := &nbd.Images{Logger: quiet}
		require.NoError(t, images.Add(t.Context(), "disk", path))
		roots := &nbd.Roots{Images: images, Logger: quiet, Quota: 64 << 10}
		if stored {
			roots.Dir = filepath.Join(dir, "state")
		}
		addr := nbdtest.ServeServer(t, &nbd.Server{Handler: roots, Logger: quiet})
		open := func(root string) *nbd.Client {
			n, err := roots.Boot(t.Context(), "disk", root, nbd.Kept)
			require.NoError(t, err)
			return dial(t, addr, n.String())
		}
		greedy, modest := open("greedy"), open("modest")
		full := bytes.Repeat([]byte{0xee}, 1<<20)
		_, err := greedy.WriteAt(full[:64<<10], 0)
		require.NoError(t, err)
		_, err = greedy.WriteAt(full[:200<<10], 512<<10)
		require.ErrorIs(t, err, syscall.ENOSPC)
		_, err = greedy.WriteAt(full[:4096], 512<<10)
		require.ErrorIs(t, err, syscall.ENOSPC)
		_, err = modest.WriteAt(full[:4096], 4096)
		require.NoError(t, err)
		require.NoError(t, greedy.Sync())
		want := bytes.Clone(image)
		copy(want, full[:64<<10])
		got := make([]byte, 1<<20)
		_, err = greedy.ReadAt(got, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "what fitted is there, the rest is the image's")
		list, err := roots.List(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 64<<10, list[0].Usage)
		require.EqualValues(t, 4096, list[1].Usage)
		require.Len(t, list[0].Clients, 1)

		// What is written again needs nothing, and what is trimmed comes back.
		_, err = greedy.WriteAt(full[:4096], 0)
		require.NoError(t, err)
		require.NoError(t, greedy.Trim(0, 4096))
		_, err = greedy.WriteAt(full[:4096], 512<<10)
		require.NoError(t, err)

		_, err = roots.Commit(t.Context(), "greedy", "disk")
		require.ErrorIs(t, err, syscall.EBUSY, "its machine is on")
		require.NoError(t, roots.Reset(t.Context(), "greedy"))
		_, err = greedy.ReadAt(got, 0)
		require.Error(t, err, "it is cut off")
		_, err = modest.ReadAt(got[:4096], 4096)
		require.NoError(t, err)
		require.Equal(t, full[:4096], got[:4096])
		now, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(image, now))
		_, err = open("greedy").ReadAt(got, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(image, got))
		require.NoError(t, modest.Close())
		require.NoError(t, roots.Close())
		require.NoError(t, images.Close())
	}
}

// TestRootsUnderClients: 64 clients boot, write, vanish and come back on a few
// roots, while these are reset, cloned, fenced and deleted: nothing hangs, no
// boot reads what a foreign one wrote after it, and every block is whole.
func TestRootsUnderClients(t *testing.T) {
	const clients, names, rounds = 64, 16, 8
	for _, stored := range []bool{false, true} {
		dir := t.TempDir()
		path := filepath.Join(dir, "disk.img")
		require.NoError(t, os.WriteFile(path, make([]byte, 256<<10), 0o600))
		images := &nbd.Images{Logger: quiet}
		require.NoError(t, images.Add(t.Context(), "disk", path))
		roots := &nbd.Roots{Images: images, Logger: quiet}
		if stored {
			roots.Dir = filepath.Join(dir, "state")
		}
		srv := &nbd.Server{Handler: roots, Logger: quiet, MaxConnsPerAddr: -1}
		addr := nbdtest.ServeServer(t, srv)
		var opened, wrote atomic.Int64
		var taken sync.Map // tokens: two who ask at once are one boot
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(i), 11))
				for range rounds {
					root := fmt.Sprint("n", rng.IntN(names))
					switch rng.IntN(12) {
					case 0:
						_ = roots.Reset(t.Context(), root)
					case 1:
						_ = roots.Clone(t.Context(), root, fmt.Sprint("n", rng.IntN(names)))
					case 2:
						_ = roots.Delete(t.Context(), root)
					case 3:
						_ = roots.Fence(t.Context(), root)
					default:
						w, err := oneBoot(t.Context(), roots, &taken, addr, root, byte(1+i), rng.IntN(2) == 0)
						if err != nil {
							t.Error(err)
							return
						}
						opened.Add(1)
						wrote.Add(w)
					}
				}
			})
		}
		wg.Wait()
		require.Positive(t, opened.Load())
		require.Positive(t, wrote.Load())
		t.Log(opened.Load(), "boots,", wrote.Load(), "whole rounds of writes")
		list, err := roots.List(t.Context())
		require.NoError(t, err)
		for _, r := range list {
			require.NoError(t, r.Err)
			require.NoError(t, roots.Delete(t.Context(), r.Name))
		}
		require.NoError(t, roots.Close())
		require.NoError(t, images.Close())
	}
}

// oneBoot is a machine that boots, may be fenced at any moment, and loses its
// connection in the middle of something.
func oneBoot(ctx context.Context, roots *nbd.Roots, taken *sync.Map, addr, root string, b byte, flush bool) (wrote int64, err error) {
	n, err := roots.Boot(ctx, "disk", root, nbd.Kept)
	if err != nil {
		return 0, nil // the root is on its way out, or in
	}
	if _, other := taken.LoadOrStore(n.String(), true); other {
		return 0, nil
	}
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	c, err := (&nbd.Dialer{}).NewClient(ctx, nc, n.String())
	if err != nil {
		return 0, nil // a newer boot was first
	}
	p := make([]byte, 4096)
	for block := range int64(8) {
		if _, err := c.ReadAt(p, block*4096); err != nil {
			return 0, nil
		}
		if !bytes.Equal(p, bytes.Repeat(p[:1], len(p))) {
			return 0, fmt.Errorf("block %d of %s is torn", block, root)
		}
		if _, err := c.WriteAt(bytes.Repeat([]byte{b}, len(p)), block*4096); err != nil {
			return 0, nil
		}
		if _, err := c.ReadAt(p, block*4096); err != nil {
			return 0, nil
		}
		if !bytes.Equal(p, bytes.Repeat([]byte{b}, len(p))) {
			return 0, fmt.Errorf("%s has another boot's block %d", root, block)
		}
	}
	if flush && c.Sync() != nil {
		return 0, nil
	}
	return 1, nil // the deferred Close is the cable pulled
}
