package tftp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

const (
	clientTimeout = time.Second
	clientRetries = 4
	// clientBlock fits an IPv6 packet on an Ethernet with room for a tunnel.
	clientBlock  = 1408
	clientWindow = 8
)

// Client fetches files: for probes, tests, and copies from another server. The
// zero value is ready. Get may be called concurrently.
type Client struct {
	// Local is the address to ask from, where the server knows its clients
	// by their addresses. The zero value leaves it to the system.
	Local netip.Addr

	// BlockSize is the blksize (RFC 2348) to ask for, in bytes between 8 and
	// 65464. 0 means 1408.
	BlockSize int

	// WindowSize is the windowsize (RFC 7440) to ask for, in blocks. 0 means 8.
	// A server that knows no windows sends block by block.
	WindowSize int
}

// Get is [Client.Get] of a zero Client.
func Get(ctx context.Context, addr, name string, w io.Writer) (n int64, err error) {
	return Client{}.Get(ctx, addr, name, w)
}

// Get fetches a file into w and returns its length. addr is a host or
// host:port, without a port it is 69. The mode is octet, with the options
// tsize, blksize and windowsize; a file shorter than the server announced is
// io.ErrUnexpectedEOF.
//
// An ERROR packet from the server is an [*Error]: errors.Is(err,
// fs.ErrNotExist) is code 1. A server that does not answer is given up after
// five attempts of a second each. The end of ctx ends the transfer at once, and
// the server is told.
func (c Client) Get(ctx context.Context, addr, name string, w io.Writer) (n int64, err error) {
	n, err = c.get(ctx, addr, name, w)
	if err != nil {
		err = fmt.Errorf("tftp: get %q from %s: %w", name, addr, err)
	}
	return n, err
}

func (c Client) get(ctx context.Context, addr, name string, w io.Writer) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	q := query{name: name, opts: options{hasSize: true, blksize: clientBlock, window: clientWindow}}
	if c.BlockSize != 0 {
		q.opts.blksize = c.BlockSize
	}
	if c.WindowSize != 0 {
		q.opts.window = c.WindowSize
	}
	if b := q.opts.blksize; b < minBlock || b > maxBlock || q.opts.window < 1 || q.opts.window > maxWindow {
		return 0, fmt.Errorf("block size %d or window %d out of range: %w", b, q.opts.window, fs.ErrInvalid)
	}
	if len(name) > maxRequest-100 || strings.ContainsRune(name, 0) {
		return 0, fmt.Errorf("name longer than %d bytes, or with a NUL: %w", maxRequest-100, fs.ErrInvalid)
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(strings.Trim(addr, "[]"), "69")
	}
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return 0, err
	}
	var local *net.UDPAddr
	if c.Local.IsValid() {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.Local, 0))
	}
	conn, err := net.ListenUDP("udp", local)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_ = conn.SetReadBuffer(2 * q.opts.window * (q.opts.blksize + 1024))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	f := &reception{ctx: ctx, conn: conn, peer: unmap(to.AddrPort()), w: w, asked: q.opts, opts: options{blksize: defaultBlock, window: 1}, last: q.encode()}
	return f.run()
}

// reception is one file on its way here: the receiver of RFC 7440.
type reception struct {
	ctx   context.Context
	conn  *net.UDPConn
	peer  netip.AddrPort
	known bool // peer is the server's port for this transfer
	w     io.Writer
	asked options
	opts  options
	last  []byte // what to repeat when nothing comes
	want  int64  // the next block
	count int    // blocks since the last acknowledgement
	gap   bool   // it was for a gap
	n     int64
}

