package squash

import "math/bits"

// A block whose beginning is not like its end takes fewer bits as two, each
// with tables of its own.

const (
	splitPieces = 8                  // of a block, at the most
	splitCost   = 1000 << splitScale // bits that another block costs, its tables among them
	splitScale  = 8                  // costs are in 256ths of a bit
)

// zstdPiece is a part of a block.
type zstdPiece struct {
	seqs []zstdSeq
	lits []byte
	src  []byte
}

// zstdCounts is how often literals and codes occur in a piece.
type zstdCounts struct {
	lits       [256]uint32
	ll, ml, of [64]uint32
}

func (c *zstdCounts) add(d *zstdCounts) {
	for i := range c.lits {
		c.lits[i] += d.lits[i]
	}
	for i := range c.ll {
		c.ll[i] += d.ll[i]
		c.ml[i] += d.ml[i]
		c.of[i] += d.of[i]
	}
}

// zstdSplit finds where to split.
type zstdSplit struct {
	log  [257]uint32 // of 1 to 2, in 65536ths
	next zstdCounts
	list [splitPieces]zstdPiece
}

func newZstdSplit() *zstdSplit {
	s := &zstdSplit{}
	for i := range s.log {
		// Squaring doubles the logarithm.
		x := uint64(256+i) << 23 // 1 is 1 << 31
		for bit := uint32(1 << 15); bit > 0; bit >>= 1 {
			if x = x * x >> 31; x >= 1<<32 {
				x >>= 1
				s.log[i] |= bit
			}
		}
	}
	s.log[256] = 1 << 16
	return s
}

// log2 is the logarithm in 256ths.
func (s *zstdSplit) log2(n uint32) uint64 {
	l := bits.Len32(n) - 1
	m := n << (31 - l) << 1 // what is behind the first bit
	a, b := s.log[m>>24], s.log[m>>24+1]
	return uint64(l)<<splitScale + uint64(a+(b-a)*(m>>16&0xff)>>8)>>(16-splitScale)
}

// entropy is how many bits symbols take that occur so often.
func (s *zstdSplit) entropy(count []uint32) (cost uint64) {
	total := uint32(0)
	for _, n := range count {
		if n > 0 {
			total += n
			cost -= uint64(n) * s.log2(n)
		}
	}
	if total > 0 {
		cost += uint64(total) * s.log2(total)
	}
	return cost
}

func (s *zstdSplit) cost(c *zstdCounts) uint64 {
	return s.entropy(c.lits[:]) + s.entropy(c.ll[:]) + s.entropy(c.ml[:]) + s.entropy(c.of[:])
}

// pieces splits a block where that pays.
func (s *zstdSplit) pieces(whole zstdPiece) []zstdPiece {
	list := s.list[:0]
	var group zstdCounts
	var groupCost uint64
	seqs, lits, src := whole.seqs, whole.lits, whole.src
	var fromSeq, fromLit, fromSrc int // of the group
	seq, lit, at := 0, 0, 0
	for at < len(src) {
		// The next piece begins at seq, lit, at.
		c := &s.next
		*c = zstdCounts{}
		startSeq, startLit, start := seq, lit, at
		for seq < len(seqs) && at-start < zstdBlock/splitPieces {
			q := &seqs[seq]
			c.ll[q.ll&63]++
			c.ml[q.ml&63]++
			c.of[q.of&63]++
			lit += int(q.lits)
			at += int(q.lits + q.match + zstdMinMatch)
			seq++
		}
		if seq == len(seqs) {
			lit, at = len(lits), len(src)
		}
		for _, b := range lits[startLit:lit] {
			c.lits[b]++
		}
		cost := s.cost(c)
		if start == 0 {
			group, groupCost = *c, cost
			continue
		}
		both := group
		both.add(c)
		if together := s.cost(&both); together <= groupCost+cost+splitCost {
			group, groupCost = both, together
			continue
		}
		list = append(list, zstdPiece{seqs[fromSeq:startSeq], lits[fromLit:startLit], src[fromSrc:start]})
		fromSeq, fromLit, fromSrc = startSeq, startLit, start
		group, groupCost = *c, cost
	}
	return append(list, zstdPiece{seqs[fromSeq:], lits[fromLit:], src[fromSrc:]})
}

// zstdSetCodes finds the codes of all lengths and offsets.
func zstdSetCodes(seqs []zstdSeq) {
	for i := range seqs {
		s := &seqs[i]
		if s.ll = uint8(bits.Len32(s.lits) + 18); s.lits < 64 {
			s.ll = zstdCodeLL[s.lits]
		}
		if s.ml = uint8(bits.Len32(s.match) + 35); s.match < 128 {
			s.ml = zstdCodeML[s.match]
		}
		s.of = uint8(bits.Len32(s.offset) - 1)
	}
}
