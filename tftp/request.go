package tftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"time"
)

// maxReadErrors is how many failures in a row it takes to give a socket up.
const maxReadErrors = 10

// readRequests accepts requests until the socket is closed or broken.
func (s *Server) readRequests(l *listener) error {
	buf := make([]byte, maxRequest+1) // one more shows that a request is too long
	for failed := 0; ; {
		n, d, err := l.read(buf)
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("tftp: %w", err)
		}
		if err != nil {
			// The system reports other peers' troubles on this socket, too; but
			// one that keeps failing must not be read in a circle.
			if failed++; failed == maxReadErrors {
				return fmt.Errorf("tftp: reading requests: %w", err)
			}
			s.logger().Warn("tftp: reading a request", "error", err)
			select {
			case <-time.After(time.Duration(failed) * 10 * time.Millisecond):
			case <-s.ctx.Done():
			}
			continue
		}
		failed = 0
		// A request sent to everybody is for nobody (RFC 1123 section 4.2.3.5).
		if !d.peer.IsValid() || d.local.IsMulticast() || d.local == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			continue
		}
		s.accept(l, d, buf[:n])
	}
}

// accept checks one datagram and starts what it asks for.
func (s *Server) accept(l *listener, d datagram, b []byte) {
	received := time.Now()
	q, ok, refusal := parseRRQ(b)
	if !ok {
		return
	}
	if refusal != nil {
		s.logger().Debug("tftp: refused", "peer", d.peer, "error", refusal)
		s.traceRefused(d.peer, refusal)
		s.sendError(l, d.peer, routeTo(d), refusal)
		return
	}
	name, err := cleanName(q.name)
	if err != nil {
		s.logger().Warn("tftp: refused", "peer", d.peer, "error", err)
		s.traceRefused(d.peer, err)
		s.sendError(l, d.peer, routeTo(d), wireError(err))
		return
	}
	tk, err := s.admit(d.peer, b)
	if err != nil {
		s.logger().Debug("tftp: not served", "peer", d.peer, "name", name, "error", err)
		s.traceRefused(d.peer, err)
		return
	}
	l.requests.Add(1)
	go func() { // ends with the transfer
		defer l.requests.Done()
		defer s.release(tk)
		p := routeTo(d)
		if p.broadcast {
			return
		}
		r := &Request{Name: name, Raw: q.name, Peer: d.peer, Local: d.local}
		s.traceRequest(r)
		res := s.serve(l, p, q, r, tk)
		res.Duration = time.Since(received)
		s.log(r, res)
		s.traceDone(r, res)
	}()
}

// serve answers one request and returns when all is over.
func (s *Server) serve(l *listener, p route, q rrq, r *Request, tk *ticket) (res Result) {
	res.BlockSize = defaultBlock
	f, err := s.open(r)
	if err == nil && f.Size() < 0 {
		f.Close()
		err = fmt.Errorf("tftp: %s: negative size", r.Name)
	}
	if err != nil {
		res.Err = err
		s.settled(tk)
		s.sendError(l, r.Peer, p, wireError(err))
		return res
	}
	defer f.Close()

	if q.blksize != 0 {
		q.blksize = min(q.blksize, p.maxBlock)
		if s.MaxBlockSize > 0 {
			q.blksize = max(defaultBlock, min(q.blksize, s.MaxBlockSize))
		}
		res.BlockSize = q.blksize
	}
	if f.Size() == 0 { // nothing to tell; curl takes a size of 0 for an error
		q.tsize = false
	}
	res.Size, res.TSize = f.Size(), q.tsize

	t := &transfer{
		ctx: s.ctx, file: f, size: f.Size(), q: q, peer: r.Peer, block: res.BlockSize,
		timeout: s.timeout(), retries: s.retries(), finished: make(chan struct{}),
	}
	if p.elsewhere {
		rl, err := newRelay(p.local, r.Peer)
		if err != nil {
			res.Err = err
			s.sendError(l, r.Peer, p, wireError(err))
			return res
		}
		defer rl.close()
		t.peer = rl.addr()
	}
	s.mu.Lock()
	tk.t = t
	s.mu.Unlock()
	if !l.engine.run(t) {
		s.sendError(l, r.Peer, p, wireError(t.err))
	}
	res.Err, res.Probe = t.outcome()
	res.Bytes, res.Resent = t.off.Load(), t.resent
	return res
}

// open asks the handler. One that panics costs its own request only, as with
// net/http.
func (s *Server) open(r *Request) (f File, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("tftp: handler panicked: %v\n%s", p, debug.Stack())
		}
	}()
	if s.Handler == nil {
		return nil, notExist(r.Name)
	}
	f, err = s.Handler.OpenTFTP(s.ctx, r)
	if f == nil && err == nil {
		err = notExist(r.Name)
	}
	if err != nil && f != nil {
		f.Close()
	}
	if err != nil && context.Cause(s.ctx) != nil {
		err = errors.Join(ErrServerClosed, err)
	}
	return f, err
}

// sendError answers a request with an ERROR packet: from the address that was
// asked and, as RFC 1350 section 4 wants it, from a port of its own.
func (s *Server) sendError(l *listener, peer netip.AddrPort, p route, e *Error) {
	if p.broadcast {
		return
	}
	to := net.UDPAddrFromAddrPort(peer)
	conn := l.conn
	if p.local.IsValid() {
		if c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.local, 0))); err == nil {
			defer c.Close()
			conn = c
		}
	}
	if _, err := conn.WriteTo(e.encode(), to); err != nil {
		s.logger().Debug("tftp: sending an error", "peer", peer, "error", err)
	}
}

// log writes the one record of a request.
func (s *Server) log(r *Request, res Result) {
	attrs := []any{"peer", r.Peer, "name", r.Name, "bytes", res.Bytes, "size", res.Size, "blksize", res.BlockSize, "duration", res.Duration}
	var e *Error
	var l logged
	switch err := res.Err; {
	case res.Probe:
		s.logger().Debug("tftp: size asked", attrs...)
	case err == nil:
		s.logger().Debug("tftp: sent", attrs...)
	case errors.Is(err, fs.ErrNotExist), errors.As(err, &e), errors.As(err, &l), errors.Is(err, ErrServerClosed),
		errors.Is(err, os.ErrDeadlineExceeded) && res.Bytes <= int64(res.BlockSize): // perhaps a forged address
		s.logger().Debug("tftp: not sent", append(attrs, "error", err)...)
	default:
		s.logger().Warn("tftp: not sent", append(attrs, "error", err)...)
	}
}
