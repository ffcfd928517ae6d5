package squash

import (
	"encoding/binary"
	"errors"
	"hash/adler32"
	"io"
)

// Zlib streams (RFC 1950, 1951) whose input and output lie in memory as a
// whole: there is no window to keep and bits are taken eight bytes at a time,
// which makes this twice as fast as a decoder of streams.

var errInflate = errors.New("not a zlib stream, or a damaged one")

// inflater decodes one stream at a time; the tables are its memory.
type inflater struct {
	lit  [litTable]uint32
	dist [distTable]uint32

	src []byte
	pos int    // of the next byte; beyond the end come zeros
	buf uint64 // bits taken
	n   uint   // how many of them count
}

// inflate decodes a stream of at most size bytes into dst, whose capacity is no
// less, and which it may write beyond.
func (z *inflater) inflate(dst, src []byte, size int) (int, error) {
	if len(src) < 2 || src[0]&15 != 8 || src[0]>>4 > 7 || src[1]&0x20 != 0 || (uint(src[0])<<8|uint(src[1]))%31 != 0 {
		return 0, errInflate
	}
	z.src, z.pos, z.buf, z.n = src, 2, 0, 0
	defer func() { z.src = nil }()
	out := dst[:min(cap(dst), size+slack)]
	o := 0
	for last := false; !last; {
		z.fill()
		head := z.take(3)
		last = head&1 != 0
		var err error
		switch head >> 1 {
		case 0:
			o, err = z.storedBlock(out, o, size)
		case 1:
			z.fixedCodes()
			o, err = z.block(out, o, size)
		case 2:
			if err = z.dynamicCodes(); err == nil {
				o, err = z.block(out, o, size)
			}
		default:
			err = errInflate
		}
		if err != nil {
			return 0, err
		}
	}
	z.align()
	if len(src)-z.pos < 4 {
		return 0, io.ErrUnexpectedEOF
	}
	if binary.BigEndian.Uint32(src[z.pos:]) != adler32.Checksum(out[:o]) {
		return 0, errors.New("the checksum is another one")
	}
	return o, nil
}

// fill takes bits until there are at least 56.
func (z *inflater) fill() {
	for z.n < 56 {
		if z.pos < len(z.src) {
			z.buf |= uint64(z.src[z.pos]) << z.n
		}
		z.pos++
		z.n += 8
	}
}

// take uses up to 32 bits.
func (z *inflater) take(n uint) uint32 {
	v := uint32(z.buf & (1<<n - 1))
	z.buf >>= n
	z.n -= n
	return v
}

// past says that more bits were used than there are.
func (z *inflater) past() bool { return z.pos-int(z.n>>3) > len(z.src) }

// align gives whole bytes back that were taken and not used.
func (z *inflater) align() {
	z.pos = z.pos - int(z.n>>3)
	z.buf, z.n = 0, 0
}

func (z *inflater) storedBlock(out []byte, o, size int) (int, error) {
	z.align()
	if len(z.src)-z.pos < 4 {
		return o, io.ErrUnexpectedEOF
	}
	n := int(binary.LittleEndian.Uint16(z.src[z.pos:]))
	if n^0xffff != int(binary.LittleEndian.Uint16(z.src[z.pos+2:])) {
		return o, errInflate
	}
	z.pos += 4
	if n > len(z.src)-z.pos {
		return o, io.ErrUnexpectedEOF
	}
	if n > size-o {
		return o, errTooLong
	}
	copy(out[o:], z.src[z.pos:z.pos+n])
	z.pos += n
	return o + n, nil
}

