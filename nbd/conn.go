package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// conn is one connection to a Server. Its fields belong to the goroutine that
// runs it, except where noted.
type conn struct {
	srv    *Server
	port   *Port // nil: none
	nc     net.Conn
	rw     net.Conn // nc, or what is within its encryption
	cork   *cork    // under the encryption; nil: there is none
	info   ConnInfo
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelCauseFunc // from any goroutine

	orphaned func() bool // ends the watch over parent; nil: there is none

	rd      reader
	replier            // for what is not left to a worker
	writing sync.Mutex // replies, one as a whole after the other

	// negotiated
	tls        *tls.ConnectionState
	metaExport string // for which meta counts

	dev     Device
	wdev    io.WriterAt // nil: read-only
	sdev    Syncer      // nil: no flush
	xdev    Extenter    // nil: extents are not known
	mdev    Mapper      // nil: reads are copied
	open    OpenInfo
	size    uint64
	align   uint64 // of requests
	maxReq  uint32
	streak  uint32 // requests since another connection had one
	timeout time.Duration

	requests uint64

	workers *workers // nil: none were needed yet
	share   share    // of the server's budget, whose lock guards it

	mu       sync.Mutex // guards state, and setting draining against it
	state    connState
	draining atomic.Bool // from any goroutine

	meta       bool // base:allocation was selected
	structured bool
	readSeen   atomic.Bool // FirstRead has been traced
	warned     atomic.Bool // the device's first error has been logged
	armed      bool        // the read deadline for the piece at hand is set
	deadline   bool        // some read deadline is set
	lame       bool        // draining, the deadline for answering ESHUTDOWN is set
}

type connState int8

const (
	stateHandshake connState = iota
	stateBusy                // with a request
	stateIdle                // waiting for one, nothing of it has come
	statePartial             // waiting for the rest of one
)

var errLeft = errors.New("nbd: client has left")

func newConn(parent context.Context, s *Server, nc net.Conn, p *Port, info ConnInfo) *conn {
	c := &conn{
		srv:     s,
		port:    p,
		nc:      nc,
		rw:      nc,
		info:    info,
		log:     s.log(),
		maxReq:  uint32(s.maxRequest()),
		timeout: s.ioTimeout(),
	}
	c.ctx, c.cancel = context.WithCancelCause(parent)
	c.rd.init(nc, &s.bufs.read)
	c.replier = c.newReplier()
	c.out.send.init(nc)
	return c
}

// cut ends the connection now. The first cause given counts.
func (c *conn) cut(cause error) {
	if cause == nil {
		cause = net.ErrClosed
	}
	c.cancel(cause)
	c.nc.Close()
}

// drain ends the connection when the request at hand is answered.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining.Store(true)
	switch c.state {
	case stateHandshake:
		c.cut(ErrServerClosed)
	case stateIdle:
		_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	case statePartial:
		_ = c.nc.SetReadDeadline(time.Now().Add(lameDuck))
	}
}

// run serves the connection to its end and returns why it ended.
func (c *conn) run(parent context.Context) error {
	c.begin(parent)
	err := c.handshake()
	if err == nil {
		err = c.transmit()
	}
	return c.end(err)
}

// start is run without waiting. The handshake has a goroutine of its own: what
// it calls makes a stack grow, and most connections are idle ever after.
func (c *conn) start() {
	go func() { // ends with the handshake
		c.begin(context.Background())
		if err := c.handshake(); err != nil {
			_ = c.end(err)
			return
		}
		go func() { _ = c.end(c.transmit()) }() // ends with the connection; Shutdown and Close end that
	}()
}

func (c *conn) begin(parent context.Context) {
	if parent.Done() != nil {
		c.orphaned = context.AfterFunc(parent, func() { c.cut(context.Cause(parent)) })
	}
	if t, ok := c.nc.(*net.TCPConn); ok {
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4})
		setUserTimeout(t, time.Minute)
	}
	c.log.Debug("nbd: connection", "client", c.info.Remote, "id", c.info.ID)
	if t := c.srv.Trace; t != nil && t.ConnOpened != nil {
		t.ConnOpened(c.info)
	}
}

