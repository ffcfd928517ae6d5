package nbd

import (
	"fmt"
	"io/fs"
	"math/bits"
	"sync"
	"syscall"
)

// WriteAt implements [io.WriterAt]. It never changes the size: a write past
// the end fails whole with [syscall.ENOSPC]. When it fails half-way the bytes
// counted are written and each block after them is as it was, or, where it
// was stored before, may hold a part of the new bytes, as on a disk.
func (o *Overlay) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("nbd: overlay: write at offset %d: %w", off, fs.ErrInvalid)
	}
	if off > o.size || int64(len(p)) > o.size-off {
		return 0, fmt.Errorf("nbd: overlay: write of %d bytes at %d goes past the end at %d: %w", len(p), off, o.size, syscall.ENOSPC)
	}
	if err := o.change(); err != nil {
		return 0, err
	}
	defer o.changed()
	for n := 0; n < len(p); {
		part := chunkPart(p[n:], off+int64(n))
		m, err := o.writeChunk(part, off+int64(n))
		n += m
		if err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// change begins something that changes the overlay; unless it fails the
// caller must call changed.
func (o *Overlay) change() error {
	o.life.RLock()
	o.writes.RLock()
	if err := o.ended; err != nil {
		o.changed()
		return err
	}
	return nil
}

func (o *Overlay) changed() {
	o.writes.RUnlock()
	o.life.RUnlock()
}

// writeChunk writes p, which lies inside one chunk: the blocks that p covers
// whole, and those that are stored already, as long runs; a block of which p
// is only a part and that is not stored yet is first filled up from the base.
func (o *Overlay) writeChunk(p []byte, off int64) (int, error) {
	chunk := off / chunkBytes
	lock := &o.stripes[chunk%overlayStripe]
	lock.Lock()
	defer lock.Unlock()
	return o.writeLocked(p, off)
}

func (o *Overlay) writeLocked(p []byte, off int64) (int, error) {
	word, _ := o.store.state(off / chunkBytes)
	for n := 0; n < len(p); {
		pos := off + int64(n)
		block := pos % chunkBytes / overlayBlock
		head := pos % overlayBlock
		if word>>block&1 == 0 && (head != 0 || o.partial(len(p)-n, pos)) {
			length := min(int64(len(p)-n), overlayBlock-head)
			if err := o.fill(p[n:n+int(length)], pos); err != nil {
				return n, err
			}
			n += int(length)
			continue
		}
		length, fresh := o.plainRun(len(p)-n, pos, word)
		if err := o.put(p[n:n+int(length)], pos, fresh); err != nil {
			return n, err
		}
		n += int(length)
	}
	return len(p), nil
}

// partial reports whether n bytes at the block-aligned pos cover less than the
// block there. The last block of the base may be short: covered to the end of
// the base is covered whole.
func (o *Overlay) partial(n int, pos int64) bool {
	return int64(n) < min(overlayBlock, o.size-pos)
}

// plainRun returns how many of the n bytes at pos can be written as they are,
// and the bits of the blocks among them that are new.
func (o *Overlay) plainRun(n int, pos int64, word uint64) (length int64, fresh uint64) {
	for length < int64(n) {
		at := pos + length
		bit := uint64(1) << (at % chunkBytes / overlayBlock)
		if word&bit == 0 {
			if at%overlayBlock != 0 || o.partial(n-int(length), at) {
				break
			}
			fresh |= bit
		}
		length += min(int64(n)-length, overlayBlock-at%overlayBlock)
	}
	return length, fresh
}

// put stores p, whose new blocks are fresh. Only when the bytes are in the
// store do the blocks become present.
func (o *Overlay) put(p []byte, pos int64, fresh uint64) error {
	if fresh != 0 {
		if err := o.reserve(int64(bits.OnesCount64(fresh))); err != nil {
			return err
		}
	}
	if err := o.store.write(p, pos); err != nil {
		o.used.Add(-int64(bits.OnesCount64(fresh)))
		return err
	}
	if fresh != 0 {
		o.store.mark(pos/chunkBytes, fresh)
	}
	return nil
}

var blockPool = sync.Pool{New: func() any { return new([overlayBlock]byte) }}

// fill merges p, a part of one block at pos, with what the block holds, which
// is not stored, and stores it whole.
func (o *Overlay) fill(p []byte, pos int64) error {
	buf := blockPool.Get().(*[overlayBlock]byte)
	defer blockPool.Put(buf)
	start := pos - pos%overlayBlock
	have := min(overlayBlock, o.size-start)
	bit := uint64(1) << (start % chunkBytes / overlayBlock)
	if _, zero := o.store.state(start / chunkBytes); zero&bit != 0 {
		clear(buf[:have])
	} else if err := readFullAt(o.base, buf[:have], start); err != nil {
		return err
	}
	clear(buf[have:])
	copy(buf[pos-start:], p)
	return o.put(buf[:have], start, bit)
}

func (o *Overlay) reserve(blocks int64) error {
	if used := o.used.Add(blocks); o.Quota > 0 && used*overlayBlock > o.Quota {
		o.used.Add(-blocks)
		return fmt.Errorf("nbd: overlay: its quota of %d bytes is used up: %w", o.Quota, syscall.ENOSPC)
	}
	return nil
}
