package squash_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// blockImage is an image with one file, which is one stored block, whatever
// that is.
func blockImage(compressor uint16, stored []byte, size int) []byte {
	l := rawListing(rawEntry{32, 2, 2, "f"})
	r := rawImage{inodes: append(rawDir(1, 0, len(l)), rawInode(2, 2, 96, 0xffffffff, 0, uint32(size), uint32(len(stored)))...), dirs: l, count: 2}
	b := r.bytes()
	// The tables move up behind the block.
	out := append(b[:96:96], stored...)
	out = append(out, b[96:]...)
	le := binary.LittleEndian
	n := uint64(len(stored))
	for _, at := range []int{40, 48, 64, 72} {
		le.PutUint64(out[at:], le.Uint64(out[at:])+n)
	}
	list := le.Uint64(out[48:])
	le.PutUint64(out[list:], le.Uint64(out[list:])+n)
	le.PutUint16(out[20:], compressor)
	return out
}

// What decoders make of any bytes: what belongs there, or an error.
func FuzzDecode(f *testing.F) {
	content := append(text(2000), noise(5, 100)...)
	for _, c := range []squash.Compressor{squash.Zstd{}, squash.Gzip{}, squash.LZ4{}, squash.XZ{}} {
		e, err := c.NewEncoder(4096)
		require.NoError(f, err)
		b, err := e.Encode(nil, content)
		require.NoError(f, err)
		f.Add(c.ID(), b, uint16(len(content)))
		f.Add(c.ID(), b[:len(b)/2], uint16(len(content)))
		f.Add(c.ID(), b, uint16(7))
	}
	bcj, err := hex.DecodeString("fd377a585a0000016922de360201040021010000da33ad0301000ce805000000e80b0000006162630000000016c7c9c70001210d75dca8d29042990d010000000001595a")
	require.NoError(f, err)
	f.Add(uint16(4), bcj, uint16(12))                                        // a filter for x86
	f.Add(uint16(3), []byte("\x16hello\x11\x00\x00"), uint16(5))             // LZO: five bytes as they are, the end
	f.Add(uint16(3), []byte("\x15abcd\x2c\x0c\x00\x11\x00\x00"), uint16(18)) // and then some of them again
	f.Add(uint16(3), []byte("\x00\x00\x00\x00\x00"), uint16(4096))
	f.Add(uint16(3), []byte("\x20\x00\x00\x00\x00\x00\x00\x01\x00\x00"), uint16(4096))
	f.Fuzz(func(t *testing.T, compressor uint16, stored []byte, size uint16) {
		if len(stored) > 4096 || len(stored) == 0 {
			return
		}
		want := int(size)%4096 + 1
		image, err := squash.Open(bytes.NewReader(blockImage(compressor%8, stored, want)))
		if err != nil {
			return
		}
		r, err := image.Open("f")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err == nil && len(b) != want {
			t.Fatalf("%d bytes of %d and no error", len(b), want)
		}
	})
}

// The seeds are what they are said to be.
func TestBlockImage(t *testing.T) {
	for stored, want := range map[string]string{"\x16hello\x11\x00\x00": "hello"} {
		image := open(t, blockImage(3, []byte(stored), len(want)))
		require.Equal(t, want, string(readAll(t, image, "f")))
	}
}
