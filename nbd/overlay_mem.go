package nbd

import "math/bits"

// memStore keeps blocks in memory. Its chunks are guarded by the overlay's
// stripes: shard i belongs to stripe i.
type memStore struct {
	blocks blockMap
	shards [overlayStripe]map[int64]*memChunk
}

// memChunk costs half a kilobyte for up to 256 KiB, so that a large base that
// is written here and there needs little beside the blocks themselves.
type memChunk [chunkBlocks]*[overlayBlock]byte

func newMemStore(size int64) *memStore { return &memStore{blocks: newBlockMap(size)} }

func (s *memStore) state(c int64) (data, zero uint64) { return s.blocks.state(c) }
func (s *memStore) mark(c int64, fresh uint64)        { s.blocks.setData(c, fresh) }
func (s *memStore) clean() bool                       { return s.blocks.clean() }

func (s *memStore) read(p []byte, off int64) error {
	c := off / chunkBytes
	m := s.shards[c%overlayStripe][c]
	for len(p) > 0 {
		n := copy(p, m[off%chunkBytes/overlayBlock][off%overlayBlock:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// segments are the blocks themselves: who holds one keeps it from being
// freed, and no other client's bytes are ever put in it.
func (s *memStore) segments(off, n int64, dst []Segment) ([]Segment, error) {
	c := off / chunkBytes
	m := s.shards[c%overlayStripe][c]
	for end := off + n; off < end; {
		next := min(end, off-off%overlayBlock+overlayBlock)
		dst = append(dst, Segment{Data: m[off%chunkBytes/overlayBlock][off%overlayBlock:][:next-off]})
		off = next
	}
	return dst, nil
}

func (s *memStore) write(p []byte, off int64) error {
	c := off / chunkBytes
	shard := &s.shards[c%overlayStripe]
	m := (*shard)[c]
	if m == nil {
		m = new(memChunk)
		if *shard == nil {
			*shard = make(map[int64]*memChunk)
		}
		(*shard)[c] = m
	}
	for len(p) > 0 {
		b := &m[off%chunkBytes/overlayBlock]
		if *b == nil {
			*b = new([overlayBlock]byte)
		}
		n := copy((*b)[off%overlayBlock:], p)
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (s *memStore) zero(c int64, blocks uint64) error {
	s.blocks.setZero(c, blocks)
	shard := s.shards[c%overlayStripe]
	m := shard[c]
	if m == nil {
		return nil
	}
	for w := blocks; w != 0; w &= w - 1 {
		m[bits.TrailingZeros64(w)] = nil
	}
	if data, _ := s.blocks.state(c); data == 0 {
		delete(shard, c)
	}
	return nil
}

func (s *memStore) sync() error { return nil }

func (s *memStore) reset() error {
	s.blocks.clear()
	s.shards = [overlayStripe]map[int64]*memChunk{}
	return nil
}

func (s *memStore) close() error { return s.reset() }
