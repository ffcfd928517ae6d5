package nbd

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

// Map implements [Mapper]. It does not allocate, but for dst.
func (o *Overlay) Map(off, n int64, dst []Segment) ([]Segment, error) {
	if err := o.checkRange(off, n); err != nil {
		return dst, err
	}
	o.life.RLock()
	defer o.life.RUnlock()
	if o.ended != nil {
		return dst, o.ended
	}
	base, ok := o.base.(Mapper)
	if !ok {
		return dst, errNotMapped
	}
	old := len(dst)
	for end := off + n; off < end; {
		next := min(end, (off/chunkBytes+1)*chunkBytes)
		var err error
		if dst, err = o.mapChunk(base, off, next, dst); err != nil {
			releaseSegments(dst[old:])
			return dst[:old], err
		}
		off = next
	}
	return dst, nil
}

// mapChunk maps a range inside one chunk. A block that is written from now on
// is seen as it was or as it becomes: in the base, which does not change, or
// in the store, where it has one place.
func (o *Overlay) mapChunk(base Mapper, off, end int64, dst []Segment) (_ []Segment, err error) {
	chunk := off / chunkBytes
	lock := &o.stripes[chunk%overlayStripe]
	lock.RLock()
	defer lock.RUnlock()
	data, zero := o.store.state(chunk)
	for off < end {
		block := off % chunkBytes / overlayBlock
		word := ^(data | zero)
		switch bit := uint64(1) << block; {
		case data&bit != 0:
			word = data
		case zero&bit != 0:
			word = zero
		}
		run := int64(bits.TrailingZeros64(^(word >> block)))
		n := min(end, off-off%overlayBlock+run*overlayBlock) - off
		switch word {
		case data:
			dst, err = o.store.segments(off, n, dst)
		case zero:
			dst = append(dst, Segment{Zeroes: n})
		default:
			if dst, err = base.Map(off, n, dst); err != nil {
				err = fmt.Errorf("nbd: overlay: mapping %d bytes at %d of the base: %w", n, off, err)
			}
		}
		if err != nil {
			return dst, err
		}
		off += n
	}
	return dst, nil
}

// fileMap maps a store's file when that is first wanted. A sparse file needs
// no more than addresses for what is not in it.
type fileMap struct {
	m      atomic.Pointer[Mapping]
	mu     sync.Mutex
	failed atomic.Bool
}

func (f *fileMap) get(file overlayFile, size int64) *Mapping {
	if m := f.m.Load(); m != nil || f.failed.Load() {
		return m
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m.Load() == nil {
		mapper, ok := file.(interface {
			mapped(n int64) (*Mapping, error)
		})
		if ok {
			if m, err := mapper.mapped(size); err == nil {
				f.m.Store(m)
			}
		}
		f.failed.Store(f.m.Load() == nil)
	}
	return f.m.Load()
}

// drop takes the file out of memory; nobody may be in get.
func (f *fileMap) drop() {
	if m := f.m.Swap(nil); m != nil {
		_ = m.Close()
	}
}

func (s *fileStore) segments(off, n int64, dst []Segment) ([]Segment, error) {
	m := s.mapped.get(s.data, s.baseSize)
	if m == nil {
		return dst, errNotMapped
	}
	seg, ok := m.Segment(off, n)
	if !ok {
		return dst, errNotMapped
	}
	return append(dst, seg), nil
}

var _ Mapper = (*Overlay)(nil)
