package squash

import "fmt"

// Zstd compresses with Zstandard in pure Go, which Linux reads since 4.14.
type Zstd struct {
	// Level is 1 (fastest) to 4 (smallest), 0 means 2. In size they are about
	// the C library's levels 1, 3, 10 and 13; 3 takes some three times as long
	// as 2 and 4 some five times, more so with large blocks.
	Level int
}

// ID is 6.
func (Zstd) ID() uint16 { return compZstd }

// Options is nil: readers need to know nothing.
func (Zstd) Options(int) []byte { return nil }

// Settings names the level and the encoder, which is the second one.
func (z Zstd) Settings() string { return fmt.Sprintf("go zstd %d, 2", z.level()) }

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
func (z Zstd) NewEncoder(int) (Encoder, error) {
	switch z.level() {
	case 1:
		return newZstdEncoder(&zstdFast{cut: 16, patience: 5}, false), nil
	case 2:
		return newZstdEncoder(&zstdFast{cut: 24, patience: 7}, false), nil
	case 3:
		return newZstdEncoder(&zstdLazy{tries: 4, ahead: 1}, true), nil
	case 4:
		return newZstdEncoder(&zstdLazy{tries: 16, ahead: 2}, true), nil
	}
	return nil, badLevel("zstd", z.Level, 1, 4)
}
