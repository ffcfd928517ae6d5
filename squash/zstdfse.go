package squash

import (
	"encoding/binary"
	"math/bits"
)

// The codes of sequences are written with finite state entropy (RFC 8878,
// section 4.1), by tables that tell how probable each is.

// zstdTable turns codes into states.
type zstdTable struct {
	log   uint8
	next  [512]uint16 // states by code and the former state's high bits
	codes [64]zstdCode
}

// zstdCode says how many bits of the state are written, and where in next the code's states are.
type zstdCode struct {
	bits int32 // 65,536 times the number, and something that makes it the right one for each state
	at   int32
}

// build makes the table of probabilities whose sum is 1 << log. -1 is less than one of them.
func (t *zstdTable) build(norm []int16, log uint8) {
	size := 1 << log
	t.log = log
	var place [1 << 9]uint8 // which code is where
	var begin [65]int
	high := size - 1
	for s, n := range norm {
		if n == -1 {
			place[high] = uint8(s)
			high--
			n = 1
		}
		begin[s+1] = begin[s] + int(n)
	}
	pos, step := 0, size>>1+size>>3+3
	for s, n := range norm {
		for range n {
			place[pos] = uint8(s)
			for pos = (pos + step) & (size - 1); pos > high; {
				pos = (pos + step) & (size - 1)
			}
		}
	}
	to := begin
	for i, s := range place[:size] {
		t.next[to[s]] = uint16(size + i)
		to[s]++
	}
	for s, n := range norm {
		if n < 0 {
			n = 1
		}
		switch n {
		case 0:
			t.codes[s] = zstdCode{}
		case 1:
			t.codes[s] = zstdCode{int32(log)<<16 - int32(size), int32(begin[s] - 1)}
		default:
			most := int32(log) - int32(bits.Len16(uint16(n-1))-1)
			t.codes[s] = zstdCode{most<<16 - int32(n)<<most, int32(begin[s] - int(n))}
		}
	}
}

// only makes the table of one code, which takes no bits.
func (t *zstdTable) only(s int) {
	t.log = 0
	t.next[0] = 0
	t.codes[s] = zstdCode{}
}

// first is the state for the code that is written first.
func (t *zstdTable) first(s uint8) uint32 {
	c := &t.codes[s&63]
	n := (c.bits + 1<<15) >> 16
	return uint32(t.next[((n<<16-c.bits)>>(n&31)+c.at)&511])
}

// zstdCodes is one of the three kinds of codes.
type zstdCodes struct {
	maxLog uint8
	norm   []int16 // predefined, 3.1.1.3.2.2
	usual  zstdTable
	count  [64]uint32
	own    zstdTable
	table  *zstdTable // one of the two
}

func (c *zstdCodes) init(maxLog, log uint8, norm []int16) {
	c.maxLog, c.norm = maxLog, norm
	c.usual.build(norm, log)
}

// choose appends the description of the table that is best for n codes, as they
// were counted, and returns its mode.
func (c *zstdCodes) choose(dst []byte, n int) ([]byte, byte) {
	last, kinds := 0, 0
	for s, k := range c.count {
		if k > 0 {
			last = s
			kinds++
		}
	}
	c.table = &c.own
	if kinds == 1 && n > 2 {
		c.own.only(last)
		return append(dst, byte(last)), zstdRLE
	}
	count := c.count[:last+1]
	log := min(uint8(max(bits.Len(uint(n-1))-2, bits.Len(uint(last))+1, 5)), c.maxLog)
	var norm [64]int16
	zstdNormalize(norm[:last+1], count, n, log)
	at := len(dst)
	dst = zstdDescribe(dst, norm[:last+1], log)
	own := zstdCost(count, norm[:], log) + uint64(len(dst)-at)<<11
	if zstdCost(count, c.norm, c.usual.log) <= own {
		c.table = &c.usual
		return dst[:at], zstdRaw
	}
	c.own.build(norm[:last+1], log)
	return dst, zstdCompressed
}

