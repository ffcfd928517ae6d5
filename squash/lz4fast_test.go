package squash_test

import (
	"bytes"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// lz4Back encodes a block and has another library decode it, and checks what
// decoders in C rely on: the last five bytes are literals, and no copy begins in
// the last twelve.
func lz4Back(t testing.TB, enc squash.Encoder, content []byte) []byte {
	t.Helper()
	out, err := enc.Encode([]byte("before"), content)
	require.NoError(t, err)
	require.Equal(t, "before", string(out[:6]))
	out = out[6:]
	require.LessOrEqual(t, len(out), len(content)+len(content)/255+16)
	back := make([]byte, len(content)+1)
	n, err := lz4.UncompressBlock(out, back)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, back[:n]), "%d bytes", len(content))

	for at, from := 0, 0; at < len(out); {
		length := func(n int) int {
			if n == 15 {
				for more := byte(255); more == 255; at++ {
					more = out[at]
					n += int(more)
				}
			}
			return n
		}
		token := out[at]
		at++
		n := length(int(token >> 4))
		at += n
		from += n
		if at == len(out) {
			require.GreaterOrEqual(t, n, min(5, len(content)))
			break
		}
		require.LessOrEqual(t, from, len(content)-12)
		at += 2
		from += 4 + length(int(token&15))
	}
	return out
}

func TestLZ4Fast(t *testing.T) {
	enc, err := squash.LZ4{}.NewEncoder(1 << 20)
	require.NoError(t, err)
	for name, content := range deflated() {
		out := lz4Back(t, enc, content)
		again, err := enc.Encode(make([]byte, 0, 2<<17), content)
		require.NoError(t, err)
		require.True(t, bytes.Equal(out, again), "%s: the same bytes in give others out", name)
		for _, n := range []int{0, 1, 4, 11, 12, 13, 14, 17, 20, 21, 300, 65600} {
			if n < len(content) {
				lz4Back(t, enc, content[:n])
				lz4Back(t, enc, content[len(content)-n:])
			}
		}
	}
	require.Less(t, len(lz4Back(t, enc, text(1<<20))), 5000)
	for n := 65534; n < 65538; n++ { // as far as a copy reaches, and farther
		content := append(append(noise(1, 20), make([]byte, n-20)...), noise(1, 40)...)
		lz4Back(t, enc, content)
	}
	dst, src := make([]byte, 0, 2<<17), text(1<<17)
	require.Zero(t, testing.AllocsPerRun(10, func() { _, _ = enc.Encode(dst, src) }))
}

func FuzzLZ4Fast(f *testing.F) {
	for _, content := range deflated() {
		f.Add(content[:min(len(content), 3000)], uint16(100))
	}
	enc, err := squash.LZ4{}.NewEncoder(1 << 20)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, b []byte, again uint16) {
		lz4Back(t, enc, append(b, b[:min(len(b), int(again))]...))
	})
}

func BenchmarkLZ4Fast(b *testing.B) {
	enc, err := squash.LZ4{}.NewEncoder(1 << 17)
	require.NoError(b, err)
	dst, src := make([]byte, 0, 2<<17), deflated()["far"]
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := enc.Encode(dst, src); err != nil {
			b.Fatal(err)
		}
	}
}
