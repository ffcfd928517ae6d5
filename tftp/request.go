package tftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"
	"time"
)

// exchange is one request on its way through the server.
type exchange struct {
	s        *Server
	l        *listener
	d        datagram
	q        query
	r        *Request
	tk       *ticket
	received time.Time
	res      Result
}

// accept checks one datagram and starts what it asks for.
func (s *Server) accept(l *listener, d datagram, b []byte) {
	received := time.Now()
	q, ok, refusal := parseRequest(b)
	// A request sent to everybody is for nobody (RFC 1123 section 4.2.3.5).
	if !ok || d.broadcast {
		return
	}
	if refusal != nil {
		s.refuse(l, d, refusal, refusal)
		return
	}
	name, err := cleanName(q.name)
	if err != nil {
		s.logger().Warn("tftp: refused", "peer", d.peer, "error", err)
		s.refuse(l, d, err, wireError(err))
		return
	}
	if _, ok := s.Handler.(Uploader); q.write && !ok {
		s.refuse(l, d, errNoUploads, errNoUploads)
		return
	}
	tk, err := s.admit(l, d.peer, b)
	if err != nil {
		s.logger().Debug("tftp: not served", "peer", d.peer, "name", name, "error", err)
		s.traceRefused(d.peer, err)
		return
	}
	x := &exchange{
		s: s, l: l, d: d, q: q, tk: tk, received: received,
		r:   &Request{Name: name, Raw: q.name, Peer: d.peer, Local: d.local, Write: q.write, UploadSize: -1},
		res: Result{BlockSize: defaultBlock, WindowSize: 1},
	}
	if q.write && q.opts.hasSize {
		x.r.UploadSize = q.opts.size
	}
	go x.begin() // ends when the first packet is sent
}

// refuse answers a datagram that reaches no handler.
func (s *Server) refuse(l *listener, d datagram, why error, e *Error) {
	s.logger().Debug("tftp: refused", "peer", d.peer, "error", why)
	s.traceRefused(d.peer, why)
	s.sendError(l, d, e)
}

// begin finds the file and sends its first packet.
func (x *exchange) begin() {
	x.s.traceRequest(x.r)
	f, u, err := x.open()
	if err != nil {
		x.deny(err)
		return
	}
	way, fits, on, err := x.l.dial(x.d, u != nil)
	switch {
	case err == nil && u != nil:
		x.take(u, way, fits, on)
		return
	case err == nil:
		x.send(f, way, fits, on)
		return
	case u != nil:
		u.Close()
	default:
		f.Close()
	}
	x.deny(err)
}

// deny answers with an ERROR packet. The request is a new one when it comes
// again, and that has to be so before the client knows.
func (x *exchange) deny(err error) {
	x.s.settled(x.tk)
	x.s.sendError(x.l, x.d, wireError(err))
	x.end(err)
}

// send starts the transfer of a file, which the transport then drives.
func (x *exchange) send(f File, way link, fits int, on *loop) {
	asked := x.q.opts
	asked.hasSize = asked.hasSize && !x.q.netascii && // is known only at the end
		f.Size() > 0 // curl takes a size of 0 for an error
	if asked.size = 0; asked.hasSize {
		asked.size = f.Size()
	}
	if x.q.netascii {
		asked.window = 0
	}
	granted := x.s.grant(asked, fits)
	t := &transfer{link: way, opts: granted, oack: granted.oack(), floor: x.s.minWait, timeout: x.s.timeout(), retries: x.s.retries(), rtt: x.s.recall(x.r.Peer.Addr())}
	if granted.timeout != 0 {
		t.timeout = granted.timeout
	}
	t.longest = x.s.longest(t.timeout)
	if t.opts.blksize == 0 {
		t.opts.blksize = defaultBlock
	}
	if t.opts.window == 0 {
		t.opts.window = 1
	}
	for _, p := range []*pacer{x.s.pace, x.tk.from.pace} {
		if p != nil {
			t.paces = append(t.paces, p)
		}
	}
	x.res.Size, x.res.TSize, x.res.Timeout = f.Size(), granted.hasSize, granted.timeout
	x.res.BlockSize, x.res.WindowSize = t.opts.blksize, t.opts.window
	t.src = x.s.cache.open(f, x.r.Name, t.opts.blksize, x.q.netascii)
	t.done = func(err error) { go x.sent(t, err) } // hooks and files may block
	x.start(on, way, &t.task, t)
}

