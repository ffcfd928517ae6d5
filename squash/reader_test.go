package squash_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// What lies behind the memory that a caller gives is the caller's.
func TestReadAtKeepsToItsMemory(t *testing.T) {
	const block = 4096
	data := append(text(3*block), noise(1, block/2)...)
	for _, c := range []squash.Compressor{squash.Zstd{}, squash.Gzip{}, squash.LZ4{}, squash.XZ{}} {
		f, err := open(t, buildBytes(t, one("f", data), &squash.Options{BlockSize: block, Compressor: c})).Open("f")
		require.NoError(t, err)
		for _, n := range []int{1, block - 1, block, block + 1, 2 * block, 3 * block, len(data)} {
			for _, off := range []int{0, 1, block} {
				buf := bytes.Repeat([]byte{0xaa}, len(data)+200)
				want := data[off:min(off+n, len(data))]
				got, err := f.(io.ReaderAt).ReadAt(buf[100:100+n], int64(off))
				if len(want) == n {
					require.NoError(t, err)
				} else {
					require.Equal(t, io.EOF, err)
				}
				require.True(t, bytes.Equal(want, buf[100:100+got]))
				require.Equal(t, bytes.Repeat([]byte{0xaa}, 100), buf[:100])
				require.Equal(t, bytes.Repeat([]byte{0xaa}, len(buf)-100-n), buf[100+n:], "%s: %d bytes at %d", c.Settings(), n, off)
			}
		}
	}
}

// Directories that were walked before are found by their paths, with all that is
// above them.
func TestNamesAgain(t *testing.T) {
	link := func(target string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
	}
	src := fstest.MapFS{
		"usr/lib/x/up": link("../../bin/y"), "usr/lib/x/root": link("/usr/bin/y"), "usr/lib/x/over": link("../../../../../usr/bin/y"),
		"usr/bin/y": {Data: []byte("here")}, "usr/l2": link("lib/x"), "usr/lib/bin": {Data: []byte("a file")},
		"usr/lib/x/aside": link("../../share/deep/y"), "usr/share/deep/y": {Data: []byte("here")}, "usr/lib/x/next": link("../sibling"), "usr/lib/sibling": {Data: []byte("here")}, "usr/share/sibling": {Data: []byte("there")},
		"usr/lib/x/through": link("../bin/../sibling"),
	}
	for i := range 600 { // more than are remembered
		src[fmt.Sprintf("d/%03d/f", i)] = &fstest.MapFile{Data: fmt.Append(nil, i)}
	}
	f := open(t, buildBytes(t, src, nil))
	for range 3 {
		for _, name := range []string{"usr/lib/x/up", "usr/lib/x/root", "usr/lib/x/over", "usr/l2/up", "usr/bin/y", "usr/l2/root", "usr/lib/x/aside", "usr/lib/x/next"} {
			require.Equal(t, "here", string(readAll(t, f, name)), name)
		}
		for _, name := range []string{"usr/lib/x/y", "usr/lib/bin/y", "usr/l2/absent", "usr/absent/y", "usr/lib/x/through"} {
			_, err := f.Stat(name)
			require.ErrorIs(t, err, fs.ErrNotExist, name)
		}
		for i := range 600 {
			require.Equal(t, fmt.Sprint(i), string(readAll(t, f, fmt.Sprintf("d/%03d/f", i))))
		}
	}
}

// Decoded blocks whose memory is used again are not those that somebody reads:
// many readers of many more blocks than are kept.
func TestReadersOfOneCache(t *testing.T) {
	const block, files = 131072, 150
	src := fstest.MapFS{}
	for i := range files {
		src[fmt.Sprintf("f%03d", i)] = &fstest.MapFile{Data: append(bytes.Repeat([]byte{byte(i + 1)}, block), bytes.Repeat([]byte{byte(i + 101)}, block/2)...)}
	}
	f := open(t, buildBytes(t, src, &squash.Options{Compressor: squash.LZ4{}}))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			p := make([]byte, 64)
			for i := range 2 * files {
				i = (i*(2*g+1) + 7*g) % files
				h, err := f.Open(fmt.Sprintf("f%03d", i))
				if err != nil {
					t.Error(err)
					return
				}
				for off, want := range map[int64]int{1000: i + 1, block + 1000: i + 101} {
					if _, err := h.(io.ReaderAt).ReadAt(p, off); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{byte(want)}, 64)) {
						t.Errorf("file %d at %d: %v, %v", i, off, p[:4], err)
					}
				}
			}
		})
	}
	wg.Wait()
}
