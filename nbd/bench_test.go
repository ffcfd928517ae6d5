package nbd_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

func BenchmarkRead4k(b *testing.B)        { benchRead(b, 4<<10, 1) }
func BenchmarkRead4kDepth32(b *testing.B) { benchRead(b, 4<<10, 32) }
func BenchmarkRead128k(b *testing.B)      { benchRead(b, 128<<10, 1) }
func BenchmarkRead2M(b *testing.B)        { benchRead(b, 2<<20, 1) }

// benchRead reads a file in the page cache, depth requests in one packet, over
// loopback. The client costs two system calls for each round; what allocates
// is the server.
func benchRead(b *testing.B, n, depth int) {
	content := make([]byte, 16<<20)
	f, err := nbd.OpenFile(tempFile(b, content))
	require.NoError(b, err)
	defer f.Close()
	r := dialBench(b, f)
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

func BenchmarkWrite4k(b *testing.B)   { benchWrite(b, 4<<10) }
func BenchmarkWrite128k(b *testing.B) { benchWrite(b, 128<<10) }

func benchWrite(b *testing.B, n int) {
	r := dialBench(b, nbdtest.NewMemory(make([]byte, 1<<20)))
	req := append(request(0, cmdWrite, 1, 0, n), make([]byte, n)...)
	buf := make([]byte, 16)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		roundTrip(b, r, req, buf)
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
// allocate.
func TestRequestsDoNotAllocate(t *testing.T) {
	f, err := nbd.OpenFileRW(tempFile(t, make([]byte, 4<<20)))
	require.NoError(t, err)
	defer f.Close()
	r := dialRaw(t, serve(t, f)).greet(3)
	r.open("x")
	require.NoError(t, r.SetDeadline(time.Time{}))
	var req []byte
	for range 10 {
		req = cat(req, request(0, cmdRead, 1, 0, 4096), request(0, cmdRead, 1, 4096, 128<<10), request(0, cmdWrite, 1, 0, 100<<10), make([]byte, 100<<10))
	}
	buf := make([]byte, 10*(3*16+4096+128<<10))
	round := func() {
		if _, err := r.Write(req); err != nil {
			panic(err)
		}
		if _, err := io.ReadFull(r.Conn, buf); err != nil {
			panic(err)
		}
	}
	// Not exactly none: the collector, and the race detector on purpose, take
	// buffers away from a pool. One for each write would be 10, one for each
	// read 20.
	require.Less(t, testing.AllocsPerRun(50, round), 10.0, "for 30 requests")
}