// start hands a session over to its loop.
func (x *exchange) start(on *loop, way link, t *task, s interface {
	session
	start(now instant)
}) {
	t.loop, t.session, t.index, t.former = on, s, -1, x.tk.supersedes
	x.s.mu.Lock() // never while a loop's lock is held
	x.tk.t = t
	x.s.mu.Unlock()
	on.mu.Lock()
	defer on.mu.Unlock()
	on.add(t)
	err := x.l.attach(way, s)
	if err == nil {
		err = on.ended
	}
	if err != nil {
		s.abort(on.now(), err)
		return
	}
	s.start(on.now())
}

// sent is the end of a transfer.
func (x *exchange) sent(t *transfer, err error) {
	t.src.release()
	x.res.Bytes, x.res.Resent, x.res.RTT = t.bytes(), t.resent, t.rtt.smooth
	x.s.remember(x.r.Peer.Addr(), t.rtt)
	// Firmware uses code 8 here, or 0: the moment says what it meant.
	if e := (*Error)(nil); errors.As(err, &e) && t.high == 0 && x.res.TSize && e != errRead {
		x.res.Probe, err = true, nil
	}
	x.end(err)
}

// end is the end of every request.
func (x *exchange) end(err error) {
	x.res.Err = err
	x.res.Duration = time.Since(x.received)
	x.s.log(x.r, x.res)
	x.s.traceDone(x.r, x.res)
	x.s.release(x.tk)
	x.l.requests.Done()
}

// open calls the handler: a File or, for a write request, an Upload.
func (x *exchange) open() (f File, u Upload, err error) {
	s := x.s
	defer func() {
		if v := recover(); v != nil {
			f, u, err = nil, nil, fmt.Errorf("tftp: handler panicked: %v\n%s", v, debug.Stack())
		}
		if err != nil && context.Cause(s.ctx) != nil {
			err = errors.Join(ErrServerClosed, err)
		}
	}()
	if s.Handler == nil {
		return nil, nil, notExist(x.r.Name)
	}
	if x.q.write {
		if u, err = create(s.ctx, s.Handler, x.r); err != nil && u != nil {
			u.Close()
		}
		return nil, u, err
	}
	f, err = s.Handler.OpenTFTP(s.ctx, x.r)
	switch {
	case f == nil && err == nil:
		err = notExist(x.r.Name)
	case err != nil && f != nil:
		f.Close()
	case err == nil && f.Size() < 0:
		f.Close()
		err = fmt.Errorf("tftp: %s: negative size", x.r.Name)
	}
	return f, nil, err
}

// sendError answers a request with an ERROR packet.
func (s *Server) sendError(l *listener, d datagram, e *Error) {
	if err := l.reply(d, e.encode()); err != nil {
		s.logger().Debug("tftp: sending an error", "peer", d.peer, "error", err)
	}
}

// log writes the one record of a request.
func (s *Server) log(r *Request, res Result) {
	attrs := []any{"peer", r.Peer, "name", r.Name, "bytes", res.Bytes, "size", res.Size, "blksize", res.BlockSize,
		"windowsize", res.WindowSize, "resent", res.Resent, "duration", res.Duration}
	done := "sent"
	if r.Write {
		done = "received"
	}
	var e *Error
	var l logged
	switch err := res.Err; {
	case res.Probe:
		s.logger().Debug("tftp: size asked", attrs...)
	case err == nil:
		s.logger().Debug("tftp: "+done, attrs...)
	case errors.Is(err, fs.ErrNotExist), errors.As(err, &e), errors.As(err, &l), errors.Is(err, ErrServerClosed),
		errors.Is(err, errUnseen), errors.Is(err, os.ErrDeadlineExceeded) && res.Size == res.Bytes, // only the last word is missing
		errors.Is(err, syscall.ECONNREFUSED):
		s.logger().Debug("tftp: not "+done, append(attrs, "error", err)...)
	default:
		s.logger().Warn("tftp: not "+done, append(attrs, "error", err)...)
	}
}
