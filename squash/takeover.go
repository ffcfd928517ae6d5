package squash

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// taken is where the base has a file that is not read.
type taken struct {
	number        uint32
	frag, fragOff uint32
	wordPos       int32
	wordOff       int64
	start         int64
}

// unchanged returns what the base has of a file that need not be read: it is
// what it was, and cut into blocks in the same way.
func (x *base) unchanged(name string, ino *inode, blocks int64) *taken {
	if !x.times {
		return nil
	}
	size := int64(x.f.sb.BlockSize)
	n := x.find(name)
	if n == nil || n.size != ino.size || n.mtime != ino.mtime || n.blocks(size) != blocks || n.tail(size) != max(ino.size-blocks*size, 0) {
		return nil
	}
	return &taken{n.number, n.frag, n.fragOff, int32(n.wordPos), n.wordOff, n.start}
}

// node is as much of the inode in the base as reading the words takes.
func (t *taken) node(ino *inode) *node {
	return &node{kind: kindFile, size: ino.size, frag: t.frag, fragOff: t.fragOff, start: t.start, wordOff: t.wordOff, wordPos: int(t.wordPos)}
}

// hint is where a block may be in the base.
type hint struct {
	start int64
	word  uint32
}

// fragment is the hint for a fragment block, zero if it cannot be read.
func (x *base) fragment(i uint32) hint {
	if i >= x.f.sb.Fragments {
		return hint{}
	}
	start, word, err := x.f.fragment(i)
	if err != nil {
		return hint{}
	}
	return hint{start, word}
}

// origin is where a tail lies in the base.
type origin struct{ frag, off, n uint32 }

// part is a tail in a fragment block that is not read.
type part struct {
	origin
	at uint32 // in the new block
}

// whole says whether a fragment block has what one of the base begins with, in
// the same places.
func (b *block) whole() bool {
	var n uint32
	for _, p := range b.parts {
		if p.frag != b.parts[0].frag || p.off != p.at {
			return false
		}
		n += p.n
	}
	return n == uint32(b.n)
}

// tails shows what the base has of some tails, one after another.
func (x *base) tails(list []part, show func(p part, tail []byte)) error {
	for len(list) > 0 {
		frag := list[0].frag
		start, word, err := x.f.fragment(frag)
		if err != nil {
			return baseError(err)
		}
		e, err := x.f.cachedBlock(start, word, -1)
		if err != nil {
			return baseError(err)
		}
		for len(list) > 0 && list[0].frag == frag {
			p := list[0]
			if int64(p.off)+int64(p.n) > int64(len(e.data)) {
				x.f.blocks.release(e)
				return baseError(badFormat(start, "a tail of %d bytes at %d of a fragment block of %d", p.n, p.off, len(e.data)))
			}
			show(p, e.data[p.off:][:p.n])
			list = list[1:]
		}
		x.f.blocks.release(e)
	}
	return nil
}

// sum is the hash of a tail's content.
func (x *base) sum(o origin) (sum [sha256.Size]byte, err error) {
	err = x.tails([]part{{origin: o}}, func(_ part, tail []byte) { sum = sha256.Sum256(tail) })
	return sum, err
}

// copies says whether a block can go from the base into the image as it is,
// without being looked at. A fragment block of the base may go on where the new
// one ends.
func (x *base) copies(b *block) bool {
	h, size := b.hint, int64(b.hint.word&^rawBlock)
	switch {
	case b.ino != nil && b.ino.twin: // its bytes are hashed
		return false
	case h.word == 0:
		return b.ino != nil
	case h.start < superSize || h.start > int64(x.f.sb.Used)-size:
		return false
	case h.word&rawBlock != 0:
		return size == int64(b.n)
	case b.ino != nil || size >= int64(b.n):
		return size < int64(b.n)
	case x.f.sb.Compressor != compZstd:
		return false
	}
	head := x.head[:min(size, int64(len(x.head)))]
	var z zstd.Header
	return x.f.readAt(head, h.start, "data") == nil && z.Decode(head) == nil && z.HasFCS && z.FrameContentSize == uint64(b.n)
}

