package squash_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// benchTree makes about 50 MB of files on disk: small, large, half of the
// bytes compressible.
func benchTree(b *testing.B) (string, int64) {
	b.Helper()
	root := b.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	var total int64
	for i := range 1200 {
		n := 1000 + r.IntN(8000)
		if i%20 == 0 {
			n = 500000 + r.IntN(600000)
		}
		data := make([]byte, 0, n+64)
		for len(data) < n {
			if r.IntN(2) == 0 {
				data = append(data, noise(r.Uint64(), 64)...)
			} else {
				data = append(data, text(64)...)
			}
		}
		dir := filepath.Join(root, fmt.Sprintf("d%02d", i%40))
		require.NoError(b, os.MkdirAll(dir, 0o755))
		require.NoError(b, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%04d", i)), data, 0o644))
		total += int64(len(data))
	}
	return root, total
}

func BenchmarkBuild(b *testing.B) {
	root, total := benchTree(b)
	path := filepath.Join(b.TempDir(), "image")
	b.SetBytes(total)
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, squash.BuildFile(b.Context(), path, squash.Dir(root), nil))
	}
}

func BenchmarkReadAll(b *testing.B) {
	root, total := benchTree(b)
	image := buildBytes(b, os.DirFS(root), nil)
	b.SetBytes(total)
	b.ReportAllocs()
	for b.Loop() {
		f := open(b, image)
		require.NoError(b, fs.WalkDir(f, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			file, err := f.Open(name)
			if err != nil {
				return err
			}
			defer file.Close()
			_, err = io.Copy(io.Discard, file)
			return err
		}))
	}
}

func BenchmarkRandomReads(b *testing.B) {
	data := append(text(16<<20), noise(1, 16<<20)...)
	image := open(b, buildBytes(b, one("f", data), nil))
	f, err := image.Open("f")
	require.NoError(b, err)
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		off := r.Int64N(int64(len(data) - len(p)))
		if _, err := f.(io.ReaderAt).ReadAt(p, off); err != nil || !bytes.Equal(p, data[off:off+4096]) {
			b.Fatal(off, err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	src := one("d/a", nil)
	for i := range 100000 {
		src[fmt.Sprintf("d/name%06d", i)] = src["d/a"]
	}
	image := open(b, buildBytes(b, src, nil))
	r := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := image.Lstat(fmt.Sprintf("d/name%06d", r.IntN(100000))); err != nil {
			b.Fatal(err)
		}
	}
}

func one(name string, data []byte) fstest.MapFS {
	return fstest.MapFS{name: {Data: data, Mode: 0o644}}
}
