package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// CacheBase opens what a [Cache] is over. id identifies the content, best by a
// digest (1 to 128 bytes): the same id is the same bytes, for ever. The Cache
// closes the device, if it is an [io.Closer].
type CacheBase func(ctx context.Context) (dev Device, id string, err error)

// CacheOptions are options of [OpenCache]; nil is the zero value.
type CacheOptions struct {
	// Unit is how many bytes are fetched and kept at once: a power of two from
	// 64 KiB to 32 MiB; 0 is 256 KiB. A cache that is there keeps its own.
	Unit int
	// Fetches is how many units may be on their way from the base at once;
	// 0 is 8. Each takes Unit bytes of memory. There is no "none": less than
	// 1 is 1.
	Fetches int
	// Readahead is how far ahead of a sequential reader units are fetched, in
	// bytes, and as far as that has read; 0 is 4 MiB, a negative value is not at
	// all. It uses at most half of the Fetches.
	Readahead int64
	// Logger gets a Warn record when the base is out of reach and when the
	// cache's own disk fails; nil is slog.Default().
	Logger *slog.Logger
}

// Cache is a read-only [Device] over a slow one, as an [HTTPDevice] far away,
// that keeps on its own disk what it has read. Units that several readers want
// are fetched once. It may be used concurrently: give all clients the same, by
// [Share].
//
// What is kept outlives the process and a loss of power (but for the last ten
// seconds' units, which are fetched again). When the base is out of reach, what
// is kept is served all the same; the rest fails, and the base is tried again.
// When all is kept the base is not needed any more. When the cache's disk is
// full or fails, reads go to the base, for what they need.
//
// The least that is fetched is a unit, for a read of one byte too, and once a
// reader goes on where it was, as much ahead of it as it has asked for, rounded up
// to a unit. All that clients can make the base read, in whatever way they read, is
// its content once, and of a unit that cannot be kept one more each second.
//
// A cache never gives up what it has kept: it grows to the size of its base, of
// one content, and no further. Leave that much room on its disk; when a content
// is not served any more, remove its directory.
//
// Its Features are those of a device that can be read and can be told what will
// be; the base's other abilities are masked.
type Cache struct {
	opts  CacheOptions
	open  CacheBase
	store *cacheStore
	size  int64
	unit  int64

	baseMu  sync.Mutex // held while the base is being opened
	base    Device
	baseErr error // why it could not be
	tried   time.Time

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	life   sync.RWMutex // held shared by ReadAt
	closed bool
	wg     sync.WaitGroup // goroutines, each ends with its fetch or with ctx

	flightMu sync.Mutex
	flights  map[int64]*flight
	fetches  int
	slots    *semaphore.Weighted
	ahead    *semaphore.Weighted
	bufs     sync.Pool
	streams  streams
	warned   atomic.Bool
	unkept   atomic.Int64 // when a unit could not be kept, in ns since 1970; 0: the last one could
	unread   atomic.Int64 // when one that was kept could not be read

	hits, misses atomic.Uint64
}

// cacheSyncEvery is how often what was fetched is made to last.
const cacheSyncEvery = 10 * time.Second

// OpenCache opens the cache in the directory dir, or makes an empty one there.
// The directory belongs to the cache alone; its parent must exist. It asks base
// for a device: when it gets an error, and there is a cache, that is served as
// far as it goes. A cache of other content than base's, by id or size, is
// refused with an error that wraps [fs.ErrInvalid]: give each content a
// directory of its own, or remove the old one. ctx is for the opening only.
//
// On Linux a cache that another process has open is refused.
func OpenCache(ctx context.Context, dir string, base CacheBase, opts *CacheOptions) (*Cache, error) {
	c := &Cache{open: base, flights: make(map[int64]*flight)}
	if opts != nil {
		c.opts = *opts
	}
	d, err := disk{}.openOverlayDir(dir)
	if err == nil {
		if err = c.openIn(ctx, d); err != nil {
			err = errors.Join(err, d.close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("nbd: cache %s: %w", dir, err)
	}
	return c, nil
}

func (c *Cache) openIn(ctx context.Context, d overlayDir) error {
	unit := c.opts.Unit
	if unit == 0 {
		unit = 256 << 10
	}
	if err := checkUnit(int64(unit)); err != nil {
		return err
	}
	c.store = &cacheStore{dir: d}
	found, err := c.store.load()
	if err != nil {
		return errors.Join(err, c.store.close())
	}
	dev, id, err := c.open(ctx)
	switch {
	case err != nil && !found:
		return errors.Join(err, c.store.close())
	case err != nil:
		c.baseErr, c.tried = err, time.Now()
		c.log().Warn("nbd: a cache's base is out of reach, what is kept of it is served", "err", err)
	case !found:
		err = c.store.create(cacheHeader{unit: int64(unit), size: dev.Size(), id: id})
	default:
		err = c.store.fits(dev, id)
	}
	if c.baseErr == nil && err != nil {
		return errors.Join(err, closeBase(dev), c.store.close())
	}
	c.base = dev
	if c.baseErr != nil {
		c.base = nil
	}
	c.size, c.unit = c.store.head.size, c.store.head.unit
	c.fetches = max(limit(c.opts.Fetches, 8, 1), 1)
	c.slots = semaphore.NewWeighted(int64(c.fetches))
	c.ahead = semaphore.NewWeighted(int64(max(c.fetches/2, 1)))
	c.bufs.New = func() any { p := make([]byte, c.unit); return &p }
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wg.Go(c.keepSynced)
	return nil
}

func closeBase(dev Device) error {
	if cl, ok := dev.(io.Closer); ok {
		return cl.Close()
	}
	return nil
}

func (c *Cache) log() *slog.Logger {
	if c.opts.Logger != nil {
		return c.opts.Logger
	}
	return slog.Default()
}

// Size returns the base's size in bytes.
func (c *Cache) Size() int64 { return c.size }

// Features: a Cache can be read, and told what will be.
func (c *Cache) Features() Features { return Features{Cache: true, Slow: true, MultiConn: true} }

var errCacheClosed = fmt.Errorf("nbd: cache: %w", fs.ErrClosed)

// ReadAt reads as [io.ReaderAt] says.
func (c *Cache) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("nbd: cache: a read at %d: %w", off, fs.ErrInvalid)
	}
	if off >= c.size {
		return 0, io.EOF
	}
	var tail error
	if int64(len(p)) > c.size-off {
		p, tail = p[:c.size-off], io.EOF
	}
	c.life.RLock()
	defer c.life.RUnlock()
	if c.closed {
		return 0, errCacheClosed
	}
	if c.store.missing.Load() > 0 {
		c.plan(off, off+int64(len(p)))
	}
	for n := 0; n < len(p); {
		pos := off + int64(n)
		part := p[n : n+int(min(int64(len(p)-n), c.unit-pos%c.unit))]
		if err := c.readUnit(part, pos); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), tail
}

