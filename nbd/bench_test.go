package nbd_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// paths are the ways that a request can take through the server.
func paths(t testing.TB) map[string]nbd.Device {
	content := pattern(4 << 20) // no holes
	f, err := nbd.OpenFileRW(tempFile(t, content))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	memory, err := nbd.OpenFile(tempFile(t, content))
	require.NoError(t, err)
	t.Cleanup(func() { memory.Close() })
	stored, err := nbd.OpenOverlay(memory, filepath.Join(t.TempDir(), "o"), "base")
	require.NoError(t, err)
	t.Cleanup(func() { stored.Close() })
	overlay := nbd.NewOverlay(memory)
	for _, o := range []*nbd.Overlay{overlay, stored} {
		_, err := o.WriteAt(content[:2<<20], 0)
		require.NoError(t, err)
	}
	slow := newSlow(content)
	close(slow.free)
	go func() {
		for range slow.begun { // ends with the test
		}
	}()
	t.Cleanup(func() { close(slow.begun) })
	return map[string]nbd.Device{
		"mapped": f, "copied": nbdtest.NewMemory(content), "slow": slow,
		"overlay": overlay, "stored": stored,
	}
}

func BenchmarkRead(b *testing.B) {
	for name, dev := range paths(b) {
		for _, n := range []int{4 << 10, 128 << 10, 2 << 20} {
			b.Run(fmt.Sprintf("%s/%dk", name, n>>10), func(b *testing.B) { benchRead(b, dev, n, 1) })
		}
		b.Run(name+"/4k-depth-32", func(b *testing.B) { benchRead(b, dev, 4<<10, 32) })
	}
}

// benchRead reads depth requests in one packet, over loopback. The client
// costs two system calls for each round; what allocates is the server.
func benchRead(b *testing.B, dev nbd.Device, n, depth int) {
	r := dialBench(b, dev)
	var reqs []byte
	for i := range depth {
		reqs = append(reqs, request(0, cmdRead, 1, uint64(i*n), n)...)
	}
	buf := make([]byte, depth*(16+n))
	b.SetBytes(int64(n))
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += depth {
		roundTrip(b, r, reqs, buf)
	}
}

func BenchmarkWrite(b *testing.B) {
	for name, dev := range paths(b) {
		for _, n := range []int{4 << 10, 128 << 10} {
			b.Run(fmt.Sprintf("%s/%dk", name, n>>10), func(b *testing.B) { benchWrite(b, dev, n) })
		}
	}
}

func benchWrite(b *testing.B, dev nbd.Device, n int) {
	r := dialBench(b, dev)
	req := append(request(0, cmdWrite, 1, 0, n), pattern(n)...)
	buf := make([]byte, 16)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		roundTrip(b, r, req, buf)
	}
}

// BenchmarkClient is what our client costs, and a server of ours with it: one
// caller, and many that share a connection.
func BenchmarkClient(b *testing.B) {
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprintf("4k-%d", callers), func(b *testing.B) {
			c, err := nbd.Dial(context.Background(), "tcp", serve(b, nbdtest.NewMemory(pattern(1<<20))), "x")
			require.NoError(b, err)
			defer c.Close()
			b.SetBytes(4 << 10)
			b.ReportAllocs()
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					p := make([]byte, 4<<10)
					for range (b.N + i) / callers {
						if _, err := c.ReadAt(p, 0); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkOpen is a connection from its first to its last byte.
func BenchmarkOpen(b *testing.B) {
	addr := serve(b, nbdtest.NewMemory(make([]byte, 512)))
	b.ReportAllocs()
	for b.Loop() {
		c, err := nbd.Dial(context.Background(), "tcp", addr, "x")
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

func dialBench(b *testing.B, dev nbd.Device) net.Conn {
	r := dialRaw(b, serve(b, dev)).greet(3)
	r.open("x")
	require.NoError(b, r.SetDeadline(time.Time{}))
	return r.Conn
}

func roundTrip(b *testing.B, nc net.Conn, req, buf []byte) {
	if _, err := nc.Write(req); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(nc, buf); err != nil {
		b.Fatal(err)
	}
}

// What the benchmarks show is asserted here: the steady state does not
// allocate, on whatever path.
func TestRequestsDoNotAllocate(t *testing.T) {
	if underRace {
		t.Skip("the race detector takes buffers away from their pools")
	}
	for name, dev := range paths(t) {
		for _, structured := range []bool{false, true} {
			t.Run(fmt.Sprint(name, structured), func(t *testing.T) {
				r := dialRaw(t, serve(t, dev)).greet(3)
				head := 16
				if structured {
					r.send(option(optStructured, nil))
					r.recv(20)
					head = 28
				}
				r.open("x")
				var req []byte
				for range 10 {
					req = cat(req, request(0, cmdRead, 1, 0, 4096), request(0, cmdRead, 1, 4096, 128<<10), request(0, cmdWrite, 1, 0, 40<<10), pattern(40<<10))
				}
				buf := make([]byte, 10*(2*head+16+4096+128<<10))
				// Sent beside the reading: neither side holds all of it.
				more := make(chan struct{})
				defer close(more)
				go func() { // ends with the test
					for range more {
						_, _ = r.Write(req)
					}
				}()
				round := func() {
					more <- struct{}{}
					_, err := io.ReadFull(r.Conn, buf)
					require.NoError(t, err)
				}
				// Not exactly none: the collector takes buffers away from a
				// pool. One for each write would be 10, one for each read 20.
				require.Less(t, testing.AllocsPerRun(50, round), 10.0, "for 30 requests")
			})
		}
	}
}
