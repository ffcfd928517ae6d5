package squash

import (
	"fmt"
	"io/fs"
)

// Compressor is a way to compress an image's blocks. [Zstd], [Gzip], [LZ4] and
// [XZ] are those of this package; sub-package libzstd has the C library's. A
// Compressor is shared by goroutines.
type Compressor interface {
	// ID is the number in the superblock: 1 gzip, 4 xz, 5 lz4, 6 zstd.
	ID() uint16
	// Options is the content of the option block after the superblock, nil
	// for none. Linux needs one for lz4.
	Options(blockSize int) []byte
	// Settings is text that changes whenever the bytes change that an
	// Encoder makes of the same block.
	Settings() string
	// NewEncoder makes an encoder for blocks of up to blockSize bytes (and
	// never below 8,192, which metadata has), or says what is wrong with the
	// settings.
	NewEncoder(blockSize int) (Encoder, error)
}

// MetadataCompressor is a [Compressor] with another encoder for the tables of
// names and attributes. These are a few thousandths of an image and no two parts
// of them can be compressed at once, so that they are worth less time than data.
type MetadataCompressor interface {
	Compressor
	// NewMetadataEncoder makes an encoder for blocks of up to 8,192 bytes.
	NewMetadataEncoder() (Encoder, error)
}

// Encoder compresses block after block; it is used by one goroutine.
type Encoder interface {
	// Encode appends to dst one whole stream that Linux accepts. Equal blocks
	// give equal streams. When there is nothing to gain it may return
	// anything that is not shorter than src, which is then stored as it is.
	Encode(dst, src []byte) ([]byte, error)
}

// encoderFunc is a function that is an Encoder.
type encoderFunc func(dst, src []byte) ([]byte, error)

func (f encoderFunc) Encode(dst, src []byte) ([]byte, error) { return f(dst, src) }

func badLevel(name string, level, low, high int) error {
	return fmt.Errorf("squash: %s level %d: %w: choose %d to %d, or 0 for the default", name, level, fs.ErrInvalid, low, high)
}