// Cache implements [Cacher]: it begins to fetch the start of the range, as far
// as Readahead goes, and does not wait.
func (c *Cache) Cache(off, n int64) error {
	c.life.RLock()
	defer c.life.RUnlock()
	if c.closed {
		return errCacheClosed
	}
	if n > 0 {
		c.prefetch(off, off+min(n, c.readahead()))
	}
	return nil
}

// Fill fetches all that is not there yet, several units at once, and makes it
// last: after that the cache does without its base. It returns the first
// error, or ctx's.
func (c *Cache) Fill(ctx context.Context) error {
	for u := range c.store.units() {
		if c.store.present(u) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		off := u * c.unit
		c.life.RLock()
		err := errCacheClosed
		if !c.closed {
			c.prefetch(off, min(off+int64(c.fetches)*c.unit, c.size))
			var one [1]byte
			err = c.readUnit(one[:], off)
		}
		c.life.RUnlock()
		if err != nil {
			return err
		}
	}
	if left := c.store.missing.Load(); left > 0 {
		return fmt.Errorf("nbd: cache: %d units could not be kept: make room on its disk, then open it again", left)
	}
	return c.store.sync()
}

// CacheUsage says what a [Cache] holds and has done.
type CacheUsage struct {
	Kept   int64  // bytes on the cache's disk, in whole units
	Size   int64  // bytes of the device
	Full   bool   // nothing is missing
	Hits   uint64 // units that reads found
	Misses uint64 // units that reads had to wait for
}

// Usage returns what the cache holds now.
func (c *Cache) Usage() CacheUsage {
	missing := c.store.missing.Load()
	return CacheUsage{
		Kept: min((c.store.units()-missing)*c.unit, c.size), Size: c.size, Full: missing == 0,
		Hits: c.hits.Load(), Misses: c.misses.Load(),
	}
}

// Sync makes what is kept by now last, beyond a loss of power.
func (c *Cache) Sync() error {
	c.life.RLock()
	defer c.life.RUnlock()
	if c.closed {
		return errCacheClosed
	}
	return c.store.sync()
}

func (c *Cache) keepSynced() {
	t := time.NewTicker(cacheSyncEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := c.store.sync(); err != nil {
				c.warnDisk(err)
			}
		case <-c.ctx.Done():
			return
		}
	}
}

// warnDisk says once that the cache's own disk fails.
func (c *Cache) warnDisk(err error) {
	if !c.warned.Swap(true) {
		c.log().Warn("nbd: a cache's disk fails or is full, what it cannot keep is read from the base each time", "err", err)
	}
}

// Close ends reads under way, makes what is kept last, and closes the files
// and the base.
func (c *Cache) Close() error {
	c.cancel()
	c.baseMu.Lock() // ends an opening, by ctx; none is begun after it
	base := c.base
	c.baseMu.Unlock()
	if a, ok := base.(interface{ abort() }); ok {
		a.abort() // an origin may take minutes to give up
	}
	c.life.Lock()
	defer c.life.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.wg.Wait()
	err := errors.Join(c.store.sync(), c.store.close(), c.store.dir.close())
	if base != nil {
		err = errors.Join(err, closeBase(base))
	}
	return err
}

var (
	_ Cacher    = (*Cache)(nil)
	_ io.Closer = (*Cache)(nil)
)
