//go:build cgo

package libzstd_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"

	czstd "github.com/DataDog/zstd"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/libzstd"
)

// prose is some MB of words with repetitions near and far.
func prose(n int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	words := bytes.Fields([]byte("root machine network image the of and kernel block server boots reads writes 0 1 2 \x00 \xff"))
	var b []byte
	for len(b) < n {
		b = append(append(b, words[r.IntN(len(words))]...), byte(r.IntN(40)))
	}
	return b[:n]
}

func build(t testing.TB, src fs.FS, opts *squash.Options) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	require.NoError(t, squash.BuildFile(context.Background(), path, squash.FromFS(src), opts))
	return path
}

// Linux mounts an image with larger windows, and fails to read it.
func TestWindows(t *testing.T) {
	data := prose(1 << 20)
	for level := 1; level <= 22; level++ {
		for _, block := range []int{4096, 131072, 1 << 20} {
			enc, err := libzstd.Zstd{Level: level}.NewEncoder(max(block, 8192))
			require.NoError(t, err)
			sizes := []int{1, 100, 8192, block - 1, block}
			if level > 9 { // which take their time
				sizes = []int{100, block}
			}
			if level > 12 && level < 22 && block > 200000 {
				continue
			}
			for _, n := range sizes {
				prefix := []byte("before")
				out, err := enc.Encode(prefix, data[:n])
				require.NoError(t, err)
				require.Equal(t, "before", string(out[:6]))
				out = out[6:]
				var h zstd.Header
				require.NoError(t, h.Decode(out))
				require.False(t, h.HasCheckSum)
				window := h.WindowSize
				if h.SingleSegment {
					window = h.FrameContentSize
				}
				require.LessOrEqual(t, window, uint64(max(n, 1024)), "level %d, %d bytes", level, n)
				if n < 200000 {
					again, err := enc.Encode(make([]byte, 0, 2<<20), data[:n])
					require.NoError(t, err)
					require.Equal(t, out, again, "the same bytes in give others out")
				}
			}
		}
	}
}

// Every byte comes back, from us and from the kernel.
func TestImages(t *testing.T) {
	noise := make([]byte, 300001)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	src := fstest.MapFS{
		"prose": {Data: prose(1<<20 + 3<<17 + 77)}, "noise": {Data: noise}, "zero": {Data: make([]byte, 1<<20+1)}, "a": {Data: []byte("a")},
	}
	for i, level := range []int{0, 1, 9, 15, 19, 22} {
		block := []int{131072, 4096, 1 << 20}[i%3]
		t.Run(fmt.Sprint(level, " ", block), func(t *testing.T) {
			path := build(t, src, &squash.Options{Compressor: libzstd.Zstd{Level: level}, BlockSize: block})
			f, err := os.Open(path)
			require.NoError(t, err)
			defer f.Close()
			image, err := squash.Open(f)
			require.NoError(t, err)
			require.Equal(t, "zstd", image.Info().Compressor)
			for name, want := range src {
				got, err := image.ReadFile(name)
				require.NoError(t, err)
				require.True(t, bytes.Equal(want.Data, got), name)
			}
			if os.Geteuid() != 0 {
				if os.Getenv("DISKLESS_REQUIRE") == "all" {
					t.Fatal("needs root, and DISKLESS_REQUIRE=all")
				}
				t.Skip("needs root")
			}
			for name, want := range src {
				sum := fmt.Sprintf(`mount -t squashfs -o loop,ro "$1" "$2" && cat "$2/%s"`, name)
				got, err := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", sum, "sh", path, t.TempDir()).Output()
				require.NoError(t, err, name)
				require.True(t, bytes.Equal(want.Data, got), "the kernel: %s", name)
			}
		})
	}
}

func TestSameBytesWhateverTheWorkers(t *testing.T) {
	src := fstest.MapFS{"prose": {Data: prose(2 << 20)}, "b": {Data: prose(300000)}}
	var first []byte
	for _, workers := range []int{1, 4} {
		image, err := os.ReadFile(build(t, src, &squash.Options{Compressor: libzstd.Zstd{}, Workers: workers}))
		require.NoError(t, err)
		if first == nil {
			first = image
		}
		require.True(t, bytes.Equal(first, image))
	}
}

// The C library, whose decoder is the one of Linux, reads what is encoded in Go.
func TestDecodesPureGo(t *testing.T) {
	noise := make([]byte, 200000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	for _, content := range [][]byte{
		prose(1000), prose(8192), prose(131072), prose(1 << 20), bytes.Repeat([]byte{7}, 1<<18), append(prose(150000), noise...),
		append(bytes.Repeat(noise[:90000], 3), prose(500000)...),
	} {
		for level := 1; level <= 4; level++ {
			enc, err := squash.Zstd{Level: level}.NewEncoder(1 << 20)
			require.NoError(t, err)
			out, err := enc.Encode(nil, content)
			require.NoError(t, err)
			require.Less(t, len(out), len(content))
			back, err := czstd.Decompress(nil, out)
			require.NoError(t, err)
			require.True(t, bytes.Equal(content, back), "level %d, %d bytes", level, len(content))
		}
	}
}

func TestLevelsThatDoNotExist(t *testing.T) {
	for _, level := range []int{-1, 23} {
		_, err := libzstd.Zstd{Level: level}.NewEncoder(4096)
		require.ErrorIs(t, err, fs.ErrInvalid)
	}
}

// Settings must change when the library does.
func TestVersion(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	require.Contains(t, string(mod), "github.com/DataDog/zstd v"+libzstd.Version+"\n")
}

func BenchmarkEncode(b *testing.B) {
	data := prose(131072)
	enc, err := libzstd.Zstd{}.NewEncoder(len(data))
	require.NoError(b, err)
	dst := make([]byte, 0, 2*len(data))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := enc.Encode(dst, data); err != nil {
			b.Fatal(err)
		}
	}
}
