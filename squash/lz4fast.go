package squash

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// The fast method for raw LZ4 blocks, as lz4_Block_format.md has them: a sequence
// is a token, literals, and a copy of at least four bytes from at most 65,535
// bytes before.

const (
	lz4HashBits = 13 // the table stays in the first cache

	lz4MinMatch  = 4
	lz4MaxOffset = 1<<16 - 1
	lz4LastCopy  = 12 // none begins later before the end
	lz4LastBytes = 5  // which are literals
)

// lz4Fast is an encoder with its memory: where bytes were seen by their hash.
type lz4Fast struct{ table [1 << lz4HashBits]uint32 }

// hash is of the first five of eight bytes.
func (*lz4Fast) hash(v uint64) uint64 { return v << 24 * 889523592379 >> (64 - lz4HashBits) }

// Encode appends a block that may be longer than src.
func (z *lz4Fast) Encode(dst, src []byte) ([]byte, error) {
	at := len(dst)
	dst = slices.Grow(dst, len(src)+len(src)/255+16)
	out := dst[at:cap(dst)]
	o, anchor := 0, 0
	if len(src) > lz4LastCopy {
		o, anchor = z.copies(out, src)
	}
	o = lz4Literals(out, o, src, anchor, len(src), 0)
	return dst[:at+o], nil
}

// copies writes all sequences but the last one, which begins at the byte of src
// that is returned.
func (z *lz4Fast) copies(out, src []byte) (o, anchor int) {
	clear(z.table[:])
	le := binary.LittleEndian
	limit := len(src) - lz4LastCopy
	i := 1
	for {
		// The longer nothing is found, the larger the steps.
		var ref int
		tries := 1 << 6
		for {
			if i > limit {
				return o, anchor
			}
			v := le.Uint64(src[i:])
			at := &z.table[z.hash(v)]
			ref = int(*at)
			*at = uint32(i)
			if i-ref <= lz4MaxOffset && uint32(v) == le.Uint32(src[ref:]) {
				break
			}
			i += tries >> 6
			tries++
		}
		for i > anchor && ref > 0 && src[i-1] == src[ref-1] {
			i--
			ref--
		}
		for {
			n := lz4Same(src, ref+lz4MinMatch, i+lz4MinMatch)
			o = lz4Literals(out, o, src, anchor, i, n)
			le.PutUint16(out[o:], uint16(i-ref))
			if o += 2; n >= 15 {
				o = lz4Length(out, o, n-15)
			}
			i += lz4MinMatch + n
			if anchor = i; i > limit {
				return o, anchor
			}
			z.table[z.hash(le.Uint64(src[i-2:]))] = uint32(i - 2)
			v := le.Uint64(src[i:])
			at := &z.table[z.hash(v)]
			ref = int(*at)
			*at = uint32(i)
			if i-ref > lz4MaxOffset || uint32(v) != le.Uint32(src[ref:]) {
				break
			}
		}
		i++
	}
}

// lz4Same counts the equal bytes from two places on, up to the last five.
func lz4Same(src []byte, ref, i int) int {
	start, end := i, len(src)-lz4LastBytes
	for i+8 <= end {
		if x := binary.LittleEndian.Uint64(src[i:]) ^ binary.LittleEndian.Uint64(src[ref:]); x != 0 {
			return i - start + bits.TrailingZeros64(x)>>3
		}
		i += 8
		ref += 8
	}
	for i < end && src[i] == src[ref] {
		i++
		ref++
	}
	return i - start
}

// lz4Literals writes a token, which says also how long the copy behind it is, and
// its literals.
func lz4Literals(out []byte, o int, src []byte, from, to, copied int) int {
	n := to - from
	out[o] = byte(min(n, 15)<<4 | min(copied, 15))
	if o++; n >= 15 {
		o = lz4Length(out, o, n-15)
	}
	if n <= 16 && from+16 <= len(src) && o+16 <= len(out) { // quicker than to call copy
		le := binary.LittleEndian
		le.PutUint64(out[o:], le.Uint64(src[from:]))
		le.PutUint64(out[o+8:], le.Uint64(src[from+8:]))
	} else {
		copy(out[o:], src[from:to])
	}
	return o + n
}

// lz4Length writes what a token has no room for.
func lz4Length(out []byte, o, n int) int {
	for ; n >= 255; n -= 255 {
		out[o] = 255
		o++
	}
	out[o] = byte(n)
	return o + 1
}
