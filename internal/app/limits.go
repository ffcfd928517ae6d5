package app

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// The HTTP role's limits, as the other roles have theirs.
const (
	httpConns        = 4096
	httpConnsPerAddr = 256
	httpWriteTime    = time.Minute // for each piece of httpPiece bytes
	httpPiece        = 1 << 20
)

// limitConns is a listener that closes at once what is too many, in total or
// from one address.
func limitConns(l net.Listener, total, perAddr int) net.Listener {
	return &limitedListener{Listener: l, total: total, perAddr: perAddr, by: map[netip.Addr]int{}}
}

type limitedListener struct {
	net.Listener
	total, perAddr int

	mu   sync.Mutex
	open int
	by   map[netip.Addr]int
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		var from netip.Addr
		if ap, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			from = ap.Addr().Unmap()
		}
		l.mu.Lock()
		full := l.open >= l.total || l.by[from] >= l.perAddr
		if !full {
			l.open++
			l.by[from]++
		}
		l.mu.Unlock()
		if !full {
			return &limitedConn{Conn: c, release: func() { l.release(from) }}, nil
		}
		_ = c.Close()
	}
}

func (l *limitedListener) release(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.by[from]--; l.by[from] == 0 {
		delete(l.by, from)
	}
}

type limitedConn struct {
	net.Conn
	once    sync.Once
	release func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}

// ReadFrom keeps the way open for sendfile.
func (c *limitedConn) ReadFrom(r io.Reader) (int64, error) {
	if rf, ok := c.Conn.(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

// patient lets a response take as long as it needs, as long as the client goes
// on reading: kernels are large and some links slow, but a client that takes
// nothing must not hold a file for ever.
func patient(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&patientWriter{w, http.NewResponseController(w)}, r)
	})
}

type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (w *patientWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		if err = w.extend(); err != nil {
			return n, err
		}
		var m int
		m, err = w.ResponseWriter.Write(b[:min(len(b), httpPiece)])
		n, b = n+m, b[m:]
	}
	return n, err
}

// ReadFrom implements io.ReaderFrom, which net/http sends files with.
func (w *patientWriter) ReadFrom(r io.Reader) (n int64, err error) {
	for {
		if err := w.extend(); err != nil {
			return n, err
		}
		m, err := io.CopyN(w.ResponseWriter, r, httpPiece)
		n += m
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

func (w *patientWriter) extend() error {
	err := w.control.SetWriteDeadline(time.Now().Add(httpWriteTime))
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

// Unwrap is for http.ResponseController.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
