package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// exchange is a request, and what its reply brings.
type exchange struct {
	typ, flags uint16
	off        int64
	n          uint32
	data       []byte // to be written, or read into

	got     uint32   // bytes from data's beginning that came
	apart   []span   // what came besides, by place
	extents []Extent // to be filled in
	found   int
	code    uint32 // the first error
}

// span is a part of data.
type span struct{ from, to uint32 }

// maxApart bounds what a server makes a Client remember: chunks of one reply
// mostly come in order.
const maxApart = 1000

// call is an exchange under way. The Client's mu guards what is not the exchange.
type call struct {
	exchange
	cookie uint64
	sent   bool          // its caller sends no more, and waits
	done   bool          // its reply has come
	turn   chan struct{} // to look again
}

// do sends one request and waits for its reply, while others do the same. One of
// those who wait takes the replies of all, until it has its own; then the next one
// does. So there is no goroutine to be ended, and who is alone waits for nobody.
func (c *Client) do(q exchange) (found int, err error) {
	p, err := c.begin(q)
	if err != nil {
		return 0, err
	}
	err = c.send(&p.exchange, p.cookie)
	c.mu.Lock()
	defer c.mu.Unlock()
	p.sent = true
	if err != nil {
		c.fail(err)
	}
	for !p.done && (c.err == nil || c.reading) {
		if c.reading {
			c.mu.Unlock()
			<-p.turn
			c.mu.Lock()
			continue
		}
		c.reading = true
		for err = nil; !p.done && err == nil; {
			c.mu.Unlock()
			err = c.takeReply()
			c.mu.Lock()
		}
		c.reading = false
		if err != nil {
			c.fail(err)
		}
		c.passOn()
	}
	delete(c.calls, p.cookie)
	switch {
	case !p.done:
		err = c.err
	case p.code != 0:
		err = fmt.Errorf("nbd: the server answered: %w", errnoOf(p.code))
	default:
		found, err = p.found, nil
	}
	*p = call{turn: p.turn} // keeps nobody's buffer
	c.idle = append(c.idle, p)
	return found, err
}

// begin makes a call known, before its reply can come.
func (c *Client) begin(q exchange) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	var p *call
	if last := len(c.idle) - 1; last >= 0 {
		p, c.idle = c.idle[last], c.idle[:last]
	} else {
		p = &call{turn: make(chan struct{}, 1)}
	}
	c.cookie++
	*p = call{exchange: q, cookie: c.cookie, turn: p.turn}
	c.calls[p.cookie] = p
	return p, nil
}

// fail ends the connection, for all. The caller holds mu.
func (c *Client) fail(err error) {
	if c.err == nil {
		c.err = fmt.Errorf("nbd: the connection failed: %w", unexpected(err))
	}
	c.nc.Close()
	for _, p := range c.calls {
		p.wake()
	}
}

// passOn has another one take the replies, one of those that only wait: who still
// sends will see for itself. The caller holds mu.
func (c *Client) passOn() {
	for _, p := range c.calls {
		if p.sent && !p.done {
			p.wake()
			return
		}
	}
}

func (p *call) wake() {
	select {
	case p.turn <- struct{}{}:
	default:
	}
}

// takeReply takes a reply, or a chunk of one, to whatever call. It is for the one
// that has set reading.
func (c *Client) takeReply() error {
	// Both kinds of replies begin with as many bytes.
	h := c.in[:replyHeaderLen]
	if _, err := io.ReadFull(c.rd, h); err != nil {
		return err
	}
	magic, cookie := binary.BigEndian.Uint32(h), binary.BigEndian.Uint64(h[8:])
	chunked := c.structured && magic == magicStructured
	if !chunked && magic != protocol.TRANSMISSION_MAGIC_REPLY {
		return errors.New("a reply without its magic number")
	}
	c.mu.Lock()
	p := c.calls[cookie]
	if p != nil && p.done {
		p = nil
	}
	c.mu.Unlock()
	if p == nil {
		return fmt.Errorf("a reply to request %d, which there is none of", cookie)
	}
	last := true
	if chunked {
		flags, typ := binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:])
		if err := c.chunk(&p.exchange, typ); err != nil {
			return err
		}
		if last = flags&chunkDone != 0; last {
			if err := p.complete(); err != nil {
				return err
			}
		}
	} else if err := c.simpleReply(&p.exchange, binary.BigEndian.Uint32(h[4:])); err != nil {
		return err
	}
	if last {
		c.mu.Lock()
		p.done = true
		p.wake()
		c.mu.Unlock()
	}
	return nil
}

// simpleReply takes the rest of a simple reply.
func (c *Client) simpleReply(q *exchange, code uint32) error {
	q.code = code
	isRead := q.typ == protocol.TRANSMISSION_TYPE_REQUEST_READ
	if c.structured && (isRead || q.typ == cmdBlockStatus) {
		return errors.New("a simple reply where a structured one was agreed on")
	}
	if q.code == 0 && isRead {
		_, err := io.ReadFull(c.rd, q.data)
		return err
	}
	return nil
}

// send sends a request, as a whole after others.
func (c *Client) send(q *exchange, cookie uint64) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	h := c.out[:]
	binary.BigEndian.PutUint32(h, protocol.TRANSMISSION_MAGIC_REQUEST)
	binary.BigEndian.PutUint16(h[4:], q.flags)
	binary.BigEndian.PutUint16(h[6:], q.typ)
	binary.BigEndian.PutUint64(h[8:], cookie)
	binary.BigEndian.PutUint64(h[16:], uint64(q.off))
	binary.BigEndian.PutUint32(h[24:], q.n)
	if q.typ == protocol.TRANSMISSION_TYPE_REQUEST_WRITE {
		bufs := net.Buffers{h, q.data}
		_, err := bufs.WriteTo(c.nc)
		return err
	}
	_, err := c.nc.Write(h)
	return err
}