// end closes everything and returns why the connection ended.
func (c *conn) end(err error) error {
	defer c.srv.remove(c)
	defer c.cancel(nil)
	if c.orphaned != nil {
		defer c.orphaned()
	}
	if cause := context.Cause(c.ctx); cause != nil {
		err = cause // and not the read error that came of it
	}
	c.out.release()
	sums := c.sums
	if c.workers != nil {
		sums.add(c.workers.end())
	}
	c.closeDevice()
	c.farewell()
	c.rw.Close()
	c.rd.discard(c.rd.buffered())
	c.rd.release()

	if errors.Is(err, errLeft) {
		err = nil
	}
	stats := ConnStats{Export: c.open.Export, Requests: c.requests, Errors: sums.errors,
		BytesRead: sums.read, BytesWritten: sums.written, Duration: time.Since(c.info.Opened)}
	c.log.Debug("nbd: connection ended", "client", c.info.Remote, "id", c.info.ID, "export", stats.Export,
		"read", stats.BytesRead, "written", stats.BytesWritten, "errors", stats.Errors, "cause", err)
	if t := c.srv.Trace; t != nil && t.ConnClosed != nil {
		t.ConnClosed(c.info, stats, err)
	}
	return err
}

// fill is for the handshake: it flushes the replies at hand, since the client
// may wait for them, and reads once, with room for n unread bytes.
func (c *conn) fill(n int) error {
	if err := c.flush(); err != nil {
		return err
	}
	return c.rd.fill(n)
}

// next returns the next n bytes, at most readBufLen. They are valid until the
// next call.
func (c *conn) next(n int) ([]byte, error) {
	for c.rd.buffered() < n {
		var err error
		if c.dev == nil {
			err = c.fill(n)
		} else {
			err = c.fillPiece(n)
		}
		if err != nil {
			if err == io.EOF && c.rd.buffered() > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	p := c.rd.peek(n)
	c.rd.discard(n)
	return p, nil
}

// closeDevice closes the connection's device, if it has one and that closes.
func (c *conn) closeDevice() {
	if c.dev == nil {
		return
	}
	closeDevice(c.log, c.dev)
	c.dev, c.wdev, c.sdev, c.xdev, c.mdev = nil, nil, nil, nil, nil
}

func closeDevice(log *slog.Logger, dev Device) {
	cl, ok := dev.(io.Closer)
	if !ok {
		return
	}
	err := guard(func() error { return cl.Close() })
	if err != nil {
		log.Warn("nbd: closing a device", "err", err)
	}
}

// farewell keeps a connection that is cut with requests pending open until the
// client has seen the end of it: closing a socket that has unread data in it
// resets it, which may take replies with it that are still on their way.
func (c *conn) farewell() {
	half, ok := c.rw.(interface{ CloseWrite() error })
	if !ok || !c.draining.Load() || !c.srv.Handover || context.Cause(c.ctx) != nil {
		return
	}
	if half.CloseWrite() != nil || c.nc.SetReadDeadline(time.Now().Add(lameDuck)) != nil {
		return
	}
	var buf [512]byte
	for {
		if _, err := c.rw.Read(buf[:]); err != nil {
			return
		}
	}
}

// panicError is a panic of a handler or a device.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// guard calls f and makes an error of its panic.
func guard(f func() error) (err error) {
	defer recovered(&err)
	return f()
}

// recovered is to be deferred; it makes an error of a panic.
func recovered(err *error) {
	if v := recover(); v != nil {
		*err = &panicError{value: v, stack: debug.Stack()}
	}
}

// errAttrs is what to log about err.
func errAttrs(err error) []any {
	var p *panicError
	if errors.As(err, &p) {
		return []any{"err", err, "stack", string(p.stack)}
	}
	return []any{"err", err}
}
