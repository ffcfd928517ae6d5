package squash_test

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/adler32"
	"io"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// inflated is what we read of an image whose one block is a zlib stream.
func inflated(stored []byte, size int) ([]byte, error) {
	b := blockImage(1, stored, size)
	binary.LittleEndian.PutUint32(b[12:], 1<<17)
	binary.LittleEndian.PutUint16(b[22:], 17)
	image, err := squash.Open(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return image.ReadFile("f")
}

// sameAsZlib compares with the standard library: the same bytes or two errors.
func sameAsZlib(t testing.TB, stored []byte, size int) {
	t.Helper()
	var want []byte
	r, err := zlib.NewReader(bytes.NewReader(stored))
	if err == nil {
		want, err = io.ReadAll(io.LimitReader(r, int64(size)+1))
	}
	if err == nil && len(want) != size {
		err = fmt.Errorf("%d bytes", len(want))
	}
	got, ours := inflated(stored, size)
	require.Equal(t, err == nil, ours == nil, "zlib: %v, ours: %v", err, ours)
	if err == nil {
		require.True(t, bytes.Equal(want, got), "%d bytes", size)
	}
}

func deflate(t testing.TB, level int, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, level)
	require.NoError(t, err)
	_, err = w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

// deflated are contents with all that the format has: literals and copies, codes
// of all lengths, near and far distances, blocks that are stored.
func deflated() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	skewed := make([]byte, 100000) // codes of up to 15 bits
	for i := range skewed {
		skewed[i] = byte(bits.TrailingZeros32(r.Uint32()|1<<18)*8 + r.IntN(2))
	}
	var far []byte // copies from everywhere
	for pool := noise(3, 40000); len(far) < 1<<17-300; {
		n := r.IntN(len(pool) - 300)
		if r.IntN(3) > 0 && len(far) > 300 { // more of them near
			n = 1 + r.IntN(1<<r.IntN(15))%(len(far)-1)
			far = append(far, far[len(far)-n:][:min(n, 3+r.IntN(20))]...)
			continue
		}
		far = append(far, pool[n:n+3+r.IntN(260)]...)
	}
	var runs []byte // copies that overlap
	for len(runs) < 60000 {
		piece := noise(r.Uint64(), 1+r.IntN(20))
		runs = append(runs, bytes.Repeat(piece, 1+r.IntN(60))...)
	}
	return map[string][]byte{
		"text": text(100000), "noise": noise(1, 70000), "zeros": make([]byte, 1<<17), "skewed": skewed, "far": far, "runs": runs,
		"one": []byte("1"), "few": []byte("few of them, few of them"), "mixed": append(noise(2, 30000), text(30000)...),
	}
}

func TestInflate(t *testing.T) {
	for name, content := range deflated() {
		for _, level := range []int{zlib.HuffmanOnly, zlib.NoCompression, 1, 6, 9} {
			stored := deflate(t, level, content)
			if len(stored) > 1<<17 {
				continue
			}
			got, err := inflated(stored, len(content))
			require.NoError(t, err, "%s %d", name, level)
			require.True(t, bytes.Equal(content, got), "%s %d", name, level)
			if len(content) > 1 {
				_, err = inflated(stored, len(content)-1)
				require.Error(t, err, "room for less")
			}
			if len(content) < 1<<17 {
				_, err = inflated(stored, len(content)+1)
				require.Error(t, err, "too little")
			}
		}
	}
}

// Streams that are cut or flipped are what zlib takes them for.
func TestInflateDamaged(t *testing.T) {
	for _, content := range deflated() {
		content = content[:min(len(content), 5000)]
		for _, level := range []int{zlib.HuffmanOnly, zlib.NoCompression, 6} {
			stored := deflate(t, level, content)
			for i := 1; i < len(stored); i += 1 + len(stored)/30 {
				_, err := inflated(stored[:i], len(content))
				require.Error(t, err)
				bad := bytes.Clone(stored)
				bad[i] ^= 1 << (i % 8)
				sameAsZlib(t, bad, len(content))
			}
		}
	}
}

// A copy of what was before the beginning.
func TestInflateBeyondTheBeginning(t *testing.T) {
	for _, n := range []int{300, 3000} { // with the end in sight and without
		content := noise(1, n)
		var b bytes.Buffer
		b.WriteString("\x78\x9c")
		w, err := flate.NewWriterDict(&b, 6, content[:200])
		require.NoError(t, err)
		_, err = w.Write(content)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		stored := binary.BigEndian.AppendUint32(b.Bytes(), adler32.Checksum(content))
		_, err = inflated(stored, n)
		require.ErrorContains(t, err, "not a zlib stream, or a damaged one")
	}
}

func FuzzInflate(f *testing.F) {
	for _, content := range deflated() {
		content = content[:min(len(content), 3000)]
		for _, level := range []int{zlib.HuffmanOnly, zlib.NoCompression, 6} {
			f.Add(deflate(f, level, content), uint32(len(content)))
		}
	}
	f.Add([]byte("\x78\x9c\x63\x00\x00\x00\x01\x00\x01"), uint32(1)) // the fixed codes
	f.Fuzz(func(t *testing.T, stored []byte, size uint32) {
		if len(stored) > 0 && len(stored) <= 1<<17 {
			sameAsZlib(t, stored, 1+int(size%(1<<17)))
		}
	})
}

func BenchmarkInflate(b *testing.B) {
	content := deflated()["far"]
	image, err := squash.Open(bytes.NewReader(buildBytes(b, one("f", content), &squash.Options{Compressor: squash.Gzip{}})))
	require.NoError(b, err)
	f, err := image.Open("f")
	require.NoError(b, err)
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = f.(io.Seeker).Seek(0, io.SeekStart)
		if _, err := f.(io.WriterTo).WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
