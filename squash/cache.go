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
	max int

	mu   sync.Mutex
	size int
	m    map[int64]*list.Element // of *cached
	lru  list.List               // front: used last
}

// cached is one piece: set once, then read only.
type cached struct {
	off   int64
	ready atomic.Bool
	mu    sync.Mutex // held by the goroutine that decodes
	data  []byte
	next  int64 // for metadata, the offset of the piece that follows
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
		return el.Value.(*cached)
	}
	if c.m == nil {
		c.m = make(map[int64]*list.Element)
	}
	e := &cached{off: off}
	c.m[off] = c.lru.PushFront(e)
	return e
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
			c.lru.Remove(el)
			delete(c.m, off)
		}
		return nil, err
	}
	e.ready.Store(true)
	if !mine { // removed by another goroutine's failure
		return e, nil
	}
	c.size += len(e.data) + entryCost
	for el := c.lru.Back(); c.size > c.max && el != nil; {
		prev := el.Prev()
		if old := el.Value.(*cached); old != e && old.ready.Load() {
			c.size -= len(old.data) + entryCost
			c.lru.Remove(el)
			delete(c.m, old.off)
		}
		el = prev
	}
	return e, nil
}
