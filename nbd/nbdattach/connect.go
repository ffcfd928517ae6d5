package nbdattach

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// Transmission flags, doc/proto.md of NBD.
const (
	flagReadOnly  = 1 << 1
	flagMultiConn = 1 << 8
	// used is what Linux makes use of: read-only, flush, FUA, rotational,
	// trim, write zeroes, several connections.
	used = flagReadOnly | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | flagMultiConn
)

// open makes a connection and negotiates the export.
func (s *settings) open(ctx context.Context) (*nbd.Negotiated, error) {
	dial := s.Dial
	if dial == nil {
		dial = func(ctx context.Context) (net.Conn, error) {
			var nd net.Dialer
			return nd.DialContext(ctx, s.Network, s.Addr)
		}
	}
	nc, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("nbdattach: %w", err)
	}
	n, err := new(nbd.Dialer).Negotiate(ctx, nc, s.Export)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("nbdattach: %w", &refusal{err})
	}
	if err != nil {
		return nil, fmt.Errorf("nbdattach: %w", err)
	}
	if n.Size < 512 {
		n.Conn.Close()
		return nil, fmt.Errorf("nbdattach: the export %q has %d bytes, a device has at least 512: %w", s.Export, n.Size, fs.ErrInvalid)
	}
	return n, nil
}

// refusal is a server's word that it does not serve the export, unlike such an
// error in reaching it, where a socket's file is missing.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

func (s *settings) blockSize(n *nbd.Negotiated) (uint64, error) {
	b := s.BlockSize
	if b == 0 {
		b = max(512, n.MinBlock)
	}
	if b < n.MinBlock || b > 4096 {
		return 0, fmt.Errorf("nbdattach: block size %d, but the server takes requests of %d bytes and multiples: %w", b, n.MinBlock, fs.ErrInvalid)
	}
	return uint64(b), nil
}

// same says whether an export is what the device has.
func (d *Device) same(n *nbd.Negotiated) error {
	flags := n.Flags
	if d.s.ReadOnly {
		flags |= flagReadOnly
	}
	// More than what was promised is no harm, except to be writable or not.
	missing := d.flags & used &^ flags
	if d.conns == 1 {
		missing &^= flagMultiConn
	}
	if uint64(n.Size) != d.attrs.size || missing != 0 || (flags^d.flags)&flagReadOnly != 0 {
		return fmt.Errorf("%w: %d bytes and flags %#x, before %d bytes and flags %#x", ErrChanged, n.Size, flags, d.attrs.size, d.flags)
	}
	return nil
}

// withSockets calls f with the connections' file descriptors.
func withSockets(conns []*nbd.Negotiated, f func([]uintptr) error) error {
	var fds []uintptr
	call := func() error { return f(fds) }
	for _, n := range conns {
		sc, ok := n.Conn.(syscall.Conn)
		if !ok {
			return fmt.Errorf("a connection of type %T has no socket that the kernel could use: %w", n.Conn, fs.ErrInvalid)
		}
		raw, err := sc.SyscallConn()
		if err != nil {
			return err
		}
		next := call
		call = func() error {
			var inner error
			// Within Control the descriptor stays open.
			err := raw.Control(func(fd uintptr) {
				fds = append(fds, fd)
				inner = next()
			})
			return errors.Join(err, inner)
		}
	}
	return call()
}
