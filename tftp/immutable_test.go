package tftp

import (
	"context"
	"io"
	"io/fs"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// countedFS counts what is read of its files.
type countedFS struct {
	fs.FS
	read, closed *atomic.Int64
}

func (c countedFS) Open(name string) (fs.File, error) {
	f, err := c.FS.Open(name)
	if r, ok := f.(io.ReaderAt); ok {
		return struct {
			fs.File
			io.ReaderAt
		}{f, counted{r, c.read, c.closed}}, err
	}
	return f, err
}

func TestImmutable(t *testing.T) {
	tree := fstest.MapFS{"boot/vmlinuz": {Data: content(300_000)}, "boot/initrd": {Data: content(200_000)}}
	require.NoError(t, fstest.TestFS(Immutable(tree, "x"), "boot/vmlinuz", "boot/initrd"))
	require.Equal(t, tree, Immutable(tree, ""))

	id := func(fsys fs.FS, name string) string {
		f, err := FileServerFS(fsys).OpenTFTP(t.Context(), &Request{Name: name})
		require.NoError(t, err)
		defer f.Close()
		return f.ID()
	}
	one := id(Immutable(tree, "one"), "boot/vmlinuz")
	require.NotEmpty(t, one)
	require.Equal(t, one, id(Immutable(tree, "one"), "boot/vmlinuz"))
	require.NotEqual(t, one, id(Immutable(tree, "one"), "boot/initrd"))
	require.NotEqual(t, one, id(Immutable(tree, "two"), "boot/vmlinuz"))
	require.Equal(t, one, id(Union(Mount{FS: Immutable(tree, "one")}), "boot/vmlinuz"), "a union says it, too")
	_, err := FileServerFS(Immutable(tree, "one")).OpenTFTP(t.Context(), &Request{Name: "boot"})
	require.ErrorIs(t, err, fs.ErrNotExist)

	// Two clients that take turns cause one reading.
	var read, closed atomic.Int64
	addr := serve(t, &Server{Handler: FSFunc(func(context.Context, *Request) (fs.FS, error) {
		return Immutable(countedFS{tree, &read, &closed}, "one"), nil
	})})
	a, b := dial(t), dial(t)
	for _, w := range []*wire{a, b} {
		w.send(addr, request(1, "boot/vmlinuz", "octet", "blksize", "1468"))
		w.recv()
		w.ack(0)
	}
	var n uint16
	for done := false; !done; {
		for _, w := range []*wire{a, b} {
			op, block, data := w.recv()
			require.EqualValues(t, opDATA, op)
			w.ack(block)
			n, done = block, len(data) < 1468
		}
	}
	require.EqualValues(t, 300_000/1468+1, n)
	require.EqualValues(t, 300_000, read.Load())
}
