package nbd

// memStore keeps blocks in memory. Its maps are guarded by the overlay's
// stripes: shard i belongs to stripe i.
type memStore struct {
	shards [overlayStripe]map[int64]*memChunk
}

// memChunk costs half a kilobyte for up to 256 KiB, so that a large base that
// is written here and there needs little beside the blocks themselves.
type memChunk struct {
	word   uint64
	blocks [chunkBlocks]*[overlayBlock]byte
}

func newMemStore() *memStore { return &memStore{} }

func (s *memStore) chunk(c int64) *memChunk { return s.shards[c%overlayStripe][c] }

func (s *memStore) present(c int64) uint64 {
	if m := s.chunk(c); m != nil {
		return m.word
	}
	return 0
}

func (s *memStore) read(p []byte, off int64) error {
	m := s.chunk(off / chunkBytes)
	for len(p) > 0 {
		n := copy(p, m.blocks[off%chunkBytes/overlayBlock][off%overlayBlock:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (s *memStore) write(p []byte, off int64) error {
	c := off / chunkBytes
	m := s.chunk(c)
	if m == nil {
		m = new(memChunk)
		if s.shards[c%overlayStripe] == nil {
			s.shards[c%overlayStripe] = make(map[int64]*memChunk)
		}
		s.shards[c%overlayStripe][c] = m
	}
	for len(p) > 0 {
		b := &m.blocks[off%chunkBytes/overlayBlock]
		if *b == nil {
			*b = new([overlayBlock]byte)
		}
		n := copy((*b)[off%overlayBlock:], p)
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (s *memStore) mark(c int64, word uint64) { s.chunk(c).word = word }

func (s *memStore) sync() error { return nil }

func (s *memStore) reset() error {
	s.shards = [overlayStripe]map[int64]*memChunk{}
	return nil
}

func (s *memStore) close() error { return s.reset() }
