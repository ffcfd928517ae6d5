package squash_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

func TestSameBytesWhateverTheWorkers(t *testing.T) {
	src := fakeTree()
	for i := range 14 {
		src[fmt.Sprintf("data/text%02d", i)] = &fstest.MapFile{Data: text(i * 40001), Mode: 0o644}
		src[fmt.Sprintf("data/copy%02d", i)] = src[fmt.Sprintf("data/text%02d", i)]
		src[fmt.Sprintf("data/noise%02d", i)] = &fstest.MapFile{Data: noise(uint64(i), i*1001), Mode: 0o644}
	}
	for _, block := range []int{4096, 131072} {
		var sums [][32]byte
		for _, workers := range []int{1, 2, 8, 0} {
			sums = append(sums, sha256.Sum256(buildBytes(t, src, &squash.Options{BlockSize: block, Workers: workers, Readers: workers})))
		}
		require.Len(t, slices.Compact(sums), 1, "block size %d", block)
	}
}

// zstd frames whose window exceeds the block size mount on Linux and cannot be
// read. Single-segment frames, which say so in their third header bit, cannot
// have one.
func TestZstdFramesAreSingleSegment(t *testing.T) {
	for _, block := range []int{4096, 131072, 1 << 20} {
		image := buildBytes(t, fstest.MapFS{"a": {Data: text(3*block + 1)}, "b": {Data: text(700)}}, &squash.Options{BlockSize: block})
		frames := 0
		magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
		for p := image; ; frames++ {
			i := bytes.Index(p, magic)
			if i < 0 {
				break
			}
			require.NotZero(t, p[i+4]&0x20, "frame %d", frames)
			p = p[i+4:]
		}
		require.Greater(t, frames, 4)
	}
}

func TestEmptyTree(t *testing.T) {
	image := buildBytes(t, fstest.MapFS{}, nil)
	list, err := fs.ReadDir(open(t, image), ".")
	require.NoError(t, err)
	require.Empty(t, list)
	require.Len(t, image, 4096)

	t.Run("kernel", func(t *testing.T) {
		list, err := os.ReadDir(mount(t, imageFile(t, image)))
		require.NoError(t, err)
		require.Empty(t, list)
	})
	t.Run("unsquashfs", func(t *testing.T) {
		need(t, "unsquashfs")
		run(t, "unsquashfs", "-strict-errors", "-ll", imageFile(t, image))
	})
}

func TestHugeDirectory(t *testing.T) {
	src := fstest.MapFS{}
	for i := range 20000 {
		src[fmt.Sprintf("d/name-%06d-%s", i, strings.Repeat("x", i%90))] = &fstest.MapFile{Mode: 0o644}
	}
	image := buildBytes(t, src, nil)
	root := open(t, image)
	check := func(t *testing.T, fsys fs.FS) {
		list, err := fs.ReadDir(fsys, "d")
		require.NoError(t, err)
		require.Len(t, list, 20000)
		for _, e := range list { // every name is found by a search, too
			_, err := fs.Lstat(fsys, "d/"+e.Name())
			require.NoError(t, err)
		}
		for _, absent := range []string{"a", "name-", "name-010000", "name-010000-y", "zzz"} {
			_, err := fs.Lstat(fsys, "d/"+absent)
			require.ErrorIs(t, err, fs.ErrNotExist)
		}
	}
	check(t, root)
	t.Run("kernel", func(t *testing.T) {
		check(t, os.DirFS(mount(t, imageFile(t, image))))
	})
}

func TestModTime(t *testing.T) {
	src := fakeTree()
	when := time.Unix(1234567890, 0)
	a := buildBytes(t, src, &squash.Options{ModTime: when})
	src["etc/passwd"].ModTime = time.Unix(99, 0)
	b := buildBytes(t, src, &squash.Options{ModTime: when})
	require.True(t, bytes.Equal(a, b), "a time in the source reached the image")
	fi, err := fs.Stat(open(t, a), "etc/passwd")
	require.NoError(t, err)
	require.Equal(t, when, fi.ModTime())
	require.Equal(t, when, open(t, a).Info().ModTime)
}

func TestTimesThatDoNotFit(t *testing.T) {
	src := fstest.MapFS{
		"old":  {ModTime: time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC)},
		"new":  {ModTime: time.Date(2107, 1, 1, 0, 0, 0, 0, time.UTC)},
		"last": {ModTime: time.Unix(1<<32-1, 0)},
		"none": {},
	}
	var log bytes.Buffer
	var last squash.Progress
	image := open(t, buildBytes(t, src, &squash.Options{
		Logger:   slog.New(slog.NewTextHandler(&log, nil)),
		Progress: func(p squash.Progress) { last = p },
	}))
	for name, want := range map[string]int64{"old": 0, "new": 1<<32 - 1, "last": 1<<32 - 1, "none": 0} {
		fi, err := fs.Stat(image, name)
		require.NoError(t, err)
		require.Equal(t, want, fi.ModTime().Unix(), name)
	}
	require.Equal(t, 2, last.ClampedTimes)
	require.Contains(t, log.String(), "files=2 first=new")
}

