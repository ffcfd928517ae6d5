package squash

import (
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// errTooLong is what a decoder says when there is more than there may be.
var errTooLong = errors.New("it decodes to more bytes than it may hold")

// decoder decodes a whole stream of at most size bytes into dst, whose capacity
// is no less. What lies behind is for the decoder to use: with slack bytes of
// it zstd need not look where it writes. It is safe for concurrent use.
type decoder interface {
	decode(dst, src []byte, size int) ([]byte, error)
}

const slack = 32

func newDecoder(id uint16, blockSize int) (decoder, error) {
	switch id {
	case compZstd:
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0),
			zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("squash: %w", err)
		}
		return zstdDecoder{d}, nil
	case compGzip:
		return &zlibDecoder{}, nil
	case compLZ4:
		return lz4Decoder{}, nil
	case compXZ:
		return xzDecoder{dict: max(blockSize, metaSize)}, nil
	case compLZO:
		return lzoDecoder{}, nil
	case compLZMA:
		return nil, fmt.Errorf("squash: the image is compressed with lzma, which Linux does not read either: %w: rebuild it with zstd or gzip", errors.ErrUnsupported)
	}
	return nil, badFormat(20, "unknown compressor %d", id)
}

type zstdDecoder struct{ d *zstd.Decoder }

func (z zstdDecoder) decode(dst, src []byte, size int) ([]byte, error) {
	out, err := z.d.DecodeAll(src, dst[:0])
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || len(out) > size {
		return nil, errTooLong
	}
	if err != nil {
		return nil, err
	}
	// The library may have moved to memory of its own.
	dst = dst[:len(out)]
	if len(out) > 0 && &out[0] != &dst[0] {
		copy(dst, out)
	}
	return dst, nil
}

// zlibDecoder keeps its decoders: each has 20 KB of tables.
type zlibDecoder struct{ pool sync.Pool }

func (z *zlibDecoder) decode(dst, src []byte, size int) ([]byte, error) {
	r, _ := z.pool.Get().(*inflater)
	if r == nil {
		r = &inflater{}
	}
	defer z.pool.Put(r)
	n, err := r.inflate(dst, src, size)
	if err != nil {
		return nil, err
	}
	return dst[:n], nil
}
