//go:build linux

package tftp

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHostileDatagrams(t *testing.T) { modes(t, testHostileDatagrams) }

func testHostileDatagrams(t *testing.T, one bool) {
	addr := serve(t, &Server{OnePort: one, Handler: FileServerFS(fstest.MapFS{"f": {Data: content(3000)}}), MaxTransfersPerPeer: -1})
	w := dial(t)
	w.send(addr, nil)
	for _, b := range [][]byte{
		{0}, {0, 0}, {0, 3}, {0, 4, 0, 0}, {0, 5, 0, 0, 0}, {0, 6, 0}, {0, 7, 0, 0}, {255, 255, 255, 255},
		{0, 1}, {0, 1, 0}, {0, 1, 0, 0}, {0, 2}, request(1, "", ""), request(1, "\xff", "octet"), request(1, "f\x00", "octet"),
		request(1, "f", "octet", strings.Repeat("x", 400)), request(1, "f", "octet", "blksize", strings.Repeat("9", 400)),
		request(1, strings.Repeat("../", 160), "octet"), request(1, strings.Repeat("a/", 240), "octet"),
		bytes.Repeat([]byte{0}, 60000), bytes.Repeat([]byte{0, 1}, 30000), bytes.Repeat([]byte{0, 4}, 30000),
	} {
		w.send(addr, b)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		b := request(1, "f", "octet", "tsize", "0", "blksize", "1000")[:2+rng.IntN(30)]
		for range 1 + rng.IntN(4) {
			b[rng.IntN(len(b))] = byte(rng.IntN(256))
		}
		if rng.IntN(2) == 0 {
			b = b[:rng.IntN(len(b)+1)]
		}
		w.send(addr, b)
	}
	b, err := get(t, addr, "f") // it still does its work
	require.NoError(t, err)
	require.Equal(t, content(3000), b)
}

// What arrives on the port of a transfer comes from anybody, too.
func TestHostileDatagramsInATransfer(t *testing.T) { modes(t, testHostileDatagramsInATransfer) }

func testHostileDatagramsInATransfer(t *testing.T, one bool) {
	addr := serve(t, &Server{OnePort: one, Handler: static(content(3000))})
	w := dial(t)
	w.send(addr, request(1, "f", "octet", "blksize", "1000"))
	op, _, _ := w.recv()
	require.EqualValues(t, 6, op)
	stranger := dial(t)
	for _, from := range []*wire{stranger, w} {
		for _, b := range [][]byte{
			nil, {0}, {0, 4}, {0, 4, 0}, {0, 4, 0, 9}, {0, 4, 255, 255}, {0, 3, 0, 1}, {0, 6}, {0, 6, 0, 0, 0, 0, 0}, {9, 9, 9, 9},
			{0, 5}, {0, 5, 0}, bytes.Repeat([]byte{0, 4}, 300), bytes.Repeat([]byte{0xff}, 60000), request(1, "f", "octet"),
		} {
			if one && len(b) > 1 && b[1] == opRRQ {
				continue // there, it is a request
			}
			from.send(w.tid, b)
		}
	}
	stranger.send(w.tid, append([]byte{0, 5, 0, 0}, "go away\x00"...))
	stranger.send(w.tid, []byte{0, 4, 0, 0})
	w.ack(0)
	require.True(t, bytes.Equal(content(3000), w.rest(1, 1000)))
}

// Thousands of requests from one socket hold a bounded number of sockets, and
// nobody else has to wait.
func TestRequestFlood(t *testing.T) {
	var res results
	s := &Server{Handler: static(content(3000)), Trace: res.trace(), Timeout: 20 * time.Millisecond, MaxTransfersPerPeer: 8}
	addr := serveOn(t, s, "0.0.0.0:0")
	w := dial(t)
	before := openFiles(t)
	for i := range 3000 {
		w.send(netip4(127, 0, 0, 1, addr.Port()), request(1, "f", "octet", "tsize", "0", "n", string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676))))
		if i%100 == 0 {
			require.LessOrEqual(t, openFiles(t), before+8+4)
			s.mu.Lock()
			total, perPeer := s.admission.total, len(s.admission.perPeer)
			s.mu.Unlock()
			require.LessOrEqual(t, total, 8)
			require.LessOrEqual(t, perPeer, 1)
		}
	}
	other, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 3)})
	if err != nil {
		cannot(t, "127.0.0.3 is no address here")
	}
	defer other.Close()
	neighbour := &wire{t: t, conn: other}
	for attempt := 1; ; attempt++ { // the flood may fill the socket's buffer, but not for long
		neighbour.send(netip4(127, 0, 0, 1, addr.Port()), request(1, "f", "octet", "blksize", "1000"))
		require.NoError(t, other.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
		buf := make([]byte, 2000)
		n, from, err := other.ReadFromUDPAddrPort(buf)
		if err != nil && attempt < 20 {
			continue
		}
		require.NoError(t, err)
		require.Equal(t, "\x00\x06blksize\x001000\x00", string(buf[:n]))
		neighbour.tid = from
		break
	}
	neighbour.ack(0)
	require.True(t, bytes.Equal(content(3000), neighbour.rest(1, 1000)))
	require.ErrorIs(t, receive(t, res.refused), ErrLimit)

	// Nothing of it stays.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.Shutdown(ctx))
	require.Zero(t, s.admission.total)
	require.Empty(t, s.admission.perPeer)
	require.Empty(t, s.admission.running)
	for e := range len(res.done) {
		r := <-res.done
		if r.Peer.Addr() == w.addr().Addr() {
			require.ErrorIs(t, r.Err, os.ErrDeadlineExceeded, "%d", e)
		}
	}
}

// A process out of file descriptors says so and goes on.
func TestNoSocketForATransfer(t *testing.T) {
	var res results
	log := new(logBuffer)
	addr := serve(t, &Server{Handler: static(content(3000)), Trace: res.trace(), Logger: log.logger(slog.LevelWarn)})
	_, err := get(t, addr, "f") // it listens
	require.NoError(t, err)
	require.NoError(t, res.next(t).Err)
	w := dial(t)
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 100, Max: old.Max}))
	var filling []*os.File
	free := func() {
		for _, f := range filling {
			f.Close()
		}
		filling = nil
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old))
	}
	defer free()
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			require.ErrorIs(t, err, syscall.EMFILE)
			break
		}
		filling = append(filling, f)
	}
	w.send(addr, request(1, "f", "octet"))
	w.fail(CodeUndefined, "internal error, see the server's log")
	require.ErrorIs(t, res.next(t).Err, syscall.EMFILE)
	require.Contains(t, log.String(), "too many open files")
	free()
	b, err := get(t, addr, "f")
	require.NoError(t, err)
	require.Equal(t, content(3000), b)
}

func netip4(a, b, c, d byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{a, b, c, d}), port)
}

func openFiles(t *testing.T) int {
	t.Helper()
	dir, err := filepath.Glob("/proc/self/fd/*")
	require.NoError(t, err)
	return len(dir)
}