func TestProgress(t *testing.T) {
	var all []squash.Progress
	image := buildBytes(t, fakeTree(), &squash.Options{Progress: func(p squash.Progress) { all = append(all, p) }})
	last := all[len(all)-1]
	require.True(t, last.Done)
	require.Equal(t, last.Total, last.Read)
	require.EqualValues(t, len(image), last.Written)
	require.Equal(t, len(describe(t, open(t, image))), last.Entries)
	for i, p := range all[1:] {
		require.GreaterOrEqual(t, p.Read, all[i].Read)
		require.GreaterOrEqual(t, p.Written, all[i].Written)
	}
}

// wrap lets a test change what a source says.
type wrap struct {
	fs.FS
	readDir func(name string, list []fs.DirEntry) ([]fs.DirEntry, error)
	open    func(name string) (fs.File, error)
}

func (w wrap) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(w.FS, name)
	if err == nil && w.readDir != nil {
		list, err = w.readDir(name, list)
	}
	return list, err
}

func (w wrap) Open(name string) (fs.File, error) {
	if w.open != nil {
		if f, err := w.open(name); f != nil || err != nil {
			return f, err
		}
	}
	return w.FS.Open(name)
}

func (w wrap) Lstat(name string) (fs.FileInfo, error) { return fs.Lstat(w.FS, name) }
func (w wrap) ReadLink(name string) (string, error)   { return fs.ReadLink(w.FS, name) }

type renamed struct {
	fs.DirEntry
	name string
}

func (r renamed) Name() string { return r.name }

func TestSourcesThatCannotBeBuilt(t *testing.T) {
	call := func(name string) fs.FS {
		return wrap{FS: fstest.MapFS{"a": {}}, readDir: func(_ string, list []fs.DirEntry) ([]fs.DirEntry, error) {
			return []fs.DirEntry{renamed{list[0], name}}, nil
		}}
	}
	changed := func(n int) fs.FS {
		src := fstest.MapFS{"f": {Data: text(10000)}}
		return wrap{FS: src, open: func(name string) (fs.File, error) {
			if name != "f" {
				return nil, nil
			}
			return fstest.MapFS{"f": {Data: text(n)}}.Open(name)
		}}
	}
	ids := fstest.MapFS{}
	for i := range 65536 {
		ids[fmt.Sprint(i)] = &fstest.MapFile{Sys: &squash.Stat{Uid: uint32(i + 1)}}
	}
	for _, tt := range []struct {
		name string
		src  fs.FS
		is   error
		text string
	}{
		{"slash", call("a/b"), nil, `"a/b", which is no file name`},
		{"dots", call(".."), nil, `no file name`},
		{"empty name", call(""), nil, `no file name`},
		{"NUL", call("a\x00"), nil, `no file name`},
		{"not UTF-8", call("a\xff"), fs.ErrInvalid, `"a\xff" is not UTF-8`},
		{"long name", call(strings.Repeat("n", 256)), syscall.ENAMETOOLONG, "255"},
		{"twice", wrap{FS: fstest.MapFS{"a": {}}, readDir: func(_ string, l []fs.DirEntry) ([]fs.DirEntry, error) {
			return append(l, l...), nil
		}}, nil, "twice"},
		{"unlistable", wrap{FS: fstest.MapFS{"a": {}}, readDir: func(string, []fs.DirEntry) ([]fs.DirEntry, error) {
			return nil, fs.ErrPermission
		}}, fs.ErrPermission, ""},
		{"irregular", fstest.MapFS{"a": {Mode: fs.ModeIrregular}}, nil, "squash a: SquashFS has no files of type"},
		{"device without numbers", fstest.MapFS{"a": {Mode: fs.ModeDevice}}, nil, "does not tell the device's numbers"},
		{"large major", fstest.MapFS{"a": {Mode: fs.ModeDevice, Sys: &squash.Stat{Major: 4096}}}, nil, "4096:0 is beyond 4095:1048575"},
		{"long link", fstest.MapFS{"a": {Mode: fs.ModeSymlink, Data: text(4096)}}, nil, "4095"},
		{"links unknown", struct{ fs.FS }{fstest.MapFS{"a": {Mode: fs.ModeSymlink, Data: []byte("b")}}}, fs.ErrInvalid, "fs.ReadLinkFS"},
		{"shrunk", changed(9999), nil, "squash f: the file ended after 9999 bytes, it had 10000"},
		{"grown", changed(10001), nil, "more than the 10000 bytes"},
		{"too many owners", ids, nil, "65535"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m memory
			err := squash.Build(t.Context(), &m, squash.FromFS(tt.src), &squash.Options{BlockSize: 4096})
			require.ErrorContains(t, err, tt.text)
			if tt.is != nil {
				require.ErrorIs(t, err, tt.is)
			}
			_, err = squash.Open(m.reader())
			require.Error(t, err, "what is left opens as an image")
		})
	}
}

