package squash

import (
	"encoding/binary"
	"math/bits"
)

// zstdFast finds copies by two tables: where the next eight bytes were seen
// last, and where a few less. It takes what it finds at once.
//
// An entry of a table is a place, and above it some more bits of the hash, which
// tell most of the wrong places without a look at them.
type zstdFast struct {
	cut      uint // bits that a short hash is of fewer than 64
	patience uint // steps grow each 1 << patience bytes without a copy
	long     [1 << fastLongBits]uint32
	short    [1 << fastShortBits]uint32
}

const (
	fastLongBits  = 16
	fastShortBits = 15
	fastPlaceBits = 20 // of a block of 1 MiB
	fastPlace     = 1<<fastPlaceBits - 1
	fastTagBits   = 32 - fastPlaceBits
	fastTag       = 1<<fastTagBits - 1

	fastMargin = 10 // bytes at the end that are not looked up

	zstdPrime = 0xcf1bbcdcb7a56463
)

// Both hashes have the index above the tag.

func (z *zstdFast) hashLong(v uint64) uint32 {
	return uint32(v * zstdPrime >> (64 - fastLongBits - fastTagBits))
}

func (z *zstdFast) hashShort(v uint64) uint32 {
	return uint32(v << (z.cut & 63) * zstdPrime >> (64 - fastShortBits - fastTagBits))
}

func (z *zstdFast) begin(int) {
	clear(z.long[:])
	clear(z.short[:])
}

func (z *zstdFast) find(out *zstdParts, src []byte, from, to int) {
	le := binary.LittleEndian
	src = src[:to]
	i, anchor := from, from
	cut, patience := z.cut&63, z.patience&63
	rep, rep2 := out.reps[0], out.reps[1]
	limit := to - fastMargin
	if i == 0 {
		i = 1
	}
	for i < limit {
		v := le.Uint64(src[i:])
		hl, hs := z.hashLong(v), z.hashShort(v)
		pl, ps := &z.long[hl>>fastTagBits], &z.short[hs>>fastTagBits]
		cl, cs := *pl, *ps
		*pl, *ps = uint32(i)|hl<<fastPlaceBits, uint32(i)|hs<<fastPlaceBits

		var at, n, value int
		first := i + 1
		if le.Uint32(src[i+1-rep:]) == uint32(v>>8) {
			// The offset of the last copy, one byte on.
			i++
			at = i - rep
			n = 4 + zstdSame(src, at+4, i+4)
			value = 1
			// Without literals it would be another value.
			for i > anchor+1 && at > 0 && src[i-1] == src[at-1] {
				i--
				at--
				n++
			}
		} else {
			if at = int(cl & fastPlace); cl>>fastPlaceBits == hl&fastTag && le.Uint64(src[at:]) == v {
				n = 8
			} else if at = int(cs & fastPlace); cs>>fastPlaceBits == hs&fastTag && (le.Uint64(src[at:])^v)<<cut == 0 {
				n = 8 - int(cut/8)
				w := le.Uint64(src[i+1:])
				h := z.hashLong(w)
				p := &z.long[h>>fastTagBits]
				c := *p
				*p = uint32(i+1) | h<<fastPlaceBits
				if a := int(c & fastPlace); c>>fastPlaceBits == h&fastTag && le.Uint64(src[a:]) == w {
					i++
					at, n = a, 8
				}
			} else {
				i += 1 + (i-anchor)>>patience
				continue
			}
			n += zstdSame(src, at+n, i+n)
			for i > anchor && at > 0 && src[i-1] == src[at-1] {
				i--
				at--
				n++
			}
			rep, rep2 = i-at, rep
			value = rep + 3
		}
		out.add(src, anchor, i, n, value)
		i += n
		anchor = i
		if i >= limit {
			break
		}
		v = le.Uint64(src[first:])
		hl, hs = z.hashLong(v), z.hashShort(v>>8)
		z.long[hl>>fastTagBits] = uint32(first) | hl<<fastPlaceBits
		z.short[hs>>fastTagBits] = uint32(first+1) | hs<<fastPlaceBits
		v = le.Uint64(src[i-2:])
		hl, hs = z.hashLong(v), z.hashShort(v>>8)
		z.long[hl>>fastTagBits] = uint32(i-2) | hl<<fastPlaceBits
		z.short[hs>>fastTagBits] = uint32(i-1) | hs<<fastPlaceBits
		for i < limit {
			v := le.Uint64(src[i:])
			if le.Uint32(src[i-rep2:]) != uint32(v) {
				break
			}
			hl, hs := z.hashLong(v), z.hashShort(v)
			z.long[hl>>fastTagBits] = uint32(i) | hl<<fastPlaceBits
			z.short[hs>>fastTagBits] = uint32(i) | hs<<fastPlaceBits
			n := 4 + zstdSame(src, i+4-rep2, i+4)
			rep, rep2 = rep2, rep
			out.add(src, i, i, n, 1)
			i += n
			anchor = i
		}
	}
	out.reps[0], out.reps[1] = rep, rep2
	out.rest(src[anchor:])
}

// zstdSame counts the equal bytes from two places on.
func zstdSame(src []byte, at, i int) int {
	start := i
	for i+8 <= len(src) {
		if x := binary.LittleEndian.Uint64(src[i:]) ^ binary.LittleEndian.Uint64(src[at:]); x != 0 {
			return i - start + bits.TrailingZeros64(x)>>3
		}
		i += 8
		at += 8
	}
	for i < len(src) && src[i] == src[at] {
		i++
		at++
	}
	return i - start
}
