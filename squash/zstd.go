package squash

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Zstd compresses with Zstandard in pure Go, which Linux reads since 4.14.
type Zstd struct {
	// Level is 1 (fastest) to 4 (smallest), 0 means 2. They are about the C
	// library's levels 1, 3, 7 and 11 in size; level 4 is slow.
	Level int
}

// ID is 6.
func (Zstd) ID() uint16 { return compZstd }

// Options is nil: readers need to know nothing.
func (Zstd) Options(int) []byte { return nil }

// Settings names the level.
func (z Zstd) Settings() string { return fmt.Sprintf("go zstd %d", z.level()) }

func (z Zstd) level() int {
	if z.Level == 0 {
		return 2
	}
	return z.Level
}

// NewEncoder makes an encoder of single-segment frames: their window is as
// large as their content, never larger than a block, for Linux mounts images
// with other windows and then fails to read them. Checksums would cost four
// bytes a block that no other writer spends.
func (z Zstd) NewEncoder(blockSize int) (Encoder, error) {
	if z.level() < 1 || z.level() > 4 {
		return nil, badLevel("zstd", z.Level, 1, 4)
	}
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.EncoderLevel(z.level())),
		zstd.WithWindowSize(max(blockSize, metaSize)),
		zstd.WithSingleSegment(true),
		zstd.WithEncoderCRC(false),
		zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderConcurrency(1),
	)
	if err != nil {
		return nil, fmt.Errorf("squash: %w", err)
	}
	return encoderFunc(func(dst, src []byte) ([]byte, error) { return enc.EncodeAll(src, dst), nil }), nil
}
