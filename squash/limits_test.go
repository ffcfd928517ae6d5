package squash_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// zeros never end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func buildError(t *testing.T, src squash.Source, o *squash.Options) error {
	t.Helper()
	err := squash.Build(t.Context(), &memory{}, src, o)
	require.Error(t, err)
	require.Less(t, len(err.Error()), 700)
	return err
}

func TestMaxSize(t *testing.T) {
	sparse := func(typ byte, name string) string { // GNU's old format: 900 GiB in one block
		h := make([]byte, 512)
		copy(h, name)
		copy(h[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00        ")
		h[156] = typ
		copy(h[257:], "ustar  \x00")
		h[483] = 0x80 // the real size, base 256
		copy(h[483+12-5:], []byte{0xe1, 0, 0, 0, 0})
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], []byte{'0' + byte(sum>>15&7), '0' + byte(sum>>12&7), '0' + byte(sum>>9&7), '0' + byte(sum>>6&7), '0' + byte(sum>>3&7), '0' + byte(sum&7), 0, ' '})
		return string(h)
	}
	b := sparse('S', "a") + string(make([]byte, 1024))
	require.ErrorContains(t, buildError(t, squash.Tar(strings.NewReader(b)), &squash.Options{MaxSize: 900<<30 - 1}), "Options.MaxSize")

	two := func() squash.Source {
		return squash.Tar(bytes.NewReader(archive(t, member{name: "a", data: "12345"}, member{name: "b", typ: tar.TypeLink, data: "a"}, member{name: "c", data: "67890"})))
	}
	require.ErrorContains(t, buildError(t, two(), &squash.Options{MaxSize: 9}), "Options.MaxSize")
	for _, limit := range []int64{10, -1} {
		require.NoError(t, squash.Build(t.Context(), &memory{}, two(), &squash.Options{MaxSize: limit}))
	}
	// The default, with sizes that are claimed only.
	src := squash.FromFS(hugeFS{fstest.MapFS{"a": {}, "b": {}}})
	require.ErrorContains(t, buildError(t, src, nil), "Options.MaxSize allows (1099511627776)")
}

// hugeFS has files of 600 GiB.
type hugeFS struct{ fstest.MapFS }

func (h hugeFS) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := h.MapFS.ReadDir(name)
	for i, e := range list {
		list[i] = hugeEntry{e}
	}
	return list, err
}

type hugeEntry struct{ fs.DirEntry }

func (e hugeEntry) Info() (fs.FileInfo, error) {
	fi, err := e.DirEntry.Info()
	return hugeInfo{fi}, err
}

type hugeInfo struct{ fs.FileInfo }

func (hugeInfo) Size() int64 { return 600 << 30 }

func TestMaxNames(t *testing.T) {
	src := func() squash.Source {
		return squash.Tar(bytes.NewReader(archive(t, member{name: "dir/name"}, member{name: "link", typ: tar.TypeSymlink, data: "target"})))
	}
	const all = len("dir") + len("name") + len("link") + len("target")
	require.ErrorContains(t, buildError(t, src(), &squash.Options{MaxNames: int64(all) - 1}), "Options.MaxNames")
	require.ErrorContains(t, buildError(t, src(), &squash.Options{MaxNames: 3}), "Options.MaxNames")
	for _, limit := range []int64{int64(all), -1, 0} {
		require.NoError(t, squash.Build(t.Context(), &memory{}, src(), &squash.Options{MaxNames: limit}))
	}
}

// Directories that no entry stands for count, and their number is limited.
func TestDeepArchive(t *testing.T) {
	at := func(elements int) squash.Source {
		return squash.Tar(bytes.NewReader(archive(t, member{name: strings.Repeat("d/", elements-1) + "f"})))
	}
	require.ErrorContains(t, buildError(t, at(257), nil), "257 elements")
	require.ErrorContains(t, buildError(t, at(256), &squash.Options{MaxEntries: 255}), "Options.MaxEntries")
	require.NoError(t, squash.Build(t.Context(), &memory{}, at(256), &squash.Options{MaxEntries: 256}))
	long := strings.Repeat("x", 4000)
	for _, m := range []member{{name: "../" + long}, {name: "a", typ: tar.TypeLink, data: long}} {
		buildError(t, squash.Tar(bytes.NewReader(archive(t, m))), nil) // says it in a few words
	}
}

func TestAfterTheArchive(t *testing.T) {
	require.ErrorContains(t, buildError(t, squash.Tar(zeros{}), nil), "16 MiB follow")
	whole := archive(t, member{name: "a", data: "1"})
	padded := io.MultiReader(bytes.NewReader(whole), io.LimitReader(zeros{}, 10<<20))
	require.NoError(t, squash.Build(t.Context(), &memory{}, squash.Tar(padded), nil))

	// What fails only at the very end fails the build.
	var gz bytes.Buffer
	zw := gzip.NewWriter(&gz)
	_, _ = zw.Write(whole)
	_, _ = zw.Write(make([]byte, 1<<20))
	require.NoError(t, zw.Close())
	b := gz.Bytes()
	b[len(b)-8] ^= 1
	require.ErrorIs(t, buildError(t, squash.Tar(bytes.NewReader(b)), nil), gzip.ErrChecksum)

	// So does a reader that fails at its end, as one that checks a digest.
	b[len(b)-8] ^= 1
	enc, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	for _, b := range [][]byte{whole, b, enc.EncodeAll(whole, nil)} {
		raw := io.MultiReader(bytes.NewReader(b), failingReader{})
		require.ErrorIs(t, buildError(t, squash.Tar(raw), nil), fs.ErrPermission)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, fs.ErrPermission }

func TestModTimeMustFit(t *testing.T) {
	for _, sec := range []int64{-5, 1 << 32, 99999999999} {
		err := squash.Build(t.Context(), &memory{}, squash.FromFS(fstest.MapFS{}), &squash.Options{ModTime: time.Unix(sec, 0)})
		require.ErrorIs(t, err, fs.ErrInvalid)
		require.ErrorContains(t, err, "Options.ModTime")
	}
	for _, sec := range []int64{0, 1<<32 - 1} {
		require.NoError(t, squash.Build(t.Context(), &memory{}, squash.FromFS(fstest.MapFS{}), &squash.Options{ModTime: time.Unix(sec, 0)}))
	}
}
