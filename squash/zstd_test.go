package squash_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// zstdBlocks are blocks that make the encoder do each thing that it can do.
func zstdBlocks() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	// Copies by the last offsets, with and without literals between them.
	again := noise(5, 3000)
	for len(again) < 1<<17 {
		for _, back := range []int{1000, 1000, 333, 332, 1000, 2000, 333, 2000} {
			again = append(again, again[len(again)-back:][:4+r.IntN(30)]...)
			again = append(again, noise(r.Uint64(), r.IntN(3))...)
		}
	}
	blocks := map[string][]byte{
		"again":                    again,
		"long literals and copies": append(append(noise(6, 70000), make([]byte, 70000)...), text(300)...),
		"noise between":            append(append(text(1<<17), noise(7, 1<<17)...), text(1<<17+5000)...),
		"large":                    append(append(text(300000), noise(8, 100000)...), text(500000)...),
		"parts":                    bytes.Join([][]byte{text(40000), noise(9, 200), bytes.Repeat(noise(10, 7), 3000), again[:20000]}, nil),
		"one byte":                 bytes.Repeat([]byte("x"), 1<<17),
		"two bytes":                bytes.Repeat([]byte("xy"), 5000),
	}
	skewed := make([]byte, 1<<17+200) // literals nearly only, of few bits
	for i := range skewed {
		skewed[i] = byte(min(r.IntN(24), r.IntN(24), r.IntN(24)) * 9)
	}
	blocks["few bits"], blocks["fewer bytes"], blocks["few bytes"] = skewed, skewed[:3000], skewed[:700]
	other := bytes.Clone(skewed[:60000])
	for i := range other {
		other[i] ^= 0xff
	}
	blocks["two kinds"] = append(other, skewed[:60000]...)
	for _, n := range []int{1, 2, 3, 7, 8, 9, 15, 16, 17, 20, 31, 32, 33, 63, 64, 100, 255, 256, 257, 1023, 1024, 4095, 4096, 8192, 65791, 65792} {
		blocks[fmt.Sprint("text ", n)] = text(n)
	}
	for name, b := range deflated() {
		blocks[name] = b
	}
	return blocks
}

// zstdBack has another library decode a block, and checks what Linux needs: one
// frame without a checksum whose window is its content.
func zstdBack(t testing.TB, enc squash.Encoder, dec *zstd.Decoder, content []byte) []byte {
	t.Helper()
	out, err := enc.Encode([]byte("before"), content)
	require.NoError(t, err)
	require.Equal(t, "before", string(out[:6]))
	if out = out[6:]; len(out) >= len(content) {
		return out // it is not stored
	}
	require.Equal(t, uint32(0xfd2fb528), binary.LittleEndian.Uint32(out))
	require.Equal(t, byte(0x20), out[4]&^0xc0, "frame header")
	back, err := dec.DecodeAll(out, nil)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, back))
	return out
}

func TestZstdEncoder(t *testing.T) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	require.NoError(t, err)
	defer dec.Close()
	blocks := zstdBlocks()
	for level := 1; level <= 4; level++ {
		used, err := squash.Zstd{Level: level}.NewEncoder(1 << 20)
		require.NoError(t, err)
		for name, content := range blocks {
			t.Run(fmt.Sprint(level, " ", name), func(t *testing.T) {
				fresh, err := squash.Zstd{Level: level}.NewEncoder(1 << 20)
				require.NoError(t, err)
				out := zstdBack(t, fresh, dec, content)
				again := zstdBack(t, used, dec, content)
				require.True(t, bytes.Equal(out, again), "it depends on the blocks before")
				switch name {
				case "few bits", "two kinds", "fewer bytes", "few bytes":
					require.Less(t, len(out), len(content)*4/5)
				case "text 8192", "large", "one byte", "zeros", "parts":
					require.Less(t, len(out), len(content)/2)
				}
			})
		}
	}
}

// A higher level makes less of this package's source, and none makes much more
// than the other library.
func TestZstdLevels(t *testing.T) {
	var source []byte
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range names {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		source = append(source, b...)
	}
	source = source[:1<<17]
	last := len(source)
	for level := 1; level <= 4; level++ {
		enc, err := squash.Zstd{Level: level}.NewEncoder(1 << 17)
		require.NoError(t, err)
		out, err := enc.Encode(nil, source)
		require.NoError(t, err)
		require.Less(t, len(out), last, "level %d", level)
		last = len(out)
		other, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevel(level)), zstd.WithEncoderCRC(false))
		require.NoError(t, err)
		require.Less(t, len(out), len(other.EncodeAll(source, nil))*103/100, "level %d", level)
	}
}

func FuzzZstdEncoder(f *testing.F) {
	for _, content := range zstdBlocks() {
		if len(content) < 10000 {
			f.Add(content, uint8(3), uint32(len(content)))
		}
	}
	f.Add([]byte("abcdabcdeabcdabcde"), uint8(4), uint32(300000))
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	require.NoError(f, err)
	var encs []squash.Encoder
	for level := 1; level <= 4; level++ {
		enc, err := squash.Zstd{Level: level}.NewEncoder(1 << 20)
		require.NoError(f, err)
		encs = append(encs, enc)
	}
	f.Fuzz(func(t *testing.T, content []byte, level uint8, n uint32) {
		// Longer ones out of what there is, a byte changed each time.
		for i := 0; len(content) > 0 && len(content) < int(n%(1<<18)); i++ {
			more := content[:min(len(content), int(n%(1<<18))-len(content))]
			content = append(bytes.Clone(content), more...)
			content[len(content)-1-i*7919%len(more)]++
		}
		zstdBack(t, encs[level%4], dec, content)
	})
}

func BenchmarkZstd(b *testing.B) {
	block := zstdBlocks()["far"]
	for level := 1; level <= 4; level++ {
		b.Run(fmt.Sprint(level), func(b *testing.B) {
			enc, err := squash.Zstd{Level: level}.NewEncoder(1 << 17)
			require.NoError(b, err)
			out := make([]byte, 0, 1<<18)
			b.SetBytes(int64(len(block)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := enc.Encode(out[:0], block); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
