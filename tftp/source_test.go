package tftp

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// counted counts what is read of a file, and its Close.
type counted struct {
	io.ReaderAt
	read, closed *atomic.Int64
}

func (c counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.read.Add(int64(n))
	return n, err
}

func (c counted) Close() error { c.closed.Add(1); return nil }

// Clients that read one file at the same time cause one reading of it.
func TestReadOnceServeMany(t *testing.T) {
	const clients = 20
	file := content(3 << 20)
	var read, closed, opened atomic.Int64
	all := make(chan struct{})
	s := &Server{MaxTransfersPerPeer: -1, Handler: HandlerFunc(func(context.Context, *Request) (File, error) {
		if opened.Add(1) == clients {
			close(all)
		}
		<-all // none has finished before the last one begins
		return NewFile(counted{bytes.NewReader(file), &read, &closed}, int64(len(file)), "initrd"), nil
	})}
	addr := serve(t, s)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			var b bytes.Buffer
			_, err := Client{BlockSize: 1468, WindowSize: 16}.Get(context.Background(), addr.String(), "x", &b)
			if err != nil || !bytes.Equal(file, b.Bytes()) {
				t.Error("not what was sent", err)
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.Shutdown(ctx))
	require.EqualValues(t, clients, closed.Load(), "each File is closed once")
	require.Less(t, read.Load(), int64(2*len(file)))
	require.Empty(t, s.cache.sources)
	require.Zero(t, s.cache.held)
	require.Zero(t, s.cache.recent.Len())
}

// What comes next is read while the client has not asked for it yet: a client
// never waits for the disk, if that is as fast as the client.
func TestReadAhead(t *testing.T) {
	for _, id := range []string{"", "shared"} {
		file := content(1 << 20)
		var read, closed atomic.Int64
		s := &Server{Handler: HandlerFunc(func(context.Context, *Request) (File, error) {
			return NewFile(counted{bytes.NewReader(file), &read, &closed}, int64(len(file)), id), nil
		})}
		addr := serve(t, s)
		w := dial(t)
		w.send(addr, request(1, "x", "octet", "blksize", "1024"))
		w.recv()
		for block := range uint16(200) {
			w.ack(block)
			_, n, _ := w.recv()
			require.Equal(t, block+1, n)
			require.Eventually(t, func() bool { return read.Load() > (int64(block)+2)*1024 }, patience, time.Millisecond, "after block %d", n)
		}
		w.send(w.tid, (&Error{CodeUndefined, "enough"}).encode())
	}
}

// stumbling fails once.
type stumbling struct {
	io.ReaderAt
	at     int64
	failed atomic.Bool
}

func (s *stumbling) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > s.at && s.failed.CompareAndSwap(false, true) {
		n, _ := s.ReaderAt.ReadAt(p[:s.at-off], off)
		return n, syscall.EIO
	}
	return s.ReaderAt.ReadAt(p, off)
}

// A text that cannot be read again from where it failed is not sent with a gap.
func TestStreamThatFailsOnce(t *testing.T) {
	text := bytes.Repeat([]byte("line\n"), 10_000)
	var res results
	s := &Server{Trace: res.trace(), Handler: HandlerFunc(func(context.Context, *Request) (File, error) {
		return NewFile(&stumbling{ReaderAt: bytes.NewReader(text), at: 33_333}, int64(len(text)), ""), nil
	})}
	addr := serve(t, s)
	w := dial(t)
	w.send(addr, request(1, "x", "netascii"))
	want := bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	for {
		op, n, data := w.recv()
		if op == opERROR {
			break
		}
		from := int(n-1) * 512
		require.Equal(t, string(want[from:from+512]), string(data), "block %d", n)
		w.ack(n)
	}
	require.ErrorIs(t, res.next(t).Err, syscall.EIO)
}

// A cache that is too small costs reading, nothing else.
func TestSmallCache(t *testing.T) {
	for _, size := range []int64{1, -1} {
		file := content(2 << 20)
		s := &Server{CacheSize: size, Handler: HandlerFunc(func(context.Context, *Request) (File, error) {
			return NewFile(bytes.NewReader(file), int64(len(file)), "x"), nil
		})}
		addr := serve(t, s)
		b, err := get(t, addr, "x")
		require.NoError(t, err)
		require.True(t, bytes.Equal(file, b))
	}
}

func TestFileID(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, []byte("one"), 0o600))
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Empty(t, fileID(info, time.Now()), "it may still change within the clock's step")
	later := time.Now().Add(time.Minute)
	id := fileID(info, later)
	require.NotEmpty(t, id)
	require.Equal(t, id, fileID(info, later))
	require.NoError(t, os.WriteFile(name, []byte("four"), 0o600))
	info, err = os.Stat(name)
	require.NoError(t, err)
	require.NotEqual(t, id, fileID(info, later))
}

func TestPacer(t *testing.T) {
	p := newPacer(1000)
	require.LessOrEqual(t, p.spend(0, 50), time.Duration(0), "a burst")
	require.Equal(t, time.Second, p.spend(0, 1000))
	require.LessOrEqual(t, p.spend(10*time.Second, 0), time.Duration(0))
	require.Nil(t, newPacer(0))
	require.Nil(t, newPacer(-1))
}
