package tftp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

type plainFile struct {
	fs.File
	id     string
	closed *int
}

func (f plainFile) Close() error { *f.closed++; return f.File.Close() }
func (f plainFile) ID() string   { return f.id }

type countingFS struct {
	fs.FS
	closed int
}

func (c *countingFS) Open(name string) (fs.File, error) {
	f, err := c.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return plainFile{f, "id of " + name, &c.closed}, nil
}

func readFile(t testing.TB, f File) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	require.NoError(t, err)
	return b
}

func TestFileServerFS(t *testing.T) {
	small, large := content(100_000), content(maxBuffered+1)
	files := fstest.MapFS{"a/small": {Data: small}, "large": {Data: large}, "full": {Data: large[:maxBuffered]}, "empty": {}}
	open := func(h Handler, name string) (File, error) {
		return h.OpenTFTP(context.Background(), &Request{Name: name})
	}

	f, err := open(FileServerFS(files), "large")
	require.NoError(t, err)
	require.Equal(t, large, readFile(t, f))
	require.Empty(t, f.ID())
	require.NoError(t, f.Close())
	for _, name := range []string{"none", "a", ".", "a/small/x"} {
		_, err = open(FileServerFS(files), name)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
	_, err = open(FileServerFS(faulty{fs.ErrPermission}), "x")
	require.ErrorIs(t, err, fs.ErrPermission)

	// Files that can only be read from the beginning.
	plain := &countingFS{FS: files}
	for name, want := range map[string][]byte{"a/small": small, "full": large[:maxBuffered], "empty": {}} {
		f, err = open(FileServerFS(plain), name)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, readFile(t, f)))
		require.Equal(t, "id of "+name, f.ID())
		require.NoError(t, f.Close())
	}
	require.Equal(t, 3, plain.closed)
	_, err = open(FileServerFS(plain), "large")
	require.ErrorContains(t, err, "large is larger than 4194304 bytes")
	_, err = open(FileServerFS(plain), "a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, 5, plain.closed)
}

func TestFSFunc(t *testing.T) {
	boom := errors.New("no lookup")
	h := FSFunc(func(_ context.Context, r *Request) (fs.FS, error) {
		switch r.Raw {
		case "nil":
			return nil, nil
		case "boom":
			return nil, boom
		}
		return fstest.MapFS{"who": {Data: []byte(r.Raw)}}, nil
	})
	f, err := h.OpenTFTP(context.Background(), &Request{Name: "who", Raw: "me"})
	require.NoError(t, err)
	require.Equal(t, "me", string(readFile(t, f)))
	_, err = h.OpenTFTP(context.Background(), &Request{Name: "who", Raw: "nil"})
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = h.OpenTFTP(context.Background(), &Request{Name: "who", Raw: "boom"})
	require.ErrorIs(t, err, boom)
}

func TestFirst(t *testing.T) {
	silent := HandlerFunc(func(context.Context, *Request) (File, error) { return nil, nil })
	missing := FileServerFS(faulty{fs.ErrNotExist})
	refusing := FileServerFS(faulty{fs.ErrPermission})
	r := &Request{Name: "x"}

	f, err := First(silent, missing, static([]byte("1")), static([]byte("2")), refusing).OpenTFTP(context.Background(), r)
	require.NoError(t, err)
	require.Equal(t, "1", string(readFile(t, f)))
	_, err = First(missing, refusing, static(nil)).OpenTFTP(context.Background(), r)
	require.ErrorIs(t, err, fs.ErrPermission)
	_, err = First(missing, silent).OpenTFTP(context.Background(), r)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = First().OpenTFTP(context.Background(), r)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

type closer struct {
	io.ReaderAt
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }

func TestNewFileCloses(t *testing.T) {
	c := &closer{ReaderAt: bytes.NewReader([]byte("abc"))}
	f := NewFile(c, 3, "sha256:ba78")
	require.Equal(t, "sha256:ba78", f.ID())
	require.EqualValues(t, 3, f.Size())
	require.NoError(t, f.Close())
	require.True(t, c.closed)
	require.NoError(t, NewFile(bytes.NewReader(nil), 0, "").Close())
}
