package dhcptest

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Network is a network in memory on which every packet reaches every other
// conn that it is for: the one with that address, or all for the address
// 255.255.255.255, with that port. It works inside of a testing/synctest
// bubble, where real sockets do not. The zero value is ready to use, and safe
// for concurrent use.
type Network struct {
	mu    sync.Mutex
	conns []*conn
}

// queueLen is how many packets wait for a reader; more are lost, as with a
// real socket.
const queueLen = 256

// Listen returns a conn with the given address. Its LocalAddr is a
// *[net.UDPAddr].
func (n *Network) Listen(addr netip.AddrPort) net.PacketConn {
	c := &conn{network: n, addr: addr, queue: make(chan packet, queueLen), closed: make(chan struct{}), wake: make(chan struct{})}
	n.mu.Lock()
	n.conns = append(n.conns, c)
	n.mu.Unlock()
	return c
}

type packet struct {
	data []byte
	from netip.AddrPort
}

type conn struct {
	network *Network
	addr    netip.AddrPort
	queue   chan packet
	closed  chan struct{}
	once    sync.Once

	mu       sync.Mutex
	deadline time.Time
	wake     chan struct{} // closed and replaced when the deadline changes
}

func (c *conn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		c.mu.Lock()
		deadline, wake := c.deadline, c.wake
		c.mu.Unlock()
		var expired <-chan time.Time
		if !deadline.IsZero() {
			d := time.Until(deadline)
			if d <= 0 {
				return 0, nil, c.error("read", os.ErrDeadlineExceeded)
			}
			timer := time.NewTimer(d)
			defer timer.Stop()
			expired = timer.C
		}
		select {
		case <-c.closed:
			return 0, nil, c.error("read", net.ErrClosed)
		case <-wake:
		case <-expired:
		case p := <-c.queue:
			return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
		}
	}
}

func (c *conn) WriteTo(b []byte, addr net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, c.error("write", net.ErrClosed)
	default:
	}
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, c.error("write", errors.ErrUnsupported)
	}
	to := netip.AddrPortFrom(udp.AddrPort().Addr().Unmap(), udp.AddrPort().Port())
	everyone := to.Addr() == netip.AddrFrom4([4]byte{255, 255, 255, 255})
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	for _, other := range c.network.conns {
		if other == c || other.addr.Port() != to.Port() || !everyone && other.addr.Addr() != to.Addr() {
			continue
		}
		select {
		case other.queue <- packet{append([]byte(nil), b...), c.addr}:
		default:
		}
	}
	return len(b), nil
}

func (c *conn) Close() error {
	err := c.error("close", net.ErrClosed)
	c.once.Do(func() {
		close(c.closed)
		c.network.mu.Lock()
		defer c.network.mu.Unlock()
		for i, other := range c.network.conns {
			if other == c {
				c.network.conns = append(c.network.conns[:i], c.network.conns[i+1:]...)
				break
			}
		}
		err = nil
	})
	return err
}

func (c *conn) error(op string, err error) error {
	return &net.OpError{Op: op, Net: "memory", Source: c.LocalAddr(), Err: err}
}

func (c *conn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.addr) }

func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	close(c.wake)
	c.wake = make(chan struct{})
	return nil
}

// SetWriteDeadline does nothing: a write never waits.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