// zstdCost is about how many 256ths of a bit the codes take.
func zstdCost(count []uint32, norm []int16, log uint8) (cost uint64) {
	for s, k := range count {
		if k > 0 {
			cost += uint64(k) * uint64(int(log)<<8-zstdLog2(int(max(norm[s], 1))))
		}
	}
	return cost
}

// zstdLog2 is 256 times the logarithm, between powers of two by a line.
func zstdLog2(n int) int {
	l := bits.Len(uint(n)) - 1
	return l<<8 + n<<8>>l - 256
}

// zstdNormalize shares the states of a table out: at least one for each code that occurs.
func zstdNormalize(norm []int16, count []uint32, n int, log uint8) {
	left := 1 << log
	for s, k := range count {
		norm[s] = 0
		if k > 0 {
			norm[s] = int16(max(1, uint64(k)<<log/uint64(n)))
			left -= int(norm[s])
		}
	}
	// One more is worth about count / (2 norm + 1) to a code.
	for ; left != 0; left -= left / max(left, -left) {
		best := -1
		for s, k := range count {
			switch {
			case k == 0 || left < 0 && norm[s] == 1:
			case best < 0:
				best = s
			case left > 0 && uint64(k)*uint64(2*norm[best]+1) > uint64(count[best])*uint64(2*norm[s]+1):
				best = s
			case left < 0 && uint64(k)*uint64(2*norm[best]-1) < uint64(count[best])*uint64(2*norm[s]-1):
				best = s
			}
		}
		if left > 0 {
			norm[best]++
		} else {
			norm[best]--
		}
	}
}

// zstdDescribe appends the description of a table, section 4.1.1.
func zstdDescribe(dst []byte, norm []int16, log uint8) []byte {
	acc, n := uint64(log-5), uint(4)
	add := func(v, width int) {
		acc |= uint64(v) << n
		for n += uint(width); n >= 8; n -= 8 {
			dst = append(dst, byte(acc))
			acc >>= 8
		}
	}
	left, half, width := 1<<log+1, 1<<log, int(log)+1
	for s := 0; left > 1; s++ {
		v := int(norm[s]) + 1
		few := 2*half - 1 - left // so many values take a bit less
		switch {
		case v < few:
			add(v, width-1)
		case v < half:
			add(v, width)
		default:
			add(v+few, width)
		}
		left -= int(norm[s])
		for half > left {
			half >>= 1
			width--
		}
		if norm[s] == 0 && left > 1 {
			run := 0
			for norm[s+1+run] == 0 {
				run++
			}
			s += run
			for ; run >= 3; run -= 3 {
				add(3, 2)
			}
			add(run, 2)
		}
	}
	if n > 0 {
		dst = append(dst, byte(acc))
	}
	return dst
}

// zstdBits are bits on their way out, the first ones lowest. It is small, and
// passed as a value, so that it stays in registers.
type zstdBits struct {
	acc uint64
	n   uint
}

// add adds the low bits of v: at most 57 between flushes.
func (w zstdBits) add(v uint32, n uint8) zstdBits {
	w.acc |= uint64(v&(1<<(n&31)-1)) << (w.n & 63)
	w.n += uint(n)
	return w
}

// state adds bits of a state and returns the next one.
func (w zstdBits) state(state uint32, t *zstdTable, s uint8) (uint32, zstdBits) {
	c := t.codes[s&63]
	n := uint8((int32(state) + c.bits) >> 16)
	return uint32(t.next[(int32(state>>(n&31))+c.at)&511]), w.add(state, n)
}

// flush appends whole bytes to dst, which has room for eight.
func (w zstdBits) flush(dst []byte) ([]byte, zstdBits) {
	at := len(dst)
	binary.LittleEndian.PutUint64(dst[at:at+8], w.acc)
	k := w.n >> 3
	w.acc >>= k << 3 & 63
	w.n &= 7
	return dst[:at+int(k)], w
}