func (f *reception) run() (int64, error) {
	buf := make([]byte, 4+max(f.asked.blksize, defaultBlock)+1)
	f.want = 1
	f.send(f.last)
	for silent := 0; ; {
		b, err := f.read(buf)
		if cause := f.ctx.Err(); cause != nil {
			f.abort("given up")
			return f.n, cause
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if silent++; silent > clientRetries {
				return f.n, fmt.Errorf("no answer: %w", err)
			}
			f.count, f.gap = 0, false
			f.send(f.last)
			continue
		case err != nil:
			return f.n, err
		}
		fresh, done, err := f.packet(b)
		if done || err != nil {
			return f.n, err
		}
		if fresh {
			silent = 0
		}
	}
}

// read returns the next packet of the server.
func (f *reception) read(buf []byte) ([]byte, error) {
	if err := f.conn.SetReadDeadline(time.Now().Add(clientTimeout)); err != nil {
		return nil, err
	}
	if f.ctx.Err() != nil { // its end may have come before the new deadline
		return nil, os.ErrDeadlineExceeded
	}
	for {
		n, from, err := f.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return nil, err
		}
		from = unmap(from)
		if n < 4 || from != f.peer && (f.known || from.Addr().WithZone("") != f.peer.Addr().WithZone("")) {
			continue // a stranger
		}
		f.peer, f.known = from, true
		return buf[:n], nil
	}
}

// packet handles one; fresh: it has brought the transfer on.
func (f *reception) packet(b []byte) (fresh, done bool, err error) {
	switch arg := binary.BigEndian.Uint16(b[2:]); binary.BigEndian.Uint16(b) {
	case opERROR:
		return false, false, &Error{Code(arg), printable(cutNUL(b[4:]))}
	case opOACK:
		if f.want > 1 {
			return false, false, nil
		}
		if err := f.agree(b[2:]); err != nil {
			f.abort("bad options")
			return false, false, err
		}
		f.ack()
		return true, false, nil
	case opDATA:
		return f.data(arg, b[4:])
	}
	return false, false, nil
}

// agree takes the server's options.
func (f *reception) agree(b []byte) error {
	var o options
	o.parse(string(b))
	if o.blksize > f.asked.blksize || o.window > f.asked.window {
		return fmt.Errorf("the server grants more than was asked for: %w", fs.ErrInvalid)
	}
	if o.blksize != 0 {
		f.opts.blksize = o.blksize
	}
	if o.window != 0 {
		f.opts.window = o.window
	}
	f.opts.hasSize, f.opts.size = o.hasSize, o.size
	return nil
}

func (f *reception) data(arg uint16, b []byte) (fresh, done bool, err error) {
	switch ahead := int16(arg - uint16(f.want)); {
	case len(b) > f.opts.blksize:
		return false, false, nil
	case ahead > 0: // something is lost: the window begins there (RFC 7440 section 4)
		if !f.gap {
			f.ack()
			f.gap = true
		}
		return false, false, nil
	case ahead == -1: // the acknowledgement is lost
		f.ack()
		return false, false, nil
	case ahead < 0:
		return false, false, nil
	}
	f.gap = false
	if _, err := f.w.Write(b); err != nil {
		f.abort("cannot write")
		return false, false, err
	}
	f.n += int64(len(b))
	f.want++
	f.count++
	last := len(b) < f.opts.blksize
	if last || f.count >= f.opts.window {
		f.ack()
	} else {
		f.last = ackPacket(uint16(f.want - 1))
	}
	if last && f.opts.hasSize && f.n < f.opts.size {
		return true, true, io.ErrUnexpectedEOF
	}
	return true, last, nil
}

// ack acknowledges what has come so far.
func (f *reception) ack() {
	f.count = 0
	f.last = ackPacket(uint16(f.want - 1))
	f.send(f.last)
}

func ackPacket(block uint16) []byte { return []byte{0, opACK, byte(block >> 8), byte(block)} }

func (f *reception) abort(why string) { f.send((&Error{CodeUndefined, why}).encode()) }

// send does not report errors: what is lost here is lost as on any wire.
func (f *reception) send(b []byte) { _, _ = f.conn.WriteToUDPAddrPort(b, f.peer) }
