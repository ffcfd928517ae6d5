package squash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz"
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
	if err := x.check(src); err != nil {
		return nil, err
	}
	zr, err := xz.ReaderConfig{DictCap: 4096, SingleStream: true}.NewReader(bytes.NewReader(src))
	if err != nil {
		return nil, err
	}
	dst = dst[:size]
	n, err := io.ReadFull(zr, dst)
	if err == nil {
		var one [1]byte
		if k, _ := io.ReadFull(zr, one[:]); k > 0 {
			return nil, errTooLong
		}
		return dst, nil
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF && n < len(dst) {
		return dst[:n], nil
	}
	return nil, err
}

// check reads the header of the stream's one block: its filters, of which
// LZMA2 is the only one known here, and the dictionary's size.
func (x xzDecoder) check(src []byte) error {
	const header = 12 // of the stream
	if len(src) < header+8 {
		return io.ErrUnexpectedEOF
	}
	b := src[header:]
	flags, at := b[1], 2
	if b[0] == 0 { // the index: an empty stream
		return nil
	}
	for range int(flags>>6&1) + int(flags>>7) { // sizes that may stand here
		for at < len(b) && b[at]&0x80 != 0 {
			at++
		}
		at++
	}
	if at+3 > len(b) {
		return io.ErrUnexpectedEOF
	}
	if flags&3 != 0 || b[at] != 0x21 {
		return fmt.Errorf("an xz stream with a filter for machine code (-Xbcj): %w", errors.ErrUnsupported)
	}
	bits := b[at+2]
	head := 4 * (int(b[0]) + 1)
	if bits > 40 || bits < 40 && (2|int(bits&1))<<(bits/2+11) > x.dict || bits == 40 {
		return fmt.Errorf("an xz dictionary (code %d) larger than the %d bytes of a block", bits, x.dict)
	}
	// Another block would have a dictionary of its own.
	next := (lzma2End(b, head)+3)&^3 + xzCheckSize(src[7])
	if next >= len(b) {
		return io.ErrUnexpectedEOF
	}
	if b[next] != 0 {
		return fmt.Errorf("an xz stream of several blocks: %w", errors.ErrUnsupported)
	}
	return nil
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