// take fills a block with what the base has stored for it, if it is as long.
func (x *base) take(b *block, enc Encoder) (bool, error) {
	if b.hint.word == 0 {
		b.zero = true
		return true, nil
	}
	if b.ino == nil || b.sample {
		raw, err := x.f.readBlock(b.room(int(x.f.sb.BlockSize))[:0], b.hint.start, b.hint.word, -1)
		if err != nil {
			return false, baseError(err)
		}
		if len(raw) != b.n && b.ino != nil {
			return false, baseError(badFormat(b.hint.start, "a block of %d bytes where %d belong", len(raw), b.n))
		}
		if len(raw) != b.n {
			return false, nil
		}
	}
	if err := x.stored(b); err != nil {
		return false, err
	}
	if !b.sample {
		return true, nil
	}
	return true, x.check(b, enc)
}

// fill puts the tails that were not read into their places.
func (x *base) fill(b *block) error {
	raw := b.room(int(x.f.sb.BlockSize))
	return x.tails(b.parts, func(p part, tail []byte) { copy(raw[p.at:], tail) })
}

// compare takes a block over if the base has the same content.
func (x *base) compare(b *block, enc Encoder) (same bool, err error) {
	if b.hint.word == 0 {
		return false, nil
	}
	want := b.n
	if b.ino == nil {
		want = -1
	}
	var data []byte
	if x.times && b.ino == nil { // tails in it may have been decoded
		var e *cached
		if e, err = x.f.cachedBlock(b.hint.start, b.hint.word, want); err == nil {
			defer x.f.blocks.release(e)
			data = e.data
		}
	} else {
		buf := x.f.buffer()
		defer x.f.scratch.Put(buf)
		data, err = x.f.readBlock((*buf)[:0], b.hint.start, b.hint.word, want)
	}
	if err != nil || !bytes.Equal(data, b.raw[:b.n]) {
		return false, nil // what is damaged is not taken over
	}
	if err := x.stored(b); err != nil {
		return false, err
	}
	if x.sample(b.hint, b.n) {
		return true, x.check(b, enc)
	}
	return true, nil
}

// stored reads a block as it is in the base.
func (x *base) stored(b *block) error {
	size := int64(b.hint.word &^ rawBlock)
	if size > int64(b.n) || size == int64(b.n) && b.hint.word&rawBlock == 0 || b.hint.start < superSize || b.hint.start > int64(x.f.sb.Used)-size {
		return errOtherBase("a block of %d bytes for %d", size, b.n)
	}
	b.out = slices.Grow(b.out[:0], int(size))[:size]
	if err := x.f.readAt(b.out, b.hint.start, "data"); err != nil {
		return baseError(err)
	}
	return nil
}

// sample says which of the blocks taken over to make sure of: the first ones
// and then one in so many bytes, for at high levels that takes most of the time.
// Those that were stored as they are tell little of a level, and holes nothing.
func (x *base) sample(h hint, n int) bool {
	const first, every = 128 << 10, 128 << 20
	if h.word == 0 {
		return false
	}
	reused := &x.packed
	if h.word&rawBlock != 0 {
		reused = &x.plain
	}
	sum := reused.Add(int64(n))
	return sum-int64(n) < first || sum%every < int64(n)
}

// check compresses a block to see whether the base was made with the same
// compressor and level, which an image does not say.
func (x *base) check(b *block, enc Encoder) error {
	out, err := enc.Encode(nil, b.raw[:b.n])
	if err != nil {
		return fmt.Errorf("squash: compressing: %w", err)
	}
	if raw := len(out) >= b.n; raw != (b.hint.word&rawBlock != 0) || !raw && !bytes.Equal(out, b.out) {
		return errOtherBase("its blocks were compressed otherwise, at another level or by another version")
	}
	return nil
}
