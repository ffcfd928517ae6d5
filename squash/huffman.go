package squash

import (
	"io"
	"math/bits"
)

// How many bits of a code are looked up at once; what is longer goes on in a
// second table. The tables' sizes are more than any code needs.
const (
	litBits  = 11
	distBits = 8
	lenBits  = 7

	litTable  = 1 << 12
	distTable = 1 << 10
)

// An entry of a table: in bits 0 to 7 how many bits are used up, those behind
// the code included, in 8 to 11 how many of them are the code's (for a second
// table: how many bits it is looked up with), in 16 to 30 a literal, what a
// length or a distance begins at, or where the second table is.
const (
	entryLiteral = 1 << 31
	entrySub     = 1 << 14
	entryEnd     = 1 << 13
	entryBad     = 1 << 12
	entrySpecial = entrySub | entryEnd | entryBad
)

// lenOrder is the order in which the lengths of the lengths' code come.
var lenOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamicCodes reads the codes of a block (RFC 1951, 3.2.7).
func (z *inflater) dynamicCodes() error {
	nlit, ndist, nlen := int(z.take(5))+257, int(z.take(5))+1, int(z.take(4))+4
	if nlit > 286 || ndist > 30 {
		return errInflate
	}
	var lens [320]uint8
	for _, at := range lenOrder[:nlen] {
		z.fill()
		lens[at] = uint8(z.take(3))
	}
	var table [1 << lenBits]uint32
	if !buildTable(table[:], lenBits, lens[:19], lenValues[:]) {
		return errInflate
	}
	lens = [320]uint8{}
	for i := 0; i < nlit+ndist; {
		z.fill()
		e := table[z.buf&(1<<lenBits-1)]
		if e&entrySpecial != 0 {
			return errInflate
		}
		z.take(uint(e & 0xff))
		sym := uint8(e >> 16)
		if sym < 16 {
			lens[i] = sym
			i++
			continue
		}
		again, value := 0, uint8(0)
		switch sym {
		case 16:
			if i == 0 {
				return errInflate
			}
			again, value = 3+int(z.take(2)), lens[i-1]
		case 17:
			again = 3 + int(z.take(3))
		default:
			again = 11 + int(z.take(7))
		}
		if again > nlit+ndist-i {
			return errInflate
		}
		for range again {
			lens[i] = value
			i++
		}
	}
	switch {
	case z.past():
		return io.ErrUnexpectedEOF
	case lens[256] == 0, // such a block has no end
		!buildTable(z.lit[:], litBits, lens[:nlit], litValues[:]),
		!buildTable(z.dist[:], distBits, lens[nlit:nlit+ndist], distValues[:]):
		return errInflate
	}
	return nil
}

// fixedCodes are those of RFC 1951, 3.2.6.
func (z *inflater) fixedCodes() {
	var all [288]uint8
	lens := all[:]
	for i := range lens {
		switch {
		case i < 144, i >= 280:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		default:
			lens[i] = 7
		}
	}
	buildTable(z.lit[:], litBits, lens, litValues[:])
	lens = all[:32]
	for i := range lens {
		lens[i] = 5
	}
	buildTable(z.dist[:], distBits, lens, distValues[:])
}

// buildTable fills a table that is looked up with so many bits, and the second
// ones behind it, from the symbols' code lengths (RFC 1951, 3.2.2) and what each
// symbol means. Codes that are ambiguous or leave something without meaning are
// refused, but for a single code and for none.
func buildTable(table []uint32, width uint, lens []uint8, values []uint32) bool {
	var count, first [17]int
	for _, l := range lens {
		count[l&15]++
	}
	count[0] = 0
	left, longest := 1, uint(0)
	for l := 1; l <= 15; l++ {
		if left = left<<1 - count[l]; left < 0 {
			return false
		}
		first[l+1] = first[l] + count[l]
		if count[l] > 0 {
			longest = uint(l)
		}
	}
	if left > 0 {
		if longest > 1 {
			return false
		}
		for i := range table[:1<<width] {
			table[i] = entryBad
		}
	}
	var sorted [288]uint16 // by length, then by symbol
	for sym, l := range lens {
		if l > 0 {
			sorted[first[l]] = uint16(sym)
			first[l]++
		}
	}
	code, length := 0, uint(0)
	sub, start, next := -1, 0, 1<<width
	var subBits uint
	for _, sym := range sorted[:first[15]] {
		l := uint(lens[sym])
		code <<= l - length
		length = l
		at := int(bits.Reverse16(uint16(code << (16 - l))))
		code++
		if l <= width {
			e := values[sym] + uint32(l<<8|l)
			for ; at < 1<<width; at += 1 << l {
				table[at] = e
			}
			count[l]--
			continue
		}
		if low := at & (1<<width - 1); low != sub {
			sub, start, subBits = low, next, l-width
			for room := 1 << subBits; subBits+width < longest; room <<= 1 {
				if room -= count[subBits+width]; room <= 0 {
					break
				}
				subBits++
			}
			if next += 1 << subBits; next > len(table) {
				return false
			}
			table[low] = entrySub | uint32(start)<<16 | uint32(subBits)<<8 | uint32(width)
		}
		e := values[sym] + uint32((l-width)<<8|(l-width))
		for at >>= width; at < 1<<subBits; at += 1 << (l - width) {
			table[start+at] = e
		}
		count[l]--
	}
	return true
}

// What the symbols mean, with the number of bits that follow them.
var (
	litValues  = literalsAndLengths()
	distValues = distances()
	lenValues  = codeLengths()
)

func literalsAndLengths() (v [288]uint32) {
	for i := range 256 {
		v[i] = entryLiteral | uint32(i)<<16
	}
	v[256] = entryEnd
	base := uint32(3)
	for i := 257; i < 285; i++ {
		extra := uint32(max(0, (i-261)/4))
		v[i] = base<<16 | extra
		base += 1 << extra
	}
	v[285] = 258 << 16
	v[286], v[287] = entryBad, entryBad
	return v
}

func distances() (v [32]uint32) {
	base := uint32(1)
	for i := range 30 {
		extra := uint32(max(0, i/2-1))
		v[i] = base<<16 | extra
		base += 1 << extra
	}
	v[30], v[31] = entryBad, entryBad
	return v
}

func codeLengths() (v [19]uint32) {
	for i := range v {
		v[i] = uint32(i) << 16
	}
	return v
}