func TestManyOwners(t *testing.T) {
	ids := fstest.MapFS{}
	for i := range 65534 { // and root
		ids[fmt.Sprint(i)] = &fstest.MapFile{Sys: &squash.Stat{Uid: uint32(i + 1)}}
	}
	image := open(t, buildBytes(t, ids, nil))
	fi, err := fs.Stat(image, "65533")
	require.NoError(t, err)
	require.EqualValues(t, 65534, fi.Sys().(*squash.Stat).Uid)
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	for _, o := range []squash.Options{{BlockSize: 2048}, {BlockSize: 2 << 20}, {BlockSize: 5000}, {BlockSize: -1}, {Workers: -1}, {Readers: -1}} {
		require.ErrorIs(t, squash.Build(t.Context(), &memory{}, squash.FromFS(fstest.MapFS{}), &o), fs.ErrInvalid)
	}
}

type failing struct{ after int }

func (f *failing) WriteAt(p []byte, _ int64) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

func TestNoSpace(t *testing.T) {
	src := fakeTree()
	whole := len(buildBytes(t, src, nil))
	for _, room := range []int{0, 1000, whole / 2, whole - 4096, whole - 1} {
		err := squash.Build(t.Context(), &failing{after: room}, squash.FromFS(src), nil)
		require.ErrorIs(t, err, syscall.ENOSPC, "room for %d of %d bytes", room, whole)
	}
}

func TestFailedBuildOverAnImageLeavesNone(t *testing.T) {
	m := memory{buildBytes(t, fakeTree(), nil)}
	src := fstest.MapFS{"a": {Data: text(10)}}
	gone := wrap{FS: src, open: func(name string) (fs.File, error) {
		if name == "a" {
			return nil, fs.ErrNotExist
		}
		return nil, nil
	}}
	require.ErrorIs(t, squash.Build(t.Context(), &m, squash.FromFS(gone), nil), fs.ErrNotExist)
	_, err := squash.Open(m.reader())
	require.ErrorContains(t, err, "no SquashFS image")
}

func TestCancel(t *testing.T) {
	cause := errors.New("the operator went home")
	for _, at := range []string{"lib", "usr/noise"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		src := wrap{FS: fakeTree(), open: func(name string) (fs.File, error) {
			if name == at || strings.HasPrefix(name, at+"/") {
				cancel(cause)
			}
			return nil, nil
		}}
		dir := t.TempDir()
		err := squash.BuildFile(ctx, filepath.Join(dir, "image"), squash.FromFS(src), nil)
		require.ErrorIs(t, err, cause)
		list, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, list, "something was left behind")
	}
}

func TestBuildFileReplacesOrLeaves(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))

	bad := fstest.MapFS{"a": {Mode: fs.ModeIrregular}}
	require.Error(t, squash.BuildFile(t.Context(), path, squash.FromFS(bad), nil))
	was, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(was))

	old, err := os.Open(path)
	require.NoError(t, err)
	defer old.Close()
	require.NoError(t, squash.BuildFile(t.Context(), path, squash.FromFS(fakeTree()), nil))
	b, err := io.ReadAll(old)
	require.NoError(t, err)
	require.Equal(t, "old", string(b), "the file that was open has changed")
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(buildBytes(t, fakeTree(), nil), got))
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, list, 1)

	require.ErrorIs(t, squash.BuildFile(t.Context(), filepath.Join(dir, "absent", "image"), squash.FromFS(fakeTree()), nil), fs.ErrNotExist)
	require.Error(t, squash.BuildFile(t.Context(), dir+"/", squash.FromFS(fakeTree()), nil))
}

func TestBuildFileInItsOwnTree(t *testing.T) {
	dir := t.TempDir()
	err := squash.BuildFile(t.Context(), filepath.Join(dir, "image"), squash.Dir(dir), nil)
	require.ErrorContains(t, err, "outside of the source tree")
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, list)
}

// Uncompressible data and metadata are stored as they are, zeros not at all.
func TestStoredSizes(t *testing.T) {
	const block = 131072
	size := func(data []byte) int64 {
		return open(t, buildBytes(t, fstest.MapFS{"f": {Data: data}}, nil)).Info().Size
	}
	empty := size(nil)
	require.InDelta(t, empty+10*block, size(noise(1, 10*block)), 200)
	require.InDelta(t, empty, size(make([]byte, 10*block)), 200)
	image := buildBytes(t, fstest.MapFS{"f": {Data: noise(1, block)}}, nil)
	require.Equal(t, noise(1, block), image[96:96+block])
	require.NotZero(t, binary.LittleEndian.Uint16(image[24:])&0x10, "no fragments, and the superblock does not say so")
}
