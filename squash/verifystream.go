package squash

import (
	"bytes"
	"encoding/binary"
)

// stream checks what Linux wants of a compressed stream beyond that it
// decodes.
func (v *verifier) stream(b []byte, off int64) error {
	switch v.f.sb.Compressor {
	case compZstd:
		return zstdFrame(b, off, max(uint64(v.f.sb.BlockSize), metaSize))
	case compXZ:
		return xzStream(b, off, max(v.dictionary, metaSize))
	case compLZ4:
		return lz4Block(b, off)
	case compGzip:
		if len(b) < 2 || b[0]&15 != 8 || b[0]>>4 > 7 || b[1]&0x20 != 0 {
			return badFormat(off, "a zlib stream that begins with %#x", b[:min(2, len(b))])
		}
	}
	return nil
}

// zstdFrame wants one frame with a window of at most limit (RFC 8878, 3.1.1).
func zstdFrame(b []byte, off int64, limit uint64) error {
	short := badFormat(off, "a zstd frame that is cut short")
	if len(b) < 6 || binary.LittleEndian.Uint32(b) != 0xfd2fb528 {
		return badFormat(off, "a zstd stream that does not begin with a frame of data, which Linux refuses")
	}
	desc, at := b[4], 5
	single := desc&0x20 != 0
	var window uint64
	if !single {
		base := uint64(1) << (10 + b[at]>>3)
		window = base + base/8*uint64(b[at]&7)
		at++
	}
	at += []int{0, 1, 2, 4}[desc&3]
	n := []int{0, 2, 4, 8}[desc>>6]
	if n == 0 && single {
		n = 1
	}
	if at+n > len(b) {
		return short
	}
	if single {
		var size [8]byte
		copy(size[:], b[at:at+n])
		if window = binary.LittleEndian.Uint64(size[:]); n == 2 {
			window += 256
		}
	}
	if window > limit {
		return badFormat(off, "a zstd window of %d bytes, more than a block: Linux mounts such an image and fails to read it", window)
	}
	for at += n; ; {
		if at+3 > len(b) {
			return short
		}
		header := uint32(b[at]) | uint32(b[at+1])<<8 | uint32(b[at+2])<<16
		at += 3
		if header>>1&3 == 1 { // one byte that is repeated
			at++
		} else {
			at += int(header >> 3)
		}
		if header&1 != 0 {
			break
		}
	}
	if desc&4 != 0 {
		at += 4
	}
	switch {
	case at > len(b):
		return short
	case at < len(b):
		return badFormat(off, "%d bytes after a zstd frame, which Linux refuses", len(b)-at)
	}
	return nil
}

// xzStream wants a checksum and filters that Linux knows, and a dictionary
// that it has memory for (the .xz file format 1.2.1, 2.1 and 3.1).
func xzStream(b []byte, off, limit int64) error {
	const header = 12
	if len(b) < header+8 || !bytes.HasSuffix(b, []byte("YZ")) {
		return badFormat(off, "an xz stream that is cut short or has something after it")
	}
	if check := b[7] & 15; check > 1 {
		return badFormat(off, "an xz stream with a checksum of type %d: Linux knows none and CRC32", check)
	}
	flags, at := b[header+1], header+2
	if b[header] == 0 { // the index: an empty stream
		return nil
	}
	number := func() (n uint64) {
		for shift := 0; at < len(b); shift += 7 {
			c := b[at]
			at++
			n |= uint64(c&0x7f) << min(shift, 63)
			if c&0x80 == 0 {
				break
			}
		}
		return n
	}
	for range int(flags>>6&1) + int(flags>>7) {
		number()
	}
	machine := "x86"
	for range flags&3 + 1 {
		id, size := number(), number()
		if size > uint64(len(b)-at) {
			return badFormat(off, "an xz stream that is cut short")
		}
		props := b[at : at+int(size)]
		at += int(size)
		switch {
		case id == 0x21 && size == 1:
			bits := props[0]
			if bits > 39 || (2|int64(bits&1))<<(bits/2+11) > limit {
				return badFormat(off, "an xz dictionary (code %d) larger than the %d bytes that Linux has for it", bits, limit)
			}
		case id >= 4 && id < 4+uint64(len(xzBranches)):
			machine = xzBranches[id-4]
		case id != 0x21:
			return badFormat(off, "an xz filter %#x, which Linux does not know", id)
		}
	}
	if machine != "x86" {
		return badFormat(off, "an xz filter for %s: Debian's kernels know only that for x86 and fail to read such a block, others may know it", machine)
	}
	return nil
}

// xzBranches are the machines that filters are for, from number 4 on.
var xzBranches = [...]string{"x86", "powerpc", "ia64", "arm", "armthumb", "sparc", "arm64", "riscv"}
