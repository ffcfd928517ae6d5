package squash

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// cache holds decoded pieces by their offset in the image, the least recently
// used going first when they exceed a number of bytes. Goroutines that miss
// the same piece wait for one of them to decode it.
type cache struct {
	max   int
	whole int // pieces with memory of this size are lent, see release; 0: none

	mu   sync.Mutex
	size int
	m    map[int64]*list.Element // of *cached
	lru  list.List               // front: used last
	free [][]byte                // memory of pieces that are gone
}

// cached is one piece: set once, then read only.
type cached struct {
	off   int64
	ready atomic.Bool
	mu    sync.Mutex // held by the goroutine that decodes
	data  []byte
	next  int64 // for metadata, the offset of the piece that follows

	// Guarded by the cache's lock.
	users int  // between get and release
	gone  bool // no longer in the cache
}

// entryCost is counted for each piece besides its bytes, so that an image of
// tiny pieces does not fill the memory with bookkeeping.
const entryCost = 256

// entry returns the piece at off, which may not be decoded yet.
func (c *cache) entry(off int64) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.m[off]; el != nil {
		c.lru.MoveToFront(el)
		e := el.Value.(*cached)
		e.users++
		return e
	}
	if c.m == nil {
		c.m = make(map[int64]*list.Element)
	}
	e := &cached{off: off, users: 1}
	c.m[off] = c.lru.PushFront(e)
	return e
}

// room lends memory for a piece.
func (c *cache) room(size int) []byte {
	if size < c.whole/2 || size > c.whole-slack {
		return make([]byte, 0, size+slack)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.free); n > 0 {
		b := c.free[n-1]
		c.free = c.free[:n-1]
		return b[:0]
	}
	return make([]byte, 0, c.whole)
}

// release says that the piece is not looked at any more. Only a cache that
// lends memory needs that.
func (c *cache) release(e *cached) {
	if c.whole == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	c.reuse(e)
}

// reuse takes the memory back when nobody can see the piece any more.
func (c *cache) reuse(e *cached) {
	const spare = 4
	if e.gone && e.users == 0 && c.whole > 0 && cap(e.data) == c.whole && len(c.free) < spare {
		c.free = append(c.free, e.data)
		e.data = nil
	}
}

// drop takes a piece out of the cache.
func (c *cache) drop(el *list.Element) {
	e := el.Value.(*cached)
	c.lru.Remove(el)
	delete(c.m, e.off)
	e.gone = true
	c.reuse(e)
}

// get returns the decoded piece, calling load for it when it is not there. A
// piece that cannot be decoded is not kept.
func (c *cache) get(off int64, load func(e *cached) error) (*cached, error) {
	e := c.entry(off)
	if e.ready.Load() {
		return e, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ready.Load() {
		return e, nil
	}
	err := load(e)

	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.m[off]
	mine := el != nil && el.Value.(*cached) == e
	if err != nil {
		if mine {
			c.drop(el)
		}
		return nil, err
	}
	e.ready.Store(true)
	if !mine { // removed by another goroutine's failure
		return e, nil
	}
	c.size += cap(e.data) + entryCost
	for el := c.lru.Back(); c.size > c.max && el != nil; {
		prev := el.Prev()
		if old := el.Value.(*cached); old != e && old.ready.Load() {
			c.size -= cap(old.data) + entryCost
			c.drop(el)
		}
		el = prev
	}
	return e, nil
}
