package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/backend"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// Sizes at and around the borders of sectors and blocks.
var sizes = []int{0, 1, 511, 512, 513, 4096, 10000, 200 << 10}

func TestDevices(t *testing.T) {
	for _, size := range sizes {
		content := pattern(size)
		padded := append(bytes.Clone(content), make([]byte, -size&511)...)

		file, err := nbd.OpenFile(tempFile(t, content))
		require.NoError(t, err)
		defer file.Close()
		nbdtest.TestDevice(t, file, padded)

		path := tempFile(t, content)
		rw, err := nbd.OpenFileRW(path)
		require.NoError(t, err)
		nbdtest.TestDevice(t, rw, padded)
		require.NoError(t, rw.Close())
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.LessOrEqual(t, len(got), len(padded))
		require.True(t, bytes.Equal(content, got[:size]))

		nbdtest.TestDevice(t, nbd.NewReaderAt(bytes.NewReader(content), int64(size)), padded)

		mem := nbdtest.NewMemory(bytes.Clone(content))
		nbdtest.TestDevice(t, mem, content)
		shared, err := nbd.Share(mem).OpenNBD(t.Context(), nil)
		require.NoError(t, err)
		nbdtest.TestDevice(t, shared, content)

		dev, err := nbd.FromBackend(backendOf{mem})
		require.NoError(t, err)
		nbdtest.TestDevice(t, dev, content)

		over := nbd.NewOverlay(nbd.NewReaderAt(bytes.NewReader(content), int64(size)))
		nbdtest.TestDevice(t, over, padded)
		over, err = nbd.OpenOverlay(nbd.NewReaderAt(bytes.NewReader(content), int64(size)), t.TempDir(), "base")
		require.NoError(t, err)
		nbdtest.TestDevice(t, over, padded)
		require.NoError(t, over.Close())

		// A client is a device too, over the whole engine.
		nbdtest.TestDevice(t, dial(t, serve(t, rwMem(content)), "x"), content)
		nbdtest.TestDevice(t, dial(t, serve(t, nbd.NewReaderAt(bytes.NewReader(content), int64(size))), "x"), padded)
	}
}

func rwMem(content []byte) nbd.Device { return nbdtest.NewMemory(bytes.Clone(content)) }

// backendOf makes a go-nbd backend of a Memory.
type backendOf struct{ *nbdtest.Memory }

func (b backendOf) Size() (int64, error) { return b.Memory.Size(), nil }

type badBackend struct {
	backend.Backend
	size int64
	err  error
}

func (b badBackend) Size() (int64, error) { return b.size, b.err }

