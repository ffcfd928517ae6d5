package squash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// XZ compresses with LZMA2 in xz streams: small images, slow to write and
// several times slower to read than zstd. This writer has no filters for
// machine code.
type XZ struct{}

// ID is 4.
func (XZ) ID() uint16 { return compXZ }

// Options is nil, which says a dictionary of the block size.
func (XZ) Options(int) []byte { return nil }

// Settings is always the same.
func (XZ) Settings() string { return "go xz" }

// NewEncoder makes an encoder whose streams have CRC32 checks, for Linux
// knows no others, and dictionaries no larger than a block.
func (XZ) NewEncoder(blockSize int) (Encoder, error) {
	return encoderFunc(func(dst, src []byte) ([]byte, error) {
		// Linux allows powers of two; no more than is used, for each stream
		// takes memory for its dictionary.
		dict := 4096
		for dict < min(len(src), blockSize) {
			dict *= 2
		}
		config := xz.WriterConfig{DictCap: dict, CheckSum: xz.CRC32}
		out := bytes.NewBuffer(dst)
		zw, err := config.NewWriter(out)
		if err != nil {
			return nil, err
		}
		if _, err := zw.Write(src); err != nil {
			return nil, err
		}
		err = zw.Close()
		return out.Bytes(), err
	}), nil
}

// xzDecoder refuses streams whose dictionary exceeds what images of the block
// size have, before memory is taken for it.
type xzDecoder struct{ dict int }

func (x xzDecoder) decode(dst, src []byte, size int) ([]byte, error) {
	h, err := x.header(src)
	if err != nil {
		return nil, err
	}
	var r io.Reader
	if h.branches == nil {
		r, err = xz.ReaderConfig{DictCap: 4096, SingleStream: true}.NewReader(bytes.NewReader(src))
	} else {
		// The library knows no filters but the last one.
		r, err = lzma.Reader2Config{DictCap: h.dict}.NewReader2(bytes.NewReader(src[h.data:h.end]))
	}
	if err != nil {
		return nil, err
	}
	dst = dst[:size]
	n, err := io.ReadFull(r, dst)
	if err == nil {
		var one [1]byte
		k, err := io.ReadFull(r, one[:])
		if k > 0 {
			return nil, errTooLong
		}
		if err != io.EOF {
			return nil, err
		}
	} else if err != io.EOF && (err != io.ErrUnexpectedEOF || n == len(dst)) {
		return nil, err
	}
	dst = dst[:n]
	if h.branches != nil {
		h.branches(dst)
		check := src[(h.end+3)&^3:]
		if src[7] == xzCRC32 && binary.LittleEndian.Uint32(check) != crc32.ChecksumIEEE(dst) {
			return nil, errors.New("an xz stream whose checksum is another")
		}
	}
	return dst, nil
}

const xzCRC32 = 1

// xzHeader is what the header of a stream's one block says.
type xzHeader struct {
	branches  func([]byte) // undoes a filter for machine code, nil for none
	dict      int
	data, end int // of the LZMA2 data in the stream
}

// header reads the header of the stream's one block: its filters and the
// dictionary's size (the .xz file format 1.2.1, 3.1).
func (x xzDecoder) header(src []byte) (h xzHeader, err error) {
	const header = 12 // of the stream
	if len(src) < header+8 {
		return h, io.ErrUnexpectedEOF
	}
	b := src[header:]
	flags, at := b[1], 2
	if b[0] == 0 { // the index: an empty stream
		return h, nil
	}
	head := 4 * (int(b[0]) + 1)
	if head >= len(b) {
		return h, io.ErrUnexpectedEOF
	}
	for range int(flags>>6&1) + int(flags>>7) { // sizes that may stand here
		for at < head && b[at]&0x80 != 0 {
			at++
		}
		at++
	}
	filters := int(flags&3) + 1
	if filters == 2 && at+2 < head && b[at+1] == 0 { // one without a start of its own
		h.branches = branchFilter(b[at])
		at += 2
	}
	if at+3 > head {
		return h, io.ErrUnexpectedEOF
	}
	if filters > 2 || filters == 2 && h.branches == nil || b[at] != 0x21 {
		return h, fmt.Errorf("an xz stream with a filter that is not x86, arm, armthumb or powerpc: %w", errors.ErrUnsupported)
	}
	bits := b[at+2]
	if bits > 39 || (2|int(bits&1))<<(bits/2+11) > x.dict {
		return h, fmt.Errorf("an xz dictionary (code %d) larger than the %d bytes of a block", bits, x.dict)
	}
	h.dict = (2 | int(bits&1)) << (bits/2 + 11)
	// Another block would have a dictionary of its own.
	end := lzma2End(b, head)
	next := (end+3)&^3 + xzCheckSize(src[7])
	if next >= len(b) {
		return h, io.ErrUnexpectedEOF
	}
	if b[next] != 0 {
		return h, fmt.Errorf("an xz stream of several blocks: %w", errors.ErrUnsupported)
	}
	h.data, h.end = header+head, header+end
	return h, nil
}

// lzma2End goes from chunk to chunk to the end of a block's data, and returns
// at least the length of b if that is not in it.
func lzma2End(b []byte, at int) int {
	for at+6 < len(b) {
		switch c := b[at]; {
		case c == 0:
			return at + 1
		case c < 3: // stored
			at += 4 + int(binary.BigEndian.Uint16(b[at+1:]))
		case c < 0x80:
			return len(b)
		default:
			at += 6 + int(binary.BigEndian.Uint16(b[at+3:]))
			if c >= 0xc0 { // with properties
				at++
			}
		}
	}
	return len(b)
}

// xzCheckSize is the length of a check (the .xz file format 1.2.1, 2.1.1.2).
func xzCheckSize(id byte) int {
	return [...]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[id&15]
}
