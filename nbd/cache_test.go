package nbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const testUnit = 64 << 10

// slowBase counts what is asked of it, and fails or waits when told.
type slowBase struct {
	bytesBase
	reads  atomic.Int64
	bytes  atomic.Int64
	fail   atomic.Bool
	gate   chan struct{}
	closed atomic.Int64
}

func (b *slowBase) ReadAt(p []byte, off int64) (int, error) {
	b.reads.Add(1)
	b.bytes.Add(int64(len(p)))
	if b.gate != nil {
		<-b.gate
	}
	if b.fail.Load() {
		return 0, syscall.EIO
	}
	return b.bytesBase.ReadAt(p, off)
}

func (b *slowBase) Close() error { b.closed.Add(1); return nil }

func (b *slowBase) as(id string) CacheBase {
	return func(context.Context) (Device, string, error) { return b, id, nil }
}

func unreachable(context.Context) (Device, string, error) { return nil, "", syscall.EHOSTUNREACH }

func cacheOpts() *CacheOptions {
	return &CacheOptions{Unit: testUnit, Readahead: -1, Logger: quietHTTP.Logger}
}

func readBack(t *testing.T, c *Cache, want []byte, off, n int64) {
	t.Helper()
	p := make([]byte, n)
	_, err := c.ReadAt(p, off)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want[off:off+n], p), "wrong data in %d bytes at %d", n, off)
}

// TestCacheOneFetch: many readers of one unit, one fetch; with no readahead
// and no further one for what is kept.
func TestCacheOneFetch(t *testing.T) {
	content := randomBytes(1, 10*testUnit+100)
	base := &slowBase{bytesBase: content, gate: make(chan struct{})}
	c, err := OpenCache(t.Context(), t.TempDir(), base.as("a"), cacheOpts())
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			p := make([]byte, 1000)
			if _, err := c.ReadAt(p, int64(i)*1000); err != nil || !bytes.Equal(content[i*1000:][:1000], p) {
				t.Error("wrong data", err)
			}
		})
	}
	close(base.gate)
	wg.Wait()
	require.EqualValues(t, 1, base.reads.Load())
	readBack(t, c, content, 10*testUnit, 100)
	require.EqualValues(t, 2, base.reads.Load())
	require.EqualValues(t, testUnit*2, c.Usage().Kept)
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	require.EqualValues(t, 1, base.closed.Load())
	_, err = c.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, fs.ErrClosed)
}

// TestCacheReadahead: after a few sequential reads the units ahead are there
// before they are asked for.
func TestCacheReadahead(t *testing.T) {
	content := randomBytes(2, 40*testUnit)
	base := &slowBase{bytesBase: content}
	opts := cacheOpts()
	opts.Readahead = 8 * testUnit
	c, err := OpenCache(t.Context(), t.TempDir(), base.as("a"), opts)
	require.NoError(t, err)
	defer c.Close()
	for off := int64(0); off < 4*testUnit; off += testUnit / 2 {
		readBack(t, c, content, off, testUnit/2)
	}
	require.Eventually(t, func() bool { return c.store.present(4) }, 20*time.Second, time.Millisecond)
	require.False(t, c.store.present(20), "far ahead of the reader")
	// It is a hint, which is dropped while others are worked on.
	require.Eventually(t, func() bool {
		require.NoError(t, c.Cache(30*testUnit, 1))
		return c.store.present(30)
	}, 20*time.Second, time.Millisecond)
}

// TestCacheReadsLittle: short reads make the base read a unit for each, and no
// more ahead of them than they have asked for.
func TestCacheReadsLittle(t *testing.T) {
	content := randomBytes(8, 400*testUnit)
	base := &slowBase{bytesBase: content}
	opts := cacheOpts()
	opts.Readahead = 0
	c, err := OpenCache(t.Context(), t.TempDir(), base.as("a"), opts)
	require.NoError(t, err)
	defer c.Close()
	quiet := func() bool {
		c.flightMu.Lock()
		defer c.flightMu.Unlock()
		return len(c.flights) == 0
	}
	const places, reads = 10, 8
	for place := range int64(places) {
		for i := range int64(reads) {
			readBack(t, c, content, place*40*testUnit+i, 1)
			require.Eventually(t, quiet, 20*time.Second, 100*time.Microsecond)
		}
	}
	require.EqualValues(t, 2*places*testUnit, base.bytes.Load(), "the unit, and one ahead")
	for off := int64(0); off < 8*testUnit; off += testUnit {
		readBack(t, c, content, off, testUnit)
		require.Eventually(t, quiet, 20*time.Second, 100*time.Microsecond)
	}
	require.Greater(t, c.Usage().Kept, int64((2*(places-1)+12)*testUnit), "a sequence is read ahead")
}

