package squash_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// counted is a source of files that tell when they are opened and closed.
func counted(files int, opened func(i int) error, closed func()) squash.Source {
	return squash.SourceFunc(func(context.Context) iter.Seq2[*squash.Entry, error] {
		return func(yield func(*squash.Entry, error) bool) {
			for i := range files {
				data := noise(uint64(i), 1000+i*9000)
				e := &squash.Entry{Path: fmt.Sprintf("f%03d", i), Mode: 0o644, Size: int64(len(data))}
				e.Open = func() (io.ReadCloser, error) {
					if err := opened(i); err != nil {
						return nil, err
					}
					return &closer{bytes.NewReader(data), closed}, nil
				}
				if !yield(e, nil) {
					return
				}
			}
		}
	})
}

type closer struct {
	*bytes.Reader
	closed func()
}

func (c *closer) Close() error { c.closed(); return nil }

// As many files are open as Readers says and no more.
func TestReaders(t *testing.T) {
	var first []byte
	for _, n := range []int{1, 3, 7} {
		var mu sync.Mutex // guards what follows
		var now, most int
		var order []int
		all := make(chan struct{})
		src := counted(40, func(i int) error {
			mu.Lock()
			order = append(order, i)
			if len(order) == n {
				close(all)
			}
			now++
			most = max(most, now)
			mu.Unlock()
			<-all // for ever, if they are opened one after another
			return nil
		}, func() { mu.Lock(); now--; mu.Unlock() })
		var m memory
		require.NoError(t, squash.Build(t.Context(), &m, src, &squash.Options{Readers: n, BlockSize: 65536}))
		require.Zero(t, now, "a file was left open")
		require.Equal(t, n, most)
		require.Len(t, order, 40)
		if n == 1 {
			require.IsIncreasing(t, order)
			first = m.b
		}
		require.True(t, bytes.Equal(first, m.b))
	}
}

// The error of the first file in the tree is the one that is told, and nothing
// stays open.
func TestReadersEndWithTheFirstError(t *testing.T) {
	gone := errors.New("gone")
	for _, build := range []func(squash.Source) error{
		func(src squash.Source) error { return squash.Build(t.Context(), &memory{}, src, nil) },
		func(src squash.Source) error { _, err := squash.WriteTar(t.Context(), io.Discard, src); return err },
	} {
		var now atomic.Int64
		err := build(counted(40, func(i int) error {
			if i >= 10 {
				return fmt.Errorf("%w: %d", gone, i)
			}
			now.Add(1)
			return nil
		}, func() { now.Add(-1) }))
		require.ErrorIs(t, err, gone)
		require.ErrorContains(t, err, "f010")
		require.ErrorContains(t, err, "gone: 10")
		require.Zero(t, now.Load(), "a file was left open")
	}
}

// A reader of the archive that goes away ends the goroutines, too.
func TestWriteTarToAFullDisk(t *testing.T) {
	var now atomic.Int64
	src := counted(40, func(int) error { now.Add(1); return nil }, func() { now.Add(-1) })
	_, err := squash.WriteTar(t.Context(), limitedWriter(300000), src)
	require.ErrorIs(t, err, io.ErrShortWrite)
	require.Zero(t, now.Load(), "a file was left open")

	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	src = counted(40, func(i int) error {
		now.Add(1)
		if i == 20 {
			cancel(cause)
		}
		return nil
	}, func() { now.Add(-1) })
	_, err = squash.WriteTar(ctx, io.Discard, src)
	require.ErrorIs(t, err, cause)
	require.Zero(t, now.Load(), "a file was left open")
}

// Only the content of regular files is read: nothing else waits to be.
func TestWriteTarOfDirectoriesWithContent(t *testing.T) {
	var list []*squash.Entry
	for i := range 20 {
		e := regular(fmt.Sprintf("d%d", i), "as some systems show directories")
		e.Mode |= fs.ModeDir
		list = append(list, e, regular(e.Path+"/f", "x"))
	}
	_, err := squash.WriteTar(t.Context(), io.Discard, entries(list...))
	require.NoError(t, err)
}

// A stream that is cut is not taken for one that ends, wherever it is cut.
func TestStreamsThatAreCut(t *testing.T) {
	var plain, packed bytes.Buffer
	_, err := squash.WriteTar(t.Context(), &plain, squash.FromFS(fstest.MapFS{"a": {Data: noise(1, 300000)}, "b": {Data: text(100)}}))
	require.NoError(t, err)
	w := gzip.NewWriter(&packed)
	_, err = w.Write(plain.Bytes())
	require.NoError(t, err)
	require.NoError(t, w.Close())
	whole := packed.Bytes()
	require.NoError(t, squash.Build(t.Context(), &memory{}, squash.Tar(bytes.NewReader(whole)), nil))
	for _, cut := range []int{1, 4, 8, 20, 1000, 200000} {
		err := squash.Build(t.Context(), &memory{}, squash.Tar(bytes.NewReader(whole[:len(whole)-cut])), nil)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%d bytes are missing", cut)
	}
}
