package nbd

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
)

// Trim implements [Trimmer]: blocks that lie in the range whole give their
// space back, to the quota as well, and read as zeroes from now on, whatever
// the base has there. Parts of blocks stay as they are. A flush makes it
// durable as it does a write.
func (o *Overlay) Trim(off, n int64) error {
	if err := o.checkRange(off, n); err != nil {
		return err
	}
	end := off + n
	off = (off + overlayBlock - 1) / overlayBlock * overlayBlock
	if end < o.size {
		end = end / overlayBlock * overlayBlock
	}
	return o.zeroRange(off, end)
}

// Zero implements [Zeroer]. Whole blocks take no space and, without
// ZeroNoHole, give back what they had; parts of blocks are written. With
// ZeroNoHole all of it is written, which is not fast.
func (o *Overlay) Zero(off, n int64, flags ZeroFlags) error {
	if err := o.checkRange(off, n); err != nil {
		return err
	}
	switch {
	case flags&ZeroNoHole == 0:
		return o.zeroRange(off, off+n)
	case flags&ZeroFast != 0:
		return fmt.Errorf("nbd: overlay: zeroes that take space must be written: %w", errors.ErrUnsupported)
	}
	zeroes := make([]byte, min(n, chunkBytes))
	for end := off + n; off < end; {
		m, err := o.WriteAt(zeroes[:min(end-off, chunkBytes-off%chunkBytes, int64(len(zeroes)))], off)
		if err != nil {
			return err
		}
		off += int64(m)
	}
	return nil
}

func (o *Overlay) checkRange(off, n int64) error {
	if off < 0 || n < 0 || off > o.size || n > o.size-off {
		return fmt.Errorf("nbd: overlay: %d bytes at %d are not within its %d: %w", n, off, o.size, fs.ErrInvalid)
	}
	return nil
}

func (o *Overlay) zeroRange(off, end int64) error {
	if err := o.change(); err != nil {
		return err
	}
	defer o.changed()
	for off < end {
		next := min(end, (off/chunkBytes+1)*chunkBytes)
		if err := o.zeroChunk(off, next); err != nil {
			return err
		}
		off = next
	}
	return nil
}

// zeroChunk makes a range inside one chunk zeroes.
func (o *Overlay) zeroChunk(off, end int64) error {
	chunk := off / chunkBytes
	lock := &o.stripes[chunk%overlayStripe]
	lock.Lock()
	defer lock.Unlock()
	var whole uint64
	for off < end {
		start := off - off%overlayBlock
		next := min(end, start+overlayBlock)
		bit := uint64(1) << (start % chunkBytes / overlayBlock)
		if off == start && (next == start+overlayBlock || next == o.size) {
			whole |= bit
		} else if _, zero := o.store.state(chunk); zero&bit == 0 {
			var zeroes [overlayBlock]byte
			if _, err := o.writeLocked(zeroes[:next-off], off); err != nil {
				return err
			}
		}
		off = next
	}
	data, _ := o.store.state(chunk)
	if whole == 0 {
		return nil
	}
	if err := o.store.zero(chunk, whole); err != nil {
		return err
	}
	o.used.Add(-int64(bits.OnesCount64(data & whole)))
	return nil
}

// extentChunks bounds how much of the map one call of Extents looks at.
const extentChunks = 1 << 16

// Extents implements [Extenter]: what was trimmed or zeroed is a hole, what
// was written is data, and elsewhere it is what the base says.
func (o *Overlay) Extents(off, n int64, dst []Extent) (int, error) {
	if err := o.checkRange(off, n); err != nil {
		return 0, err
	}
	o.life.RLock()
	defer o.life.RUnlock()
	if o.ended != nil {
		return 0, o.ended
	}
	base, _ := o.base.(Extenter)
	if !FeaturesOf(o.base).Extents {
		base = nil
	}
	list := dst[:0]
	for end, looked := off+n, 0; off < end && len(list) < len(dst) && looked < extentChunks; looked++ {
		chunk := off / chunkBytes
		lock := &o.stripes[chunk%overlayStripe]
		lock.RLock()
		data, zero := o.store.state(chunk)
		lock.RUnlock()
		for stop := min(end, (chunk+1)*chunkBytes); off < stop && len(list) < len(dst); {
			block := off % chunkBytes / overlayBlock
			word, e := ^(data | zero), Extent{}
			switch bit := uint64(1) << block; {
			case data&bit != 0:
				word = data
			case zero&bit != 0:
				word, e = zero, Extent{Hole: true, Zero: true}
			case base != nil:
				run := bits.TrailingZeros64(^(word >> block))
				length := min(stop, off-off%overlayBlock+int64(run)*overlayBlock) - off
				m, err := base.Extents(off, length, dst[len(list):])
				if err != nil || m <= 0 {
					return 0, errors.Join(err, errNoExtents(m))
				}
				for _, e := range dst[len(list) : len(list)+m] {
					off += e.Length
					list = appendExtent(list, e)
				}
				continue
			}
			run := bits.TrailingZeros64(^(word >> block))
			e.Length = min(stop, off-off%overlayBlock+int64(run)*overlayBlock) - off
			off += e.Length
			list = appendExtent(list, e)
		}
	}
	return len(list), nil
}

func errNoExtents(n int) error {
	if n > 0 {
		return nil
	}
	return errors.New("nbd: overlay: its base says nothing about a part of itself")
}

// appendExtent adds e, to the last one when it is of its kind.
func appendExtent(list []Extent, e Extent) []Extent {
	if k := len(list) - 1; k >= 0 && list[k].Hole == e.Hole && list[k].Zero == e.Zero {
		list[k].Length += e.Length
		return list
	}
	return append(list, e)
}

var (
	_ Trimmer  = (*Overlay)(nil)
	_ Zeroer   = (*Overlay)(nil)
	_ Extenter = (*Overlay)(nil)
)
