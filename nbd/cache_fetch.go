package nbd

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// flight is a unit on its way from the base. done is closed when it has come
// or failed.
type flight struct {
	done chan struct{}
	err  error
}

// readUnit fills p, which lies within one unit.
func (c *Cache) readUnit(p []byte, off int64) error {
	u := off / c.unit
	if c.store.present(u) {
		err := c.store.read(p, off)
		if err == nil {
			c.hits.Add(1)
			return nil
		}
		c.warnDisk(err)
		c.distrust(u)
	}
	c.misses.Add(1)
	f, mine := c.board(u)
	if f == nil { // it came in between
		return c.store.read(p, off)
	}
	if mine {
		return c.fly(u, f, p, off)
	}
	<-f.done
	switch {
	case f.err != nil:
		return f.err
	case c.store.present(u):
		return c.store.read(p, off)
	default: // it could not be kept
		return c.load(u, p, off)
	}
}

// board returns the flight of a unit and whether it is the caller's to make;
// nil when the unit is there.
func (c *Cache) board(u int64) (f *flight, mine bool) {
	c.flightMu.Lock()
	defer c.flightMu.Unlock()
	if f := c.flights[u]; f != nil {
		return f, false
	}
	if c.store.present(u) {
		return nil, false
	}
	f = &flight{done: make(chan struct{})}
	c.flights[u] = f
	return f, true
}

func (c *Cache) fly(u int64, f *flight, p []byte, off int64) error {
	f.err = c.load(u, p, off)
	c.flightMu.Lock()
	delete(c.flights, u)
	c.flightMu.Unlock()
	close(f.done)
	return f.err
}

// keepAgain is how long after a unit could not be kept nothing is: until then a
// read asks the base for no more than it needs, since it would do so each time.
const keepAgain = time.Second

// distrust forgets a unit that cannot be read, so that it is fetched and kept
// anew. When that happens again and again, nothing is for a while.
func (c *Cache) distrust(u int64) {
	c.store.distrust(u)
	now := time.Now().UnixNano()
	if now-c.unread.Swap(now) < int64(keepAgain) {
		c.unkept.Store(now)
	}
}

func (c *Cache) keeps() bool {
	failed := c.unkept.Load()
	return failed == 0 || time.Now().UnixNano()-failed > int64(keepAgain)
}

// load gets a unit from the base, keeps it, and copies p out of it.
func (c *Cache) load(u int64, p []byte, off int64) (err error) {
	defer recovered(&err)
	if err := c.slots.Acquire(c.ctx, 1); err != nil {
		return errCacheClosed
	}
	defer c.slots.Release(1)
	base, err := c.device()
	if err != nil {
		return err
	}
	if !c.keeps() {
		return readBase(base, p, off)
	}
	bp := c.bufs.Get().(*[]byte)
	defer c.bufs.Put(bp)
	start := u * c.unit
	buf := (*bp)[:min(c.unit, c.size-start)]
	if err := readBase(base, buf, start); err != nil {
		return err
	}
	if err := c.store.keep(u, buf); err != nil {
		c.unkept.Store(time.Now().UnixNano())
		c.warnDisk(err)
	} else {
		c.unkept.Store(0)
	}
	copy(p, buf[off-start:])
	return nil
}

func readBase(base Device, p []byte, off int64) error {
	n, err := base.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("nbd: cache: reading %d bytes at %d of the base: %w", len(p), off, err)
}

// device returns the base, and tries to open it if it was out of reach, at
// most once a second.
func (c *Cache) device() (Device, error) {
	c.baseMu.Lock()
	defer c.baseMu.Unlock()
	switch {
	case c.ctx.Err() != nil:
		return nil, errCacheClosed
	case c.base != nil:
		return c.base, nil
	case time.Since(c.tried) < time.Second:
		return nil, fmt.Errorf("nbd: cache: it is not kept and the base is out of reach: %w", c.baseErr)
	}
	dev, id, err := c.open(c.ctx)
	if err == nil {
		if err = c.store.fits(dev, id); err != nil {
			err = errors.Join(fmt.Errorf("%w: %w", ErrOriginChanged, err), closeBase(dev))
		}
	}
	c.tried = time.Now()
	if err != nil {
		c.baseErr = err
		return nil, fmt.Errorf("nbd: cache: it is not kept and the base is out of reach: %w", err)
	}
	c.base, c.baseErr = dev, nil
	return dev, nil
}

func (c *Cache) readahead() int64 { return limit(c.opts.Readahead, 4<<20, 0) }

// plan fetches what a read from off to end will want: the units of its own at
// the same time, and those after it if it goes on where one ended.
func (c *Cache) plan(off, end int64) {
	to := end
	if most := c.readahead(); most > 0 {
		to += c.streams.advance(off, end, c.unit, most)
	}
	if first := off/c.unit + 1; first*c.unit < to {
		c.prefetch(first*c.unit, min(to, c.size))
	}
}

// prefetch begins to fetch the units from off to end, as far as there are
// fetches free for what nobody waits for. The caller holds life.
func (c *Cache) prefetch(off, end int64) {
	if !c.keeps() {
		return
	}
	for u := off / c.unit; u*c.unit < end; u++ {
		if c.store.present(u) {
			continue
		}
		if !c.ahead.TryAcquire(1) {
			return
		}
		f, mine := c.board(u)
		if !mine {
			c.ahead.Release(1)
			continue
		}
		c.wg.Go(func() { // ends with the fetch, which Close cuts short
			defer c.ahead.Release(1)
			_ = c.fly(u, f, nil, u*c.unit)
		})
	}
}

// streams remembers where readers are, to tell the sequential ones.
type streams struct {
	mu    sync.Mutex
	known [16]stream
	clock uint64
}

type stream struct {
	next   int64 // where its last read ended
	asked  int64 // bytes, in all its reads
	window int64 // how far ahead of it is fetched
	used   uint64
}

// advance notes a read and returns how far ahead to fetch: nothing at first,
// then twice as much each time, up to most, and up to what it has asked for, in
// whole units: short reads here and there do not make the base read much. Requests of
// one reader may come out of order, by up to a unit.
func (s *streams) advance(off, end, unit, most int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	oldest := &s.known[0]
	for i := range s.known {
		k := &s.known[i]
		if k.used > 0 && off >= k.next-unit && off <= k.next+unit {
			k.asked += end - off
			if end > k.next {
				asked := (k.asked + unit - 1) / unit * unit
				k.next, k.window = end, min(max(2*k.window, unit), asked, most)
			}
			k.used = s.clock
			return k.window
		}
		if k.used < oldest.used {
			oldest = k
		}
	}
	*oldest = stream{next: end, asked: end - off, used: s.clock}
	return 0
}
