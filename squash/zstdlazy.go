package squash

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// zstdLazy looks at the places where the next four bytes were seen before, the
// last ones first, and before it takes a copy looks for a better one at the
// next bytes.
type zstdLazy struct {
	tries int // places to look at
	ahead int // bytes to look further

	last  [1 << lazyBits]uint32 // where a hash was seen last; 0 is nowhere
	chain []uint32              // where it was seen before that, by place
	next  int                   // the first place that is not in the tables
}

const (
	lazyBits     = 17
	lazyPatience = 8 // as zstdFast's
	lazyMargin   = 8
)

func (z *zstdLazy) begin(n int) {
	clear(z.last[:])
	z.chain = slices.Grow(z.chain[:0], n)[:n]
	z.next = 1
}

func (z *zstdLazy) hash(v uint64) uint32 { return uint32(v << 32 * zstdPrime >> (64 - lazyBits)) }

// search finds the copy that is longest at place i and longer than n; of equal
// ones the nearest.
func (z *zstdLazy) search(src []byte, i, n int) (length, offset int) {
	le := binary.LittleEndian
	chain := z.chain
	for k := z.next; k <= i; k++ {
		h := z.hash(le.Uint64(src[k:]))
		chain[k] = z.last[h]
		z.last[h] = uint32(k)
	}
	z.next = max(z.next, i+1)
	v := le.Uint64(src[i:])
	at := int(chain[i])
	n = max(n, zstdMinMatch)
	want := le.Uint32(src[i+n-3:])
	for tries := z.tries; at > 0 && tries > 0; tries-- {
		if le.Uint32(src[at+n-3:]) == want && uint32(v) == le.Uint32(src[at:]) {
			if k := 4 + zstdSame(src, at+4, i+4); k > n {
				n, length, offset = k, k, i-at
				if i+n >= len(src) {
					break
				}
				want = le.Uint32(src[i+n-3:])
			}
		}
		at = int(chain[at])
	}
	return length, offset
}

func (z *zstdLazy) find(out *zstdParts, src []byte, from, to int) {
	le := binary.LittleEndian
	src = src[:to]
	anchor := from
	limit := to - lazyMargin
	for i := max(from, 1); i < limit; {
		n, offset, start := 0, 0, i // offset 0: the last one again
		if r := out.reps[0]; r <= i+1 && le.Uint32(src[i+1:]) == le.Uint32(src[i+1-r:]) {
			n, offset, start = 4+zstdSame(src, i+5-r, i+5), 0, i+1
		}
		if k, o := z.search(src, i, n); k > n {
			n, offset, start = k, o, i
		}
		if n < 4 {
			i += 1 + (i-anchor)>>lazyPatience
			continue
		}
		// A later copy is better if it saves more bits, at four a byte, also
		// when more literals are to be written.
		for look := 1; look <= z.ahead && i+1 < limit; look++ {
			i++
			if r := out.reps[0]; le.Uint32(src[i:]) == le.Uint32(src[i-r:]) {
				k := 4 + zstdSame(src, i+4-r, i+4)
				if k*(2+look) > n*(2+look)-lazyLog(offset)+1 {
					n, offset, start = k, 0, i
				}
			}
			if k, o := z.search(src, i, 3); k*4-lazyLog(o) > n*4-lazyLog(offset)+1+3*look && k >= 4 {
				n, offset, start = k, o, i
				look = 0
			}
		}
		if offset > 0 {
			for start > anchor && start-offset > 0 && src[start-1] == src[start-1-offset] {
				start--
				n++
			}
		} else {
			offset = out.reps[0]
		}
		out.add(src, anchor, start, n, out.value(offset, start-anchor))
		i = start + n
		anchor = i
		for i < limit {
			r := out.reps[1]
			if r > i || le.Uint32(src[i:]) != le.Uint32(src[i-r:]) {
				break
			}
			n := 4 + zstdSame(src, i+4-r, i+4)
			out.add(src, i, i, n, out.value(r, 0))
			i += n
			anchor = i
		}
	}
	out.rest(src[anchor:])
}

// lazyLog is about what an offset costs in bits; 0 is the last one again.
func lazyLog(offset int) int {
	if offset == 0 {
		return 0
	}
	return bits.Len(uint(offset+2)) - 1
}
