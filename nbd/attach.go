package nbd

import (
	"context"
	"fmt"
	"net"
)

// Negotiated is an export that a handshake has opened and that no request was
// sent to yet: for those who speak the protocol from there on themselves, as
// Linux does with a socket that it is given (package nbdattach).
type Negotiated struct {
	Conn  net.Conn // encrypts, if the Dialer has TLS
	Size  int64    // bytes
	Flags uint16   // transmission flags, NBD_FLAG_* as the specification has them
	// MinBlock is the smallest request the server takes, in bytes; 0: it did
	// not say.
	MinBlock int
}

// Negotiate opens an export over a connection as NewClient does, without
// structured replies, and leaves the rest to the caller, whom the connection
// belongs to from then on; on an error it is closed. The context counts for
// the handshake.
func (d *Dialer) Negotiate(ctx context.Context, nc net.Conn, export string) (*Negotiated, error) {
	c := &Client{nc: nc, size: -1, simple: true}
	if err := withContext(ctx, nc, func() error { return c.open(ctx, export, d.TLS) }); err != nil {
		nc.Close()
		return nil, fmt.Errorf("nbd: opening the export %q: %w", export, err)
	}
	return &Negotiated{Conn: c.nc, Size: c.size, Flags: c.flags, MinBlock: c.minBlock}, nil
}
