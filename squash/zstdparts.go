package squash

// zstdFinder splits a part of a block into sequences, which may copy from
// anything before it in src. What it finds depends on nothing else.
type zstdFinder interface {
	// begin forgets the block before and begins another of n bytes.
	begin(n int)
	// find puts into out what src[from:to] is made of.
	find(out *zstdParts, src []byte, from, to int)
}

// zstdSeq is a sequence: literals, and then a copy of earlier bytes.
type zstdSeq struct {
	lits       uint32 // how many
	match      uint32 // bytes to copy, less the least there can be
	offset     uint32 // offset value (3.1.1.3.2.1.1): 1 to 3 are repeated ones
	ll, ml, of uint8  // codes
}

// zstdParts is what a zstd block is made of.
type zstdParts struct {
	seqs [zstdBlock/4 + 1]zstdSeq
	lits [zstdBlock + 32]byte
	n    int    // sequences
	l    int    // literals
	reps [3]int // repeated offsets (3.1.1.5), of which a finder may keep two
}

// add appends a sequence of the literals from from to at, and a copy of four
// bytes or more.
func (p *zstdParts) add(src []byte, from, at, match, offset int) {
	s := &p.seqs[p.n]
	p.n++
	n := at - from
	s.lits, s.match, s.offset = uint32(n), uint32(match-zstdMinMatch), uint32(offset)
	if to := p.lits[p.l:]; n <= 16 && from+16 <= len(src) && len(to) >= 16 { // quicker than to call memmove
		*(*[16]byte)(to) = *(*[16]byte)(src[from:])
	} else {
		copy(to, src[from:at])
	}
	p.l += n
}

// rest takes the bytes after the last sequence.
func (p *zstdParts) rest(b []byte) { p.l += copy(p.lits[p.l:], b) }

// value is an offset's value behind so many literals.
func (p *zstdParts) value(offset, lits int) int {
	r := &p.reps
	switch {
	case lits > 0 && offset == r[0]:
		return 1
	case offset == r[1]:
		r[0], r[1] = r[1], r[0]
		return 1 + min(lits, 1)
	case offset == r[2]:
		r[0], r[1], r[2] = r[2], r[0], r[1]
		return 2 + min(lits, 1)
	case lits == 0 && offset == r[0]-1:
		r[0], r[1], r[2] = offset, r[0], r[1]
		return 3
	}
	r[0], r[1], r[2] = offset, r[0], r[1]
	return offset + 3
}