// block decodes what follows the codes, until the block's end.
func (z *inflater) block(out []byte, o, size int) (int, error) {
	// In sight of an end of the input or of the room, step by step.
	const longest = 258
	inEnd, outEnd := len(z.src)-16, min(size, len(out)-8)-longest-4
	src, pos, buf, n := z.src, z.pos, z.buf, z.n
	for {
		if pos >= inEnd || o >= outEnd {
			z.pos, z.buf, z.n = pos, buf, n
			var done bool
			var err error
			if o, done, err = z.step(out, o, size); done || err != nil {
				return o, err
			}
			pos, buf, n = z.pos, z.buf, z.n
			continue
		}
		// Eight bytes at once: bits beyond n are there already when they come again.
		buf |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		e := z.lit[buf&(1<<litBits-1)]
		if e&entryLiteral != 0 {
			buf >>= e & 63
			n -= uint(e & 0xff)
			out[o] = byte(e >> 16)
			o++
			if e = z.lit[buf&(1<<litBits-1)]; e&entryLiteral != 0 {
				buf >>= e & 63
				n -= uint(e & 0xff)
				out[o] = byte(e >> 16)
				o++
				if e = z.lit[buf&(1<<litBits-1)]; e&entryLiteral != 0 {
					buf >>= e & 63
					n -= uint(e & 0xff)
					out[o] = byte(e >> 16)
					o++
					continue
				}
			}
			buf |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
			pos += int((63 - n) >> 3)
			n |= 56
		}
		if e&entrySub != 0 {
			buf >>= litBits
			n -= litBits
			e = z.lit[(e>>16+uint32(buf)&(1<<(e>>8&15)-1))&(litTable-1)]
		}
		had := buf
		buf >>= e & 63
		n -= uint(e & 0xff)
		if e&(entryLiteral|entrySpecial) != 0 {
			switch {
			case e&entryLiteral != 0:
				out[o] = byte(e >> 16)
				o++
				continue
			case e&entryEnd != 0:
				z.pos, z.buf, z.n = pos, buf, n
				return o, nil
			}
			return o, errInflate
		}
		length := int(e>>16) + int(had&(1<<(e&63)-1)>>(e>>8&15))
		if e = z.dist[buf&(1<<distBits-1)]; e&entrySub != 0 {
			buf >>= distBits
			n -= distBits
			e = z.dist[(e>>16+uint32(buf)&(1<<(e>>8&15)-1))&(distTable-1)]
		}
		if e&entrySpecial != 0 {
			return o, errInflate
		}
		had = buf
		buf >>= e & 63
		n -= uint(e & 0xff)
		d := int(e>>16) + int(had&(1<<(e&63)-1)>>(e>>8&15))
		if d > o {
			return o, errInflate
		}
		end := o + length
		switch {
		case d >= 8: // up to seven bytes too many
			for ; o < end; o += 8 {
				binary.LittleEndian.PutUint64(out[o:], binary.LittleEndian.Uint64(out[o-d:]))
			}
		case d == 1:
			v := uint64(out[o-1]) * 0x0101010101010101
			for ; o < end; o += 8 {
				binary.LittleEndian.PutUint64(out[o:], v)
			}
		default:
			for ; o < end; o++ {
				out[o] = out[o-d]
			}
		}
		o = end
	}
}

// step decodes one literal, one copy or the end of a block, with all care.
func (z *inflater) step(out []byte, o, size int) (at int, done bool, err error) {
	z.fill()
	e := z.lit[z.buf&(1<<litBits-1)]
	if e&entrySub != 0 {
		z.take(litBits)
		e = z.lit[(e>>16+uint32(z.buf)&(1<<(e>>8&15)-1))&(litTable-1)]
	}
	if e&entryBad != 0 {
		return o, false, errInflate
	}
	had := z.take(uint(e & 0xff))
	switch {
	case z.past():
		return o, false, io.ErrUnexpectedEOF
	case e&entryEnd != 0:
		return o, true, nil
	case e&entryLiteral != 0:
		if o >= size {
			return o, false, errTooLong
		}
		out[o] = byte(e >> 16)
		return o + 1, false, nil
	}
	length := int(e>>16) + int(had>>(e>>8&15))
	z.fill()
	if e = z.dist[z.buf&(1<<distBits-1)]; e&entrySub != 0 {
		z.take(distBits)
		e = z.dist[(e>>16+uint32(z.buf)&(1<<(e>>8&15)-1))&(distTable-1)]
	}
	if e&entrySpecial != 0 {
		return o, false, errInflate
	}
	had = z.take(uint(e & 0xff))
	d := int(e>>16) + int(had>>(e>>8&15))
	switch {
	case z.past():
		return o, false, io.ErrUnexpectedEOF
	case d > o:
		return o, false, errInflate
	case length > size-o:
		return o, false, errTooLong
	}
	for range length {
		out[o] = out[o-d]
		o++
	}
	return o, false, nil
}
