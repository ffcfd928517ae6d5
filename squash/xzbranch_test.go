package squash_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// machineCode is a piece of this program, and bytes among which every filter
// finds branches, also such that overlap.
func machineCode(t testing.TB) fstest.MapFS {
	t.Helper()
	name, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(name)
	require.NoError(t, err)
	program = program[1<<20:][:200_000]
	r := rand.New(rand.NewPCG(5, 6))
	dense := make([]byte, 150_003)
	for i := range dense {
		dense[i] = []byte{0xe8, 0xe9, 0x00, 0xff, 0x0f, 0x80, 0xeb, 0xf0, 0xf8, 0xf7, 0x48, 0x4b, 0x01, 0xe8, 0x00, 0xff}[r.IntN(16)]
	}
	return fstest.MapFS{"program": {Data: program}, "dense": {Data: dense}, "short": {Data: []byte{0xe8, 0, 0, 0}}}
}

// Filters for machine code as xz makes them: we read what Linux reads.
func TestXzFilters(t *testing.T) {
	need(t, "root", "xz", "mksquashfs")
	src := machineCode(t)
	check := func(t *testing.T, file, filter string) {
		f, err := os.Open(file)
		require.NoError(t, err)
		defer f.Close()
		found := defects(t, f)
		require.Equal(t, filter == "x86", len(found) == 0, "other kernels do not read it")
		for _, d := range found {
			require.Contains(t, d, "an xz filter for "+filter+":")
		}
		image, err := squash.Open(f)
		require.NoError(t, err)
		linux := os.DirFS(mount(t, file))
		for name, want := range src {
			require.True(t, bytes.Equal(want.Data, readAll(t, linux, name)), "Linux: %s", name)
			require.True(t, bytes.Equal(want.Data, readAll(t, image, name)), "%s", name)
		}
	}
	xzOf := func(args ...string) squash.Compressor {
		return odd{Compressor: squash.XZ{}, encode: func(dst, src []byte) ([]byte, error) {
			cmd := exec.Command("xz", append([]string{"--format=xz", "-c"}, args...)...)
			cmd.Stdin = bytes.NewReader(src)
			out, err := cmd.Output()
			return append(dst, out...), err
		}}
	}
	for _, filter := range []string{"x86", "arm", "armthumb", "powerpc"} {
		t.Run(filter, func(t *testing.T) {
			for _, sum := range []string{"none", "crc32"}[min(1, len(filter)-3):] { // both for x86 and arm
				image := buildBytes(t, src, &squash.Options{Compressor: xzOf("--check="+sum, "--"+filter, "--lzma2=dict=64KiB")})
				check(t, imageFile(t, image), filter)
			}
		})
	}
	t.Run("mksquashfs", func(t *testing.T) {
		dir := t.TempDir()
		for name, f := range src {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), f.Data, 0o644))
		}
		file := filepath.Join(t.TempDir(), "image")
		run(t, "mksquashfs", dir, file, "-no-progress", "-quiet", "-comp", "xz", "-Xbcj", "x86,arm")
		check(t, file, "x86") // it takes what is smallest
	})
	t.Run("unknown", func(t *testing.T) {
		image := buildBytes(t, fstest.MapFS{"a": {Data: src["dense"].Data}}, &squash.Options{Compressor: xzOf("--check=crc32", "--sparc", "--lzma2=dict=64KiB")})
		for d, err := range squash.Verify(t.Context(), bytes.NewReader(image), nil) {
			if err == nil {
				err = d
			}
			require.ErrorContains(t, err, "filter")
		}
	})
	t.Run("checksum", func(t *testing.T) {
		image := buildBytes(t, fstest.MapFS{"a": {Data: src["program"].Data[:131072]}}, &squash.Options{Compressor: xzOf("--check=crc32", "--x86", "--lzma2=dict=64KiB")})
		le := binary.LittleEndian
		footer := int(le.Uint64(image[64:])) - 12 // the inode table follows the one stream
		image[footer-4*int(le.Uint32(image[footer+4:])+1)-1] ^= 1
		_, err := open(t, image).ReadFile("a")
		require.ErrorContains(t, err, "checksum")
	})
}
