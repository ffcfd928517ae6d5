package tftp

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"time"

	pin "github.com/pin/tftp/v3"
)

const (
	clientTimeout = time.Second
	clientRetries = 4
	// clientBlock fits an IPv6 packet on an Ethernet with room for a tunnel.
	clientBlock = 1408
)

// Client fetches files; it is for probes and tests. The zero value is ready.
type Client struct {
	// Local is the address to ask from, where the server knows its clients
	// by their addresses. The zero value leaves it to the system.
	Local netip.Addr
}

// Get is [Client.Get] of a zero Client.
func Get(ctx context.Context, addr, name string, w io.Writer) (n int64, err error) {
	return Client{}.Get(ctx, addr, name, w)
}

// Get fetches a file into w and returns its length. addr is a host or
// host:port, without a port it is 69. The mode is octet, with the options
// blksize and tsize; a file shorter than the server announced is
// io.ErrUnexpectedEOF.
//
// An ERROR packet from the server is an [*Error]: errors.Is(err,
// fs.ErrNotExist) is code 1. A server that does not answer is given up after
// five attempts of a second each, and the end of ctx is noticed with the next
// block, or then.
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
	if len(name) > maxRequest-64 || strings.ContainsRune(name, 0) {
		return 0, fmt.Errorf("name longer than %d bytes, or with a NUL: %w", maxRequest-64, fs.ErrInvalid)
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(strings.Trim(addr, "[]"), "69")
	}
	p, err := pin.NewClient(addr)
	if err != nil {
		return 0, err
	}
	if c.Local.IsValid() {
		if err := p.SetLocalAddr(c.Local.String()); err != nil {
			return 0, err
		}
	}
	p.SetTimeout(clientTimeout)
	p.SetRetries(clientRetries)
	p.SetBackoff(func(int) time.Duration { return 0 })
	p.SetBlockSize(clientBlock)
	p.RequestTSize(true)
	in, err := p.Receive(name, "octet")
	if err != nil {
		return 0, typed(err)
	}
	size, known := int64(0), false
	if t, ok := in.(pin.IncomingTransfer); ok {
		size, known = t.Size()
	}
	cw := &ctxWriter{ctx, w, nil}
	n, err := in.WriteTo(cw)
	switch {
	case cw.err != nil:
		return n, cw.err
	case err != nil:
		return n, typed(err)
	case known && n < size:
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}

// typed turns pin's report of an ERROR packet into an *Error.
func typed(err error) error {
	if e := peerError(err); e != nil {
		return e
	}
	return err
}

// ctxWriter stops a transfer when ctx ends.
type ctxWriter struct {
	ctx context.Context
	w   io.Writer
	err error
}

func (w *ctxWriter) Write(p []byte) (int, error) {
	if w.err = w.ctx.Err(); w.err != nil {
		return 0, w.err
	}
	var n int
	n, w.err = w.w.Write(p)
	return n, w.err
}
