// Package nbdtest helps to test devices and handlers of package nbd:
// [TestDevice] checks that a Device keeps its contract, [Memory] is one to
// build on, and [Serve] runs a server for the length of a test.
package nbdtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// Serve serves h on a free port of the loopback interface until the test ends,
// and returns its address. At the end of the test it shuts the server down and
// fails the test if connections do not end.
func Serve(t testing.TB, h nbd.Handler) (addr string) {
	t.Helper()
	return ServeServer(t, &nbd.Server{Handler: h})
}

// ServeServer is like [Serve], for a server of the test's own making.
func ServeServer(t testing.TB, srv *nbd.Server) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }() // ends with the Shutdown below
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("the server's connections did not end: %v", err)
			srv.Close()
		}
		if err := <-ended; err != nbd.ErrServerClosed {
			t.Errorf("Serve returned %v", err)
		}
	})
	return l.Addr().String()
}

// Memory is a writable device in memory. It may be used concurrently.
type Memory struct {
	mu     sync.RWMutex
	data   []byte
	closed int
	synced int
}

// NewMemory returns a device that holds data, which it keeps and changes.
func NewMemory(data []byte) *Memory { return &Memory{data: data} }

// Size returns the number of bytes.
func (m *Memory) Size() int64 { return int64(len(m.data)) }

// Features: a Memory can do everything.
func (m *Memory) Features() nbd.Features {
	return nbd.Features{
		Write: true, Flush: true, Trim: true, Zero: true, FastZero: true, Cache: true, Extents: true,
		MultiConn: true,
	}
}

// ReadAt reads as [io.ReaderAt] says.
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if off < 0 {
		return 0, fmt.Errorf("nbdtest: a read at %d: %w", off, fs.ErrInvalid)
	}
	if off >= int64(len(m.data)) {
		return 0, io.EOF
	}
	n := copy(p, m.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes as [io.WriterAt] says; past the end it fails with
// [fs.ErrInvalid].
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if off < 0 || off > int64(len(m.data)) || len(p) > len(m.data)-int(off) {
		return 0, fmt.Errorf("nbdtest: a write past the end: %w", fs.ErrInvalid)
	}
	return copy(m.data[off:], p), nil
}

func (m *Memory) check(off, n int64) error {
	if off < 0 || n < 0 || off > int64(len(m.data)) || n > int64(len(m.data))-off {
		return fmt.Errorf("nbdtest: %d bytes at %d are past the end: %w", n, off, fs.ErrInvalid)
	}
	return nil
}

// Trim makes the range zero.
func (m *Memory) Trim(off, n int64) error { return m.Zero(off, n, 0) }

// Zero makes the range zero.
func (m *Memory) Zero(off, n int64, _ nbd.ZeroFlags) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(off, n); err != nil {
		return err
	}
	clear(m.data[off : off+n])
	return nil
}

// Cache does nothing.
func (m *Memory) Cache(off, n int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.check(off, n)
}

// Extents calls a hole what is a whole block of 4096 zero bytes.
func (m *Memory) Extents(off, n int64, dst []nbd.Extent) (int, error) {
	const block = 4096
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.check(off, n); err != nil {
		return 0, err
	}
	count := 0
	for end := off + n; off < end; {
		start := off &^ (block - 1)
		whole := m.data[start:min(start+block, int64(len(m.data)))]
		next := min(start+block, end)
		e := nbd.Extent{Length: next - off}
		e.Zero = len(bytes.TrimLeft(whole, "\x00")) == 0
		e.Hole = e.Zero
		switch {
		case count > 0 && dst[count-1].Zero == e.Zero:
			dst[count-1].Length += e.Length
		case count == len(dst):
			return count, nil
		default:
			dst[count] = e
			count++
		}
		off = next
	}
	return count, nil
}

// Sync counts.
func (m *Memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.synced++
	return nil
}

// Close counts; a closed Memory can still be used.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed++
	return nil
}

// Bytes returns a copy of the content.
func (m *Memory) Bytes() []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return append([]byte(nil), m.data...)
}

// Closed returns how often Close was called.
func (m *Memory) Closed() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.closed
}

// Synced returns how often Sync was called.
func (m *Memory) Synced() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.synced
}
