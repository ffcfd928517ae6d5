package nbd

import (
	"context"
	"errors"
	"net"
	"strconv"
)

// Port serves a [Server]'s exports where clients cannot or do not name one: on
// a listener of its own (a port per image, as LTSP before 5.3 had it), or on a
// connection that was handed over, as inetd does. What it serves counts for
// the Server's limits and ends with its Shutdown and Close.
type Port struct {
	Server *Server
	// Export is the export of a client that gives no name, or as its name the
	// number of the TCP port ("2000"), as old initramfs scripts do. Other
	// names stay what they are.
	Export string
	// Oldstyle greets clients in the manner of before 2007: the server says
	// the size at once and there is no negotiation. Clients that negotiate
	// cannot be served beside them, nor can encryption be had.
	Oldstyle bool
}

// Serve is [Server].Serve on the Port's terms.
func (p *Port) Serve(l net.Listener) error { return p.Server.serve(l, p) }

// ServeConn is [Server].ServeConn on the Port's terms.
func (p *Port) ServeConn(ctx context.Context, nc net.Conn) error {
	return p.Server.serveConn(ctx, nc, p)
}

// check finds options that contradict each other: none of these may end in a
// connection without the encryption that was asked for.
func (s *Server) check(p *Port) error {
	switch {
	case s.RequireTLS && s.TLS == nil:
		return errors.New("nbd: RequireTLS is set and TLS is nil: give the server a certificate")
	case s.RequireTLS && p != nil && p.Oldstyle:
		return errors.New("nbd: RequireTLS is set, oldstyle clients cannot encrypt: serve them with another Server")
	}
	return nil
}

// exportOf is the export that a client means by name.
func (c *conn) exportOf(name string) string {
	if c.port == nil {
		return name
	}
	if name == "" || name == "/" || name == strconv.Itoa(int(c.info.Local.Port())) {
		return c.port.Export
	}
	return name
}
