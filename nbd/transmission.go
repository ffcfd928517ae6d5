package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// transmit answers requests until the connection ends (doc/proto.md,
// "Transmission phase").
func (c *conn) transmit() error {
	c.setState(stateBusy)
	if c.mdev == nil && !c.open.Features.Slow {
		c.out.least = smallBufLen // for several replies with their data
	}
	for {
		p, err := c.nextRequest()
		if err != nil {
			return err
		}
		if magic := binary.BigEndian.Uint32(p); magic != protocol.TRANSMISSION_MAGIC_REQUEST {
			_ = c.flush()
			return fmt.Errorf("nbd: a request with the magic number %#x", magic)
		}
		r := command{
			flags:  binary.BigEndian.Uint16(p[4:]),
			typ:    binary.BigEndian.Uint16(p[6:]),
			cookie: binary.BigEndian.Uint64(p[8:]),
			offset: binary.BigEndian.Uint64(p[16:]),
			length: binary.BigEndian.Uint32(p[24:]),
		}
		if r.typ == protocol.TRANSMISSION_TYPE_REQUEST_DISC {
			_ = c.flush()
			return errLeft
		}
		c.requests++
		if err := c.answer(r); err != nil {
			return err
		}
	}
}

// command is a request on the wire.
type command struct {
	flags, typ     uint16
	cookie, offset uint64
	length         uint32
}

// answer works on one request, or has a worker do it. Its error ends the
// connection.
func (c *conn) answer(r command) error {
	switch {
	case c.draining.Load() && c.srv.Handover:
		_ = c.flush() // the replies to those before it
		return ErrServerClosed
	case c.draining.Load():
		return c.refuse(r)
	case c.open.Features.Slow && !c.streams(r):
		return c.delegate(r)
	case r.typ == protocol.TRANSMISSION_TYPE_REQUEST_WRITE:
		// The data follows whatever is wrong with the request.
		return c.write(r)
	}
	return c.respond(r)
}

// respond answers a request that is whole.
func (t *replier) respond(r command) error {
	c := t.c
	switch r.typ {
	case protocol.TRANSMISSION_TYPE_REQUEST_READ:
		return t.read(r)
	case cmdFlush:
		return t.done(r, c.doFlush(r))
	case cmdTrim:
		return t.done(r, c.doTrim(r))
	case cmdWriteZeroes:
		return t.done(r, c.doZero(r))
	case cmdCache:
		return t.done(r, c.doCache(r))
	case cmdBlockStatus:
		return t.blockStatus(r)
	default:
		return t.done(r, protocol.TRANSMISSION_ERROR_EINVAL)
	}
}

// badFlags says whether r has flags other than those given, and FUA where that
// was announced: it is allowed with every command.
func (c *conn) badFlags(r command, allowed uint16) bool {
	if c.wdev != nil && c.sdev != nil {
		allowed |= cmdFlagFUA
	}
	return r.flags&^allowed != 0
}

func (c *conn) outside(r command) bool {
	return r.offset > c.size || uint64(r.length) > c.size-r.offset
}

func (c *conn) unaligned(r command) bool { return (r.offset|uint64(r.length))&(c.align-1) != 0 }

// refuse answers a request that came too late for a shutdown.
func (c *conn) refuse(r command) error {
	if r.typ == protocol.TRANSMISSION_TYPE_REQUEST_WRITE {
		if err := c.drop(int64(r.length)); err != nil {
			return err
		}
	}
	return c.done(r, wireESHUTDOWN)
}

// writeError is what is wrong with a write, whatever its data.
func (c *conn) writeError(r command) uint32 {
	switch {
	case c.badFlags(r, 0), r.length > c.maxReq:
		return protocol.TRANSMISSION_ERROR_EINVAL
	case c.wdev == nil:
		return protocol.TRANSMISSION_ERROR_EPERM
	case c.outside(r):
		return wireENOSPC
	case c.unaligned(r):
		return protocol.TRANSMISSION_ERROR_EINVAL
	}
	return 0
}

// write takes NBD_CMD_WRITE's data off the connection, passes it on, and
// answers.
func (c *conn) write(r command) error {
	left, off := int64(r.length), int64(r.offset)
	if left > 2*int64(c.maxReq) {
		return fmt.Errorf("nbd: a write of %d bytes, the most is %d", left, c.maxReq)
	}
	code := c.writeError(r)
	for left > 0 && code == 0 {
		n, err := c.awaitPiece(left, off)
		if err != nil {
			return err
		}
		if err := c.writeAt(c.rd.peek(n), off); err != nil {
			code = c.wireError(err, "write")
		} else {
			c.sums.written += uint64(n)
		}
		c.rd.discard(n)
		left, off = left-int64(n), off+int64(n)
	}
	if err := c.drop(left); err != nil {
		return err
	}
	if code == 0 {
		code = c.persist(r)
	}
	return c.done(r, code)
}

