package squash_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// Every compressor, level and extreme block size: the kernel and unsquashfs
// read every byte.
func TestCompressors(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	words := bytes.Fields([]byte("root machine network image the of and kernel block server boots reads writes 0 1 2 \x00 \xff"))
	var prose []byte
	for len(prose) < 1<<20+3<<17+77 {
		prose = append(append(prose, words[r.IntN(len(words))]...), byte(r.IntN(40)))
	}
	tree := func(block int) fstest.MapFS { // some blocks and a tail of each
		return fstest.MapFS{
			"prose": {Data: prose[:min(9*block+77, len(prose))], Mode: 0o644}, "noise": {Data: noise(1, min(block+block/3, 300001)), Mode: 0o644},
			"zero": {Data: make([]byte, block+1), Mode: 0o644}, "a": {Data: []byte("a"), Mode: 0o644},
			"text": {Data: text(min(2*block, 1<<20+100)), Mode: 0o644}, "half": {Data: append(noise(2, min(block/2, 60000)), text(min(block*2/3, 80000))...), Mode: 0o644},
			"l": {Data: []byte("a"), Mode: fs.ModeSymlink | 0o777},
		}
	}
	var all []squash.Compressor
	for level := range 10 {
		all = append(all, squash.LZ4{Level: level})
		if level > 0 {
			all = append(all, squash.Gzip{Level: level})
		}
		if level > 0 && level < 5 {
			all = append(all, squash.Zstd{Level: level})
		}
	}
	all = append(all, squash.XZ{})
	sizes := []int{4096, 131072, 1 << 20}
	for i, comp := range all {
		blocks := sizes[i%3 : i%3+1] // all sizes for the defaults
		switch comp {
		case squash.Zstd{Level: 2}, squash.Zstd{Level: 4}, squash.Gzip{Level: 6}, squash.LZ4{}, squash.XZ{}:
			blocks = sizes
		}
		for _, block := range blocks {
			t.Run(fmt.Sprint(comp.Settings(), " ", block), func(t *testing.T) {
				src := tree(block)
				image := buildBytes(t, src, &squash.Options{Compressor: comp, BlockSize: block})
				f := open(t, image)
				require.Equal(t, comp.ID(), map[string]uint16{"gzip": 1, "xz": 4, "lz4": 5, "zstd": 6}[f.Info().Compressor])
				for _, m := range []struct {
					name string
					fsys func() fs.FS
				}{{"Open", func() fs.FS { return f }}, {"kernel", func() fs.FS { return os.DirFS(mount(t, imageFile(t, image))) }}} {
					fsys := m.fsys()
					for name, want := range src {
						if want.Mode.IsRegular() {
							require.True(t, bytes.Equal(want.Data, readAll(t, fsys, name)), "%s: %s", m.name, name)
						}
					}
				}
				need(t, "unsquashfs")
				run(t, "unsquashfs", "-strict-errors", "-quiet", "-no-progress", "-d", filepath.Join(t.TempDir(), "out"), imageFile(t, image))
			})
		}
	}
}

func TestLevelsThatDoNotExist(t *testing.T) {
	for _, c := range []squash.Compressor{squash.Zstd{Level: 5}, squash.Zstd{Level: -1}, squash.Gzip{Level: 10}, squash.LZ4{Level: -1}, squash.LZ4{Level: 10}} {
		err := squash.Build(t.Context(), &memory{}, squash.FromFS(fstest.MapFS{}), &squash.Options{Compressor: c})
		require.ErrorIs(t, err, fs.ErrInvalid)
		require.ErrorContains(t, err, "choose 1 to")
	}
}

// Files with equal content take the room of one, whatever they share it with.
func TestDuplicates(t *testing.T) {
	const block = 4096
	big := noise(1, 20*block+100)
	size := func(files ...[]byte) int64 {
		src := fstest.MapFS{}
		for i, data := range files {
			src[fmt.Sprintf("f%d", i)] = &fstest.MapFile{Data: data, Mode: 0o644}
		}
		image := buildBytes(t, src, &squash.Options{BlockSize: block})
		f := open(t, image)
		for i, data := range files {
			require.True(t, bytes.Equal(data, readAll(t, f, fmt.Sprintf("f%d", i))))
		}
		return f.Info().Size
	}
	once := size(big)
	require.Less(t, size(big, big, big, big), once+300)
	require.Less(t, size(noise(2, 3000), noise(2, 3000), noise(2, 3000)), size(noise(2, 3000))+300)
	// The last block alone differs: nothing can be shared.
	other := bytes.Clone(big)
	other[20*block-1]++
	require.Greater(t, size(big, other), 2*once-block)
	// Zeros are no data to share, and do no harm.
	require.Less(t, size(make([]byte, 5*block), make([]byte, 5*block), make([]byte, block), nil, nil), int64(900))
	// A duplicate at the end is taken back, and what follows stands in its place.
	require.Less(t, size(big, big, noise(5, 9*block)), once+9*block+300)
}

// A memory without Truncate keeps no bytes beyond the image but zeros.
func TestDuplicatesLeaveNoTrace(t *testing.T) {
	src := fstest.MapFS{}
	for i := range 2 {
		src[fmt.Sprintf("f%d", i)] = &fstest.MapFile{Data: noise(1, 1<<20), Mode: 0o644}
	}
	image := buildBytes(t, src, nil)
	used := open(t, image).Info().Size
	require.Greater(t, int64(len(image)), used+1<<19)
	require.Equal(t, make([]byte, int64(len(image))-used), image[used:])
	path := filepath.Join(t.TempDir(), "image")
	require.NoError(t, squash.BuildFile(t.Context(), path, squash.FromFS(src), nil))
	fi, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, (used+4095)&^4095, fi.Size())
}

