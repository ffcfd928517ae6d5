package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds waits that end early whenever the code works.
const patience = 20 * time.Second

// need returns the path of the first tool; a test without its tools cannot run.
func need(t testing.TB, tools ...string) string {
	t.Helper()
	var first string
	for _, tool := range tools {
		p, err := exec.LookPath(tool)
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if err != nil {
				p, err = exec.LookPath(filepath.Join(dir, tool))
			}
		}
		if err != nil {
			cannot(t, tool+" is not installed")
		}
		if first == "" {
			first = p
		}
	}
	return first
}

// cannot skips a test that this machine cannot do, unless it has to.
func cannot(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("DISKLESS_REQUIRE") == "all" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// logBuffer is a log that a test can read.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: level}))
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve runs s on 127.0.0.1 and checks, at the end of the test, that it ends.
func serve(t testing.TB, s *Server) netip.AddrPort {
	t.Helper()
	return serveOn(t, s, "127.0.0.1:0")
}

func serveOn(t testing.TB, s *Server, addr string) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", addr)
	require.NoError(t, err)
	serveConn(t, s, conn)
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func serveConn(t testing.TB, s *Server, conn net.PacketConn) {
	t.Helper()
	if s.Logger == nil {
		s.Logger = discard()
	}
	if s.Timeout == 0 && s.minWait == 0 {
		s.minWait = defaultTimeout // a busy machine is no lost packet
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(conn) }()
	t.Cleanup(func() {
		s.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, s.Shutdown(ctx))
		require.ErrorIs(t, <-ended, ErrServerClosed)
	})
}

// results collects what a server traces.
type results struct {
	done    chan traced
	refused chan error
}

type traced struct {
	Request
	Result
}

func (r *results) trace() *Trace {
	r.done, r.refused = make(chan traced, 10000), make(chan error, 10000)
	return &Trace{
		Done:    func(q *Request, res Result) { r.done <- traced{*q, res} },
		Refused: func(_ netip.AddrPort, err error) { r.refused <- err },
	}
}

func (r *results) next(t testing.TB) traced { return receive(t, r.done) }

func receive[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("nothing happened")
	}
	return v
}

// content is a file of n bytes that tell where they are.
func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>16) ^ byte(i>>8)*7 ^ byte(i)
	}
	return b
}

func static(b []byte) Handler {
	return HandlerFunc(func(context.Context, *Request) (File, error) {
		return NewFile(bytes.NewReader(b), int64(len(b)), ""), nil
	})
}

// wire is a client that does only what it is told.
type wire struct {
	t    testing.TB
	conn *net.UDPConn
	tid  netip.AddrPort // the sender of the last packet
	buf  []byte         // holds the last packet
}

func dial(t testing.TB) *wire {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return &wire{t: t, conn: conn}
}

func (w *wire) addr() netip.AddrPort { return w.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func (w *wire) send(to netip.AddrPort, b []byte) {
	w.t.Helper()
	_, err := w.conn.WriteToUDPAddrPort(b, to)
	require.NoError(w.t, err)
}

// request builds a request; opts are names and values.
func request(op byte, name, mode string, opts ...string) []byte {
	b := []byte{0, op}
	for _, s := range append([]string{name, mode}, opts...) {
		b = append(append(b, s...), 0)
	}
	return b
}

// recv returns the next packet; rest is valid until the next call.
func (w *wire) recv() (op uint16, arg uint16, rest []byte) {
	w.t.Helper()
	if w.buf == nil {
		w.buf = make([]byte, 70000)
	}
	buf := w.buf
	require.NoError(w.t, w.conn.SetReadDeadline(time.Now().Add(patience)))
	n, from, err := w.conn.ReadFromUDPAddrPort(buf)
	require.NoError(w.t, err)
	require.GreaterOrEqual(w.t, n, 4)
	w.tid = unmap(from)
	op = binary.BigEndian.Uint16(buf)
	if op == 6 {
		return op, 0, buf[2:n]
	}
	return op, binary.BigEndian.Uint16(buf[2:]), buf[4:n]
}

func (w *wire) ack(block uint16) {
	w.t.Helper()
	w.send(w.tid, []byte{0, 4, byte(block >> 8), byte(block)})
}

// fail asserts that the next packet is this ERROR.
func (w *wire) fail(code Code, msg string) {
	w.t.Helper()
	op, c, text := w.recv()
	require.EqualValues(w.t, opERROR, op)
	require.Equal(w.t, code, Code(c))
	require.Equal(w.t, msg+"\x00", string(text))
}

// rest acknowledges all blocks after first and returns their bytes.
func (w *wire) rest(first uint16, block int) []byte {
	w.t.Helper()
	var all []byte
	for want := first; ; want++ {
		op, n, data := w.recv()
		require.EqualValues(w.t, 3, op, "%q", data)
		if n == want-1 && want != first { // this machine was busy for too long
			want--
			continue
		}
		require.Equal(w.t, want, n)
		all = append(all, data...)
		w.ack(n)
		if len(data) < block {
			return all
		}
	}
}

// faulty gives one answer to everything.
type faulty struct{ err error }

func (f faulty) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: f.err}
}

// gate is a file whose reading a test can hold up.
type gate struct {
	io.ReaderAt
	size    int64
	entered chan struct{}
	leave   chan struct{}
	closed  chan struct{}
}

func newGate(b []byte) *gate {
	return &gate{bytes.NewReader(b), int64(len(b)), make(chan struct{}, 1000), make(chan struct{}), make(chan struct{})}
}

func (g *gate) ReadAt(p []byte, off int64) (int, error) {
	g.entered <- struct{}{}
	<-g.leave
	return g.ReaderAt.ReadAt(p, off)
}

func (g *gate) Size() int64 { return g.size }
func (g *gate) ID() string  { return "" }

func (g *gate) Close() error {
	close(g.closed) // panics when done twice
	return nil
}
