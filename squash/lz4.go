package squash

import (
	"encoding/binary"
	"fmt"

	"github.com/pierrec/lz4/v4"
)

// LZ4 compresses with raw LZ4 blocks: the largest images and the least work to
// read them.
type LZ4 struct {
	// Level 0 is the fast method, 1 to 9 are the high-compression one, which
	// takes longer to write and as little to read.
	Level int
}

// ID is 5.
func (LZ4) ID() uint16 { return compLZ4 }

// Options is the version and whether it is high compression; Linux refuses an
// image without it.
func (l LZ4) Options(int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 1)
	return binary.LittleEndian.AppendUint32(b, uint32(min(l.Level, 1)))
}

// Settings names the level.
func (l LZ4) Settings() string {
	if l.Level == 0 {
		return "go lz4 fast, 13 bits"
	}
	return fmt.Sprintf("go lz4 %d", l.Level)
}

// NewEncoder makes an encoder of raw blocks.
func (l LZ4) NewEncoder(blockSize int) (Encoder, error) {
	if l.Level < 0 || l.Level > 9 {
		return nil, badLevel("lz4", l.Level, 1, 9)
	}
	if l.Level == 0 {
		return &lz4Fast{}, nil
	}
	hc := lz4.CompressorHC{Level: lz4.CompressionLevel(1 << (8 + l.Level))}
	return encoderFunc(func(dst, src []byte) ([]byte, error) {
		// Room for less than src: what does not get smaller is stored raw.
		at := len(dst)
		dst = append(dst, src...)
		n, err := hc.CompressBlock(src, dst[at:len(dst)-1])
		if err != nil || n == 0 { // it did not fit
			return dst, nil
		}
		return dst[:at+n], nil
	}), nil
}

type lz4Decoder struct{}

func (lz4Decoder) decode(dst, src []byte, size int) ([]byte, error) {
	dst = dst[:size]
	n, err := lz4.UncompressBlock(src, dst)
	if err != nil {
		return nil, err
	}
	return dst[:n], nil
}