func TestFromBackend(t *testing.T) {
	_, err := nbd.FromBackend(badBackend{err: syscall.EIO})
	require.ErrorIs(t, err, syscall.EIO)
	_, err = nbd.FromBackend(badBackend{size: -1})
	require.Error(t, err)

	// go-nbd's own.
	f, err := os.OpenFile(tempFile(t, pattern(100<<10)), os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	dev, err := nbd.FromBackend(backend.NewFileBackend(f))
	require.NoError(t, err)
	c := dial(t, serve(t, dev), "x")
	_, err = c.WriteAt([]byte("hello"), 4094)
	require.NoError(t, err)
	require.NoError(t, c.Sync())
	got := make([]byte, 100<<10)
	_, err = c.ReadAt(got, 0)
	require.NoError(t, err)
	want := pattern(100 << 10)
	copy(want[4094:], "hello")
	require.True(t, bytes.Equal(want, got))
	// It would make the file longer.
	_, err = c.WriteAt(make([]byte, 10), 100<<10-5)
	require.ErrorIs(t, err, syscall.ENOSPC)
}

func TestFileErrors(t *testing.T) {
	dir := t.TempDir()
	_, err := nbd.OpenFile(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = nbd.OpenFile(dir)
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = nbd.OpenFile("/dev/null")
	require.ErrorIs(t, err, fs.ErrInvalid)

	path := tempFile(t, pattern(8192))
	f, err := nbd.OpenFile(path)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("x"), 0)
	require.ErrorIs(t, err, fs.ErrPermission)

	// Replaced: those who have it open keep it. Truncated: an error, and not
	// zeroes.
	require.NoError(t, os.WriteFile(path+".new", []byte("new"), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
	p := make([]byte, 4096)
	_, err = f.ReadAt(p, 4096)
	require.NoError(t, err)
	require.Equal(t, pattern(8192)[4096:], p)

	f, err = nbd.OpenFile(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Truncate(path, 1))
	_, err = f.ReadAt(p[:512], 0)
	require.Error(t, err)
	require.NotErrorIs(t, err, fs.ErrNotExist)
}

func TestFileServer(t *testing.T) {
	path := tempFile(t, []byte("old"))
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: nbd.Exports{
		"image": nbd.FileServer(path),
		"gone":  nbd.FileServer(path + ".none"),
	}})
	read := func(c *nbd.Client) string {
		p := make([]byte, 3)
		_, err := c.ReadAt(p, 0)
		require.NoError(t, err)
		return string(p)
	}
	before := dial(t, addr, "image")
	require.Equal(t, int64(512), before.Size())
	require.True(t, before.ReadOnly())
	_, err := before.WriteAt([]byte("x"), 0)
	require.ErrorIs(t, err, syscall.EPERM)
	require.NoError(t, os.WriteFile(path+".new", []byte("new"), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
	require.Equal(t, "old", read(before))
	require.Equal(t, "new", read(dial(t, addr, "/image")))
	_, err = nbd.Dial(t.Context(), "tcp", addr, "gone")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = nbd.Dial(t.Context(), "tcp", addr, "//image")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// A file is open once for all its connections, a replaced one for as long as it
// has any.
func TestFileServerOpensOnce(t *testing.T) {
	path := tempFile(t, []byte("old"))
	h := nbd.FileServer(path)
	open := func() io.ReadCloser {
		dev, err := h.OpenNBD(t.Context(), &nbd.Request{})
		require.NoError(t, err)
		return struct {
			io.Reader
			io.Closer
		}{io.NewSectionReader(dev, 0, 3), dev.(io.Closer)}
	}
	descriptors := func() (n int) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("this system does not show what is open")
		}
		for _, fd := range fds {
			if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, path) {
				n++
			}
		}
		return n
	}
	a, b := open(), open()
	require.Equal(t, 1, descriptors())
	require.NoError(t, os.WriteFile(path+".new", []byte("new"), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
	c := open()
	require.Equal(t, 2, descriptors())
	require.NoError(t, a.Close())
	require.NoError(t, a.Close()) // counts once
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
	require.NoError(t, b.Close())
	require.Equal(t, 1, descriptors())
	require.NoError(t, os.Truncate(path, 600)) // grew in place: its size is another one
	d := open()
	require.Equal(t, 2, descriptors())
	got, err = io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "new", string(got))
	require.NoError(t, c.Close())
	require.NoError(t, d.Close())
	require.Zero(t, descriptors())
}

func TestFirst(t *testing.T) {
	dev := nbdtest.NewMemory(nil)
	no := nbd.Exports{}
	deny := always(nil)
	for _, c := range []struct {
		name string
		h    nbd.Handler
		want error
	}{
		{"none", nbd.First(), fs.ErrNotExist},
		{"nobody's", nbd.First(no, deny), fs.ErrNotExist},
		{"the last one's", nbd.First(no, deny, always(dev)), nil},
		{"refused before", nbd.First(no, refuse{}, always(dev)), fs.ErrPermission},
	} {
		got, err := c.h.OpenNBD(t.Context(), &nbd.Request{Export: "x"})
		if c.want != nil {
			require.ErrorIs(t, err, c.want, c.name)
			continue
		}
		require.NoError(t, err, c.name)
		require.Same(t, dev, got, c.name)
	}
	list := func(handlers ...nbd.Handler) ([]nbd.ExportInfo, error) {
		return nbd.First(handlers...).(nbd.Lister).ListNBD(t.Context(), &nbd.Request{})
	}
	hidden := nbd.Filtered(nbd.Share(dev)) // which has no list
	_, err := list(no, refuse{}, hidden)
	require.ErrorIs(t, err, fs.ErrPermission)
	got, err := list(hidden, nbd.Exports{"a": always(dev)}, refuse{})
	require.NoError(t, err)
	require.Equal(t, []nbd.ExportInfo{{Name: "a"}}, got)
}

type refuse struct{}

func (refuse) OpenNBD(context.Context, *nbd.Request) (nbd.Device, error) {
	return nil, errors.Join(errors.New("not you"), fs.ErrPermission)
}

func (refuse) ListNBD(context.Context, *nbd.Request) ([]nbd.ExportInfo, error) {
	return nil, fs.ErrPermission
}
