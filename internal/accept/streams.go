package accept

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/ulikunitz/xz/lzma"

	"github.com/seed-3ec230fa/diskless/squash"
)

// lz4Ends makes blocks that end with copies of these lengths, after which come so
// many literals, of data that ends with one byte again and again and fills a
// block.
func lz4Ends(literals int, copies ...int) squash.Options {
	const block = 128 << 10
	fast := squash.LZ4{}
	length := func(dst []byte, n int) []byte {
		for n -= 15; n >= 255; n -= 255 {
			dst = append(dst, 255)
		}
		if n >= 0 {
			dst = append(dst, byte(n))
		}
		return dst
	}
	return squash.Options{Compressor: custom{fast, fast.Options(block), func(dst, src []byte) ([]byte, error) {
		again := len(src) - len(bytes.TrimRight(src, string(src[len(src)-1:])))
		if len(src) < block || again < 1000 {
			return append(dst, src...), nil
		}
		first, size := len(src)-again+1, again-1-literals
		for _, n := range copies {
			size -= n
		}
		for i, n := range append([]int{size}, copies...) {
			if i > 0 {
				first = 0
			}
			dst = append(dst, byte(min(first, 15)<<4|min(n-4, 15)))
			dst = append(length(dst, first), src[:first]...)
			dst = length(append(dst, 1, 0), n-4)
		}
		return append(append(dst, byte(literals<<4)), src[len(src)-literals:]...), nil
	}}}
}

// xzFilter makes streams with a filter for machine code, of text, in which there
// is nothing for it to change.
func xzFilter(id byte) squash.Options {
	return squash.Options{Compressor: custom{squash.XZ{}, nil, func(dst, src []byte) ([]byte, error) {
		if !bytes.HasPrefix(src, []byte("line ")) {
			return append(dst, src...), nil
		}
		var data bytes.Buffer
		w, err := lzma.Writer2Config{DictCap: 64 << 10}.NewWriter2(&data)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(src); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		// A stream without checks (the .xz file format 1.2.1): header, block,
		// index, footer.
		le := binary.LittleEndian
		sum := func(b []byte) []byte { return le.AppendUint32(b, crc32.ChecksumIEEE(b)) }
		block := sum([]byte{2, 1, id, 0, 0x21, 1, 8, 0})
		block = append(block, data.Bytes()...)
		index := binary.AppendUvarint([]byte{0, 1}, uint64(len(block)))
		index = binary.AppendUvarint(index, uint64(len(src)))
		index = sum(append(index, make([]byte, -len(index)&3)...))
		block = append(block, make([]byte, -len(block)&3)...)
		footer := append(le.AppendUint32(nil, uint32(len(index)/4-1)), 0, 0)
		dst = append(dst, "\xfd7zXZ\x00"...)
		dst = append(dst, sum([]byte{0, 0})...)
		dst = append(append(dst, block...), index...)
		dst = append(le.AppendUint32(dst, crc32.ChecksumIEEE(footer)), footer...)
		return append(dst, "YZ"...), nil
	}}}
}