func TestFragmentSize(t *testing.T) {
	src := fstest.MapFS{}
	for i := range 100 {
		src[fmt.Sprintf("f%02d", i)] = &fstest.MapFile{Data: noise(uint64(i), 5000), Mode: 0o644}
	}
	src["f99"].Data = noise(1, 50000)
	for _, tt := range []struct{ size, fragments int }{{0, 5}, {131072, 5}, {32768, 17}, {5000, 99}, {4999, 0}, {-1, 0}} {
		image := buildBytes(t, src, &squash.Options{FragmentSize: tt.size})
		require.Equal(t, tt.fragments, open(t, image).Info().Fragments, "fragment size %d", tt.size)
		if tt.fragments > 0 { // each block as small as it was asked for
			require.LessOrEqual(t, len(image), 600000)
		}
	}
	for _, bad := range []int{-2, 131073} {
		require.ErrorIs(t, squash.Build(t.Context(), &memory{}, squash.FromFS(src), &squash.Options{FragmentSize: bad}), fs.ErrInvalid)
	}
}

func TestXattrsThatDoNotFit(t *testing.T) {
	entries := func(attrs map[string][]byte) fstest.MapFS {
		return fstest.MapFS{"f": {Sys: &squash.Stat{Xattrs: attrs}}, "g": {Sys: &squash.Stat{Xattrs: attrs}}}
	}
	acl := entries(map[string][]byte{"user.a": []byte("kept"), "system.posix_acl_access": []byte("lost"), "user.": nil})
	var log bytes.Buffer
	var last squash.Progress
	opts := &squash.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Progress: func(p squash.Progress) { last = p }}
	f := open(t, buildBytes(t, acl, opts))
	require.Equal(t, 4, last.DroppedXattrs)
	require.Contains(t, log.String(), "attributes=4 first=system.posix_acl_access file=f")
	fi, err := f.Stat("f")
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"user.a": []byte("kept")}, fi.Sys().(*squash.Stat).Xattrs)

	opts.Strict = true
	err = squash.Build(t.Context(), &memory{}, squash.FromFS(acl), opts)
	require.ErrorContains(t, err, "system.posix_acl_access")
	opts.OmitXattrs = true
	f = open(t, buildBytes(t, acl, opts))
	fi, err = f.Stat("f")
	require.NoError(t, err)
	require.Nil(t, fi.Sys().(*squash.Stat).Xattrs)

	for name, value := range map[string]int{"user." + strings.Repeat("n", 251): 1, "user.v": 65537, "user.a\x00b": 1} {
		err := squash.Build(t.Context(), &memory{}, squash.FromFS(entries(map[string][]byte{name: make([]byte, value)})), nil)
		require.ErrorIs(t, err, syscall.E2BIG)
	}
	// More than is read again, in one file and in all of them.
	much := map[string][]byte{}
	for i := range 17 {
		much[fmt.Sprintf("user.%02d", i)] = make([]byte, 65536)
	}
	err = squash.Build(t.Context(), &memory{}, squash.FromFS(entries(much)), nil)
	require.ErrorIs(t, err, syscall.E2BIG)
	require.ErrorContains(t, err, "are read again")
	value, sets := make([]byte, 65536), 0
	err = squash.Build(t.Context(), &memory{}, squash.SourceFunc(func(context.Context) iter.Seq2[*squash.Entry, error] {
		return func(yield func(*squash.Entry, error) bool) {
			for {
				sets++
				attrs := map[string][]byte{fmt.Sprintf("user.%d", sets): value}
				if !yield(&squash.Entry{Path: fmt.Sprint(sets), Stat: squash.Stat{Xattrs: attrs}}, nil) {
					return
				}
			}
		}
	}), nil)
	require.ErrorIs(t, err, syscall.E2BIG)
	require.Less(t, sets, 4200)
	largest := map[string][]byte{"user." + strings.Repeat("n", 250): bytes.Repeat([]byte("v"), 65536), "trusted.x": {}}
	f = open(t, buildBytes(t, entries(largest), nil))
	fi, err = f.Stat("g")
	require.NoError(t, err)
	require.Equal(t, largest, fi.Sys().(*squash.Stat).Xattrs)
}

func TestSockets(t *testing.T) {
	src := fakeTree()
	var log bytes.Buffer
	var last squash.Progress
	f := open(t, buildBytes(t, src, &squash.Options{OmitSockets: true, Logger: slog.New(slog.NewTextHandler(&log, nil)), Progress: func(p squash.Progress) { last = p }}))
	_, err := f.Lstat("run/socket")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, 1, last.OmittedSockets)
	require.Contains(t, log.String(), "sockets=1")
}

// plainTables leaves the tables as they are.
type plainTables struct {
	squash.Compressor
	err error
}

func (c plainTables) NewMetadataEncoder() (squash.Encoder, error) {
	return encoder(func(_, src []byte) ([]byte, error) { return src, nil }), c.err
}

func TestMetadataEncoder(t *testing.T) {
	src := fstest.MapFS{"a-name-that-is-told": {Data: text(100000)}, "another-one": {Data: text(100)}}
	name := []byte("a-name-that-is-told")
	plain := buildBytes(t, src, &squash.Options{Compressor: plainTables{squash.XZ{}, nil}})
	require.True(t, bytes.Contains(plain, name))
	require.Less(t, len(plain), 50000, "data is compressed")
	image := open(t, plain)
	require.Equal(t, text(100000), readAll(t, image, "a-name-that-is-told"))
	err := squash.Build(t.Context(), &memory{}, squash.FromFS(src), &squash.Options{Compressor: plainTables{squash.XZ{}, fs.ErrInvalid}})
	require.ErrorIs(t, err, fs.ErrInvalid)
}