// TestCacheOffline: what is kept is served without the base, over a restart;
// the rest when it is back.
func TestCacheOffline(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	content := randomBytes(3, 3*testUnit+700)
	base := &slowBase{bytesBase: content}
	_, err := OpenCache(t.Context(), dir, unreachable, cacheOpts())
	require.ErrorIs(t, err, syscall.EHOSTUNREACH)
	c, err := OpenCache(t.Context(), dir, base.as("a"), cacheOpts())
	require.NoError(t, err)
	readBack(t, c, content, testUnit, 10)
	base.fail.Store(true)
	_, err = c.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, syscall.EIO)
	readBack(t, c, content, testUnit, testUnit)
	require.NoError(t, c.Close())

	base.fail.Store(false)
	var back atomic.Pointer[CacheBase]
	off, wrong, right := CacheBase(unreachable), base.as("b"), base.as("a")
	back.Store(&off)
	opts := cacheOpts()
	opts.Unit = 0 // it keeps its own
	c, err = OpenCache(t.Context(), dir, func(ctx context.Context) (Device, string, error) { return (*back.Load())(ctx) }, opts)
	require.NoError(t, err)
	readBack(t, c, content, testUnit, testUnit)
	_, err = c.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, syscall.EHOSTUNREACH)
	back.Store(&wrong)
	c.tried = time.Time{}
	_, err = c.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, ErrOriginChanged)
	back.Store(&right)
	c.tried = time.Time{}
	require.NoError(t, c.Fill(t.Context()))
	require.True(t, c.Usage().Full)
	require.NoError(t, c.Close())

	c, err = OpenCache(t.Context(), dir, unreachable, nil)
	require.NoError(t, err)
	readBack(t, c, content, 0, int64(len(content)))
	require.NoError(t, c.Close())
}

func TestCacheRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	base := &slowBase{bytesBase: randomBytes(4, 3*testUnit)}
	c, err := OpenCache(t.Context(), dir, base.as("a"), cacheOpts())
	require.NoError(t, err)
	readBack(t, c, base.bytesBase, 2*testUnit, 1)
	require.NoError(t, c.Close())
	refused := func(dir string, base *slowBase, id string, opts *CacheOptions) {
		t.Helper()
		_, err := OpenCache(t.Context(), dir, base.as(id), opts)
		require.ErrorIs(t, err, fs.ErrInvalid)
	}
	refused(dir, base, "b", nil)
	refused(dir, &slowBase{bytesBase: make([]byte, 100)}, "a", nil)
	refused(t.TempDir(), base, "", nil)
	refused(t.TempDir(), base, "a", &CacheOptions{Unit: 100000})
	require.NoError(t, os.Truncate(filepath.Join(dir, "data"), testUnit))
	refused(dir, base, "a", nil)
	require.NoError(t, os.Truncate(filepath.Join(dir, "map"), 4097))
	refused(dir, base, "a", nil)
	require.NoError(t, os.Remove(filepath.Join(dir, "map")))
	refused(dir, base, "a", nil)

	over := filepath.Join(t.TempDir(), "overlay")
	o, err := OpenOverlay(base, over, "a")
	require.NoError(t, err)
	require.NoError(t, o.Close())
	refused(over, base, "a", nil)
}

// openCrashCache opens a cache in a recorded directory.
func openCrashCache(d overlayDir, base *slowBase) (*Cache, error) {
	c := &Cache{open: base.as("a"), flights: make(map[int64]*flight), opts: *cacheOpts()}
	return c, c.openIn(context.Background(), d)
}

func (c *Cache) stop() {
	c.cancel()
	c.wg.Wait()
}

