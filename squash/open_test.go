package squash_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

func TestFileReads(t *testing.T) {
	data := append(noise(3, 10000), append(make([]byte, 9000), text(7777)...)...)
	image := open(t, buildBytes(t, fstest.MapFS{"f": {Data: data}}, &squash.Options{BlockSize: 4096}))
	f, err := image.Open("f")
	require.NoError(t, err)
	require.NoError(t, iotest.TestReader(f, data))

	s := f.(io.ReadSeeker)
	at, err := s.Seek(5000, io.SeekStart)
	require.NoError(t, err)
	require.EqualValues(t, 5000, at)
	var w bytes.Buffer
	n, err := f.(io.WriterTo).WriteTo(&w)
	require.NoError(t, err)
	require.EqualValues(t, len(data)-5000, n)
	require.Equal(t, data[5000:], w.Bytes())
	_, err = s.Seek(-1, io.SeekStart)
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = s.Seek(0, 9)
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = s.Seek(1<<40, io.SeekStart)
	require.NoError(t, err)
	_, err = f.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	_, err = f.(io.ReaderAt).ReadAt(make([]byte, 1), -1)
	require.ErrorIs(t, err, fs.ErrInvalid)

	require.NoError(t, f.Close())
	require.ErrorIs(t, f.Close(), fs.ErrClosed)
	_, err = f.Read(make([]byte, 1))
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = f.(io.ReaderAt).ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = f.Stat()
	require.ErrorIs(t, err, fs.ErrClosed)

	b, err := image.ReadFile("f")
	require.NoError(t, err)
	require.Equal(t, data, b)
}

func TestSymbolicLinks(t *testing.T) {
	link := func(target string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
	}
	src := fstest.MapFS{
		"usr/bin/sh": {Data: []byte("shell")},
		"bin":        link("usr/bin"),
		"abs":        link("/usr/bin/sh"),
		"up":         link("../../../usr/../bin/sh"),
		"usr/back":   link(".."),
		"loop":       link("loop2"),
		"loop2":      link("loop"),
		"dangling":   link("nowhere"),
		"throughf":   link("usr/bin/sh/x"),
	}
	image := open(t, buildBytes(t, src, nil))
	for _, name := range []string{"bin/sh", "abs", "up", "usr/back/bin/sh", "usr/back/usr/back/up"} {
		require.Equal(t, "shell", string(readAll(t, image, name)), name)
		fi, err := image.Stat(name)
		require.NoError(t, err)
		require.True(t, fi.Mode().IsRegular(), name)
	}
	for name, want := range map[string]error{
		"loop": syscall.ELOOP, "loop/x": syscall.ELOOP, "dangling": fs.ErrNotExist, "throughf": fs.ErrNotExist,
		"usr/bin/sh/x": fs.ErrNotExist, "nothing": fs.ErrNotExist, "/usr": fs.ErrInvalid, "usr/": fs.ErrInvalid, "../usr": fs.ErrInvalid, "": fs.ErrInvalid,
	} {
		_, err := image.Open(name)
		require.ErrorIs(t, err, want, name)
		var pe *fs.PathError
		require.ErrorAs(t, err, &pe)
		require.Equal(t, name, pe.Path)
	}
	_, err := image.ReadLink("usr")
	require.ErrorIs(t, err, fs.ErrInvalid)
	fi, err := image.Lstat("loop")
	require.NoError(t, err)
	require.Equal(t, fs.ModeSymlink, fi.Mode().Type())
	list, err := image.ReadDir("bin")
	require.NoError(t, err)
	require.Len(t, list, 1)
	_, err = image.ReadDir("bin/sh")
	require.ErrorIs(t, err, syscall.ENOTDIR)
	_, err = image.ReadFile("usr")
	require.ErrorIs(t, err, syscall.EISDIR)
}

func TestConcurrentReaders(t *testing.T) {
	src := fakeTree()
	want := describe(t, src)
	image := open(t, buildBytes(t, src, &squash.Options{BlockSize: 4096}))
	f, err := image.Open("usr/noise")
	require.NoError(t, err)
	data := src["usr/noise"].Data
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			got := describe(t, image)
			got["."] = want["."]
			if len(got) != len(want) || got["usr/noise"] != want["usr/noise"] {
				t.Error("a reader saw another tree")
			}
			p := make([]byte, 5000)
			for at := i * 100; at+len(p) <= len(data); at += 777 {
				if n, err := f.(io.ReaderAt).ReadAt(p, int64(at)); n != len(p) || err != nil || !bytes.Equal(p, data[at:at+n]) {
					t.Errorf("ReadAt %d: %d, %v", at, n, err)
				}
			}
		})
	}
	wg.Wait()
}

// breaking fails now and then, as a network does.
type breaking struct {
	io.ReaderAt
	broken atomic.Bool
}

var errLine = errors.New("the line is dead")

func (b *breaking) ReadAt(p []byte, off int64) (int, error) {
	if b.broken.Load() {
		return 0, errLine
	}
	return b.ReaderAt.ReadAt(p, off)
}

// A failed read is reported as what it was, and the next one is tried again.
func TestReaderThatFails(t *testing.T) {
	r := &breaking{ReaderAt: bytes.NewReader(buildBytes(t, fakeTree(), nil))}
	r.broken.Store(true)
	_, err := squash.Open(r)
	require.ErrorIs(t, err, errLine)
	r.broken.Store(false)
	image, err := squash.Open(r)
	require.NoError(t, err)
	r.broken.Store(true)
	_, err = image.ReadFile("usr/bin/su")
	require.ErrorIs(t, err, errLine)
	var fe *squash.FormatError
	require.False(t, errors.As(err, &fe), "a dead line is no damaged image")
	r.broken.Store(false)
	b, err := image.ReadFile("usr/bin/su")
	require.NoError(t, err)
	require.Len(t, b, 300000)
}