// persist does what FUA asks for.
func (c *conn) persist(r command) uint32 {
	if r.flags&cmdFlagFUA == 0 {
		return 0
	}
	return c.wireError(c.sync(), "flush")
}

// awaitPiece waits until there is something worth a write of its own: the rest
// of the data, or enough to end at a multiple of blockLen and of what the device wants.
func (c *conn) awaitPiece(left, off int64) (int, error) {
	c.armed = false
	align := max(blockLen, int64(c.align))
	for {
		n := int64(c.rd.buffered())
		if n >= left {
			return int(left), nil
		}
		if n >= readBufLen/4 {
			if cut := (off + n) % align; cut < n {
				return int(n - cut), nil
			}
		}
		if err := c.fillPiece(int(min(left, readBufLen))); err != nil {
			return 0, err
		}
	}
}

// nextRequest returns the next request's header. Replies go out before it
// waits.
func (c *conn) nextRequest() ([]byte, error) {
	c.armed = false
	for c.rd.buffered() < requestHeaderLen {
		var err error
		if c.rd.buffered() == 0 {
			err = c.fillIdle()
		} else {
			err = c.fillPiece(requestHeaderLen)
		}
		if err != nil {
			return nil, err
		}
	}
	p := c.rd.peek(requestHeaderLen)
	c.rd.discard(requestHeaderLen)
	return p, nil
}

// fillIdle waits for a request, for ever unless the server shuts down.
func (c *conn) fillIdle() error { return c.await(requestHeaderLen, stateIdle) }

// fillPiece waits for more of what the client has begun to send.
func (c *conn) fillPiece(n int) error {
	err := c.await(n, statePartial)
	switch {
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("nbd: the client stopped in the middle of a request: %w", err)
	}
	return err
}

// await sends the replies at hand and reads once, with room for n bytes.
func (c *conn) await(n int, st connState) error {
	if err := c.flush(); err != nil {
		return err
	}
	if !c.enter(st) {
		return c.fillLame(n, st)
	}
	c.rd.alone = c.isAlone()
	err := c.rd.fill(n)
	c.setState(stateBusy)
	if err != nil && c.draining.Load() {
		return ErrServerClosed
	}
	return err
}

// enter makes drain end the wait that follows. It is false when drain was
// called already.
func (c *conn) enter(st connState) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining.Load() {
		return false
	}
	c.state = st
	switch {
	case st == statePartial && !c.armed && c.timeout > 0:
		_ = c.nc.SetReadDeadline(time.Now().Add(c.timeout))
		c.armed, c.deadline = true, true
	case st == stateIdle && c.deadline:
		_ = c.nc.SetReadDeadline(time.Time{})
		c.deadline = false
	}
	return true
}

// isAlone says whether no other connection of the server had a request for a
// while.
func (c *conn) isAlone() bool {
	if c.srv.last.Load() != c.info.ID {
		c.srv.last.Store(c.info.ID)
		c.streak = 0
	}
	c.streak++
	return c.streak > aloneAfter
}

func (c *conn) setState(st connState) {
	c.mu.Lock()
	c.state = st
	c.mu.Unlock()
}

// fillLame takes what is already on its way while the server shuts down.
func (c *conn) fillLame(n int, st connState) error {
	if c.srv.Handover && st == stateIdle {
		return ErrServerClosed
	}
	if !c.lame {
		c.lame = true
		_ = c.nc.SetReadDeadline(time.Now().Add(lameDuck))
	}
	if err := c.rd.fill(n); err != nil {
		return ErrServerClosed
	}
	return nil
}

func putReply(p []byte, cookie uint64, code uint32) {
	binary.BigEndian.PutUint32(p, protocol.TRANSMISSION_MAGIC_REPLY)
	binary.BigEndian.PutUint32(p[4:], code)
	binary.BigEndian.PutUint64(p[8:], cookie)
}

// readAt reads all of p or fails.
func (c *conn) readAt(p []byte, off int64) (err error) {
	if len(p) == 0 {
		return nil
	}
	defer recovered(&err)
	n, err := c.dev.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (c *conn) writeAt(p []byte, off int64) (err error) {
	defer recovered(&err)
	n, err := c.wdev.WriteAt(p, off)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

func (c *conn) sync() (err error) {
	defer recovered(&err)
	return c.sdev.Sync()
}

// wireError maps a device's error and tells the operator of the first one.
func (c *conn) wireError(err error, op string) uint32 {
	if err == nil {
		return 0
	}
	attrs := append([]any{"client", c.info.Remote, "export", c.open.Export, "op", op}, errAttrs(err)...)
	if c.warned.Swap(true) {
		c.log.Debug("nbd: the device failed", attrs...)
	} else {
		c.log.Warn("nbd: the device failed, further errors of this connection are logged at level debug", attrs...)
	}
	return wireError(err)
}
