package squash

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxStreamWindow is what a zstd stream may ask for, in bytes: zstd --long.
const maxStreamWindow = 128 << 20

// decompress looks at a stream's first bytes and decompresses gzip and zstd.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 128<<10)
	head, _ := br.Peek(6) // an error shows when it is read
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(br)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		zr, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxStreamWindow))
		if err != nil {
			return nil, err
		}
		return zr.IOReadCloser(), nil
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")), bytes.HasPrefix(head, []byte("BZh")):
		return nil, fmt.Errorf("the stream is compressed with xz or bzip2: pipe it through that program: %w", errors.ErrUnsupported)
	}
	return io.NopCloser(br), nil
}