// crashCache replays every prefix of what a cache does to its disk, cut as a loss
// of power may: it opens, serves no wrong byte, and has all that a Sync made last.
func crashCache(t *testing.T, skip string, sites map[string]bool) error {
	content := randomBytes(5, 8*testUnit+300)
	for i := range content {
		content[i] |= 1 // a hole is wrong
	}
	for seed := range uint64(4) {
		d := newCrashDir()
		d.skip, d.phase = skip, "work"
		base := &slowBase{bytesBase: content}
		c, err := openCrashCache(d, base)
		require.NoError(t, err)
		rng := rand.New(rand.NewPCG(seed, 9))
		for range 12 {
			if rng.IntN(3) == 0 {
				require.NoError(t, c.Sync())
				d.record(crashOp{kind: "kept", off: c.Usage().Kept})
			}
			readBack(t, c, content, rng.Int64N(9)*testUnit, 1)
		}
		c.stop()
		if sites != nil {
			maps.Copy(sites, d.sites)
		}
		kept := int64(0)
		for try := range 4 * (len(d.log) + 1) {
			n := try / 4
			if n > 0 && d.log[n-1].kind == "kept" {
				kept = d.log[n-1].off
			}
			left := d.after(n, rng)
			again, err := openCrashCache(left, base)
			if err != nil {
				return err
			}
			if got := again.Usage().Kept; got < kept {
				err = fmt.Errorf("%d bytes are kept, %d were", got, kept)
			}
			p := make([]byte, testUnit)
			for off := 0; off < len(content) && err == nil; off += testUnit {
				// One unit each: the recorder is for one goroutine.
				want := content[off:min(off+testUnit, len(content))]
				_, err = again.ReadAt(p[:len(want)], int64(off))
				if err == nil && !bytes.Equal(want, p[:len(want)]) {
					err = errors.New("wrong data")
				}
			}
			again.stop()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// TestCacheSurvivesPowerLoss proves the order of writes and syncs, and that each
// sync is needed.
func TestCacheSurvivesPowerLoss(t *testing.T) {
	seen := make(map[string]bool)
	require.NoError(t, crashCache(t, "", seen))
	for _, at := range syncSites(t, "cache_store.go", "sync") {
		require.True(t, seen[at], at)
		err := crashCache(t, at, nil)
		require.Error(t, err, "the sync at %s is not needed, or the test does not see it", at)
		t.Log(at, err)
	}
}

// TestCacheDiskFaults: a disk that is full or broken costs speed, not data.
func TestCacheDiskFaults(t *testing.T) {
	content := randomBytes(6, 4*testUnit)
	base := &slowBase{bytesBase: content}
	d := &faultDir{newCrashDir(), map[string]error{}}
	c, err := openCrashCache(d, base)
	require.NoError(t, err)
	defer c.stop()
	readBack(t, c, content, 0, 1)
	require.NoError(t, c.Sync())

	d.fail["write data"] = syscall.ENOSPC
	readBack(t, c, content, testUnit, 1)
	require.EqualValues(t, testUnit, c.Usage().Kept)
	before := base.bytes.Load()
	for range 1000 {
		readBack(t, c, content, testUnit+7, 3)
	}
	require.Less(t, base.bytes.Load()-before, int64(100*testUnit), "each read of what cannot be kept is one of a whole unit")
	clear(d.fail)
	require.Eventually(t, func() bool {
		readBack(t, c, content, testUnit, 1)
		return c.Usage().Kept == 2*testUnit
	}, 20*time.Second, time.Millisecond, "it is tried again")

	d.fail["read data"] = syscall.EIO
	readBack(t, c, content, testUnit, testUnit)
	clear(d.fail)
	readBack(t, c, content, testUnit, testUnit)
	require.EqualValues(t, 2*testUnit, c.Usage().Kept, "what could not be read is kept anew")
	d.fail["read data"] = syscall.EIO
	before = base.bytes.Load()
	for range 1000 {
		readBack(t, c, content, testUnit+7, 3)
	}
	require.Less(t, base.bytes.Load()-before, int64(100*testUnit), "each read of what cannot be read is one of a whole unit")
	clear(d.fail)
	require.Eventually(t, func() bool {
		readBack(t, c, content, testUnit, 1)
		return c.Usage().Kept == 2*testUnit
	}, 20*time.Second, time.Millisecond, "it is kept again")

	d.fail["sync data"] = syscall.EIO
	require.ErrorIs(t, c.Sync(), syscall.EIO)
	require.EqualValues(t, testUnit, c.Usage().Kept, "nobody knows whether the second unit is there")
	clear(d.fail)
	for off := range int64(4) {
		readBack(t, c, content, off*testUnit, testUnit)
	}
	require.ErrorIs(t, c.Sync(), syscall.EIO)
}

func FuzzCacheMap(f *testing.F) {
	h := cacheHeader{unit: testUnit, size: 100 * testUnit, id: "a"}
	whole := append(h.encode(), make([]byte, cachePage)...)
	f.Add(whole)
	f.Add(whole[:100])
	f.Add(append(bytes.Clone(whole[:cachePage]), bytes.Repeat([]byte{255}, cachePage)...))
	f.Add(cacheHeader{unit: 1, size: -1, id: "a"}.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > 1<<20 {
			return
		}
		d := newCrashDir()
		m, err := d.open(cacheMapName, true)
		require.NoError(t, err)
		if len(p) >= cachePage { // past the checksum
			p = bytes.Clone(p)
			sum := cacheSum(p)
			p[cachePage-4], p[cachePage-3], p[cachePage-2], p[cachePage-1] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		}
		_, _ = m.WriteAt(p, 0)
		s := &cacheStore{dir: d}
		if found, err := s.load(); err == nil {
			require.True(t, found)
			require.NoError(t, s.head.check())
			require.True(t, s.missing.Load() >= 0)
		}
	})
}

func BenchmarkCacheHit(b *testing.B) {
	base := &slowBase{bytesBase: make([]byte, 4*testUnit)}
	c, err := OpenCache(b.Context(), b.TempDir(), base.as("a"), cacheOpts())
	require.NoError(b, err)
	defer c.Close()
	p := make([]byte, 4096)
	b.ReportAllocs()
	b.SetBytes(4096)
	for i := range b.N {
		if _, err := c.ReadAt(p, int64(i%64)*4096); err != nil {
			b.Fatal(err)
		}
	}
}
