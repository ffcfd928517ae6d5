package tftp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// datagram says where one came from and which way.
type datagram struct {
	peer      netip.AddrPort
	local     netip.Addr // zero when unknown
	ifindex   int        // 0 when unknown
	broadcast bool       // it went to everybody
	from      net.Addr   // peer, as the conn had it; nil where nobody needs it
}

// transport is how a listener gets its requests and its sessions their
// packets.
type transport interface {
	// run calls accept for each request until stop or until reading fails. b
	// is valid during the call.
	run(accept func(d datagram, b []byte)) error
	// stop makes run return nil; the sessions go on.
	stop()
	// close ends the transport after the last session.
	close()

	// dial returns the way back to a client, the size of a block that fits into
	// one datagram on it, and the loop that will drive it. upload: the blocks
	// come from the client.
	dial(d datagram, upload bool) (l link, fits int, on *loop, err error)
	// attach makes the packets that arrive on a link those of a session. The
	// loop's lock is held.
	attach(l link, s session) error
	// reply sends one datagram to where another came from.
	reply(d datagram, b []byte) error
	// abort ends all sessions.
	abort(err error)
}

// maxReadErrors is how many failures in a row it takes to give a socket up.
const maxReadErrors = 10

// packetConn is the transport over any net.PacketConn with UDP addresses. All
// packets arrive on it and leave by it.
type packetConn struct {
	conn net.PacketConn
	s    *Server
	loop *loop
	down chan struct{} // stopped: no more requests
	once sync.Once

	timer    *time.Timer                // runs loop.work
	due      instant                    // when it does, -1 never; guarded by loop.mu
	sessions map[netip.AddrPort]session // guarded by loop.mu
}

func newPacketConn(s *Server, conn net.PacketConn) *packetConn {
	p := &packetConn{conn: conn, s: s, loop: &loop{epoch: s.epoch}, down: make(chan struct{}), due: -1, sessions: make(map[netip.AddrPort]session)}
	p.loop.alarm = p.arm
	p.timer = time.AfterFunc(time.Hour, p.work)
	p.timer.Stop()
	return p
}

// arm has work called in time. The loop's lock is held.
func (p *packetConn) arm(at instant) {
	if p.due >= 0 && p.due <= at {
		return
	}
	p.due = at
	p.timer.Reset(max(0, at-p.loop.now()))
}

// work is what the timer does.
func (p *packetConn) work() {
	p.loop.mu.Lock()
	defer p.loop.mu.Unlock()
	p.due = -1
	p.drain()
}

// drain does what is due, and sees to what is due later. The lock is held, but
// let go between the turns.
func (p *packetConn) drain() {
	for {
		next := p.loop.work(p.loop.now())
		if next < 0 {
			return
		}
		if next > 0 {
			p.arm(next)
			return
		}
		p.loop.mu.Unlock()
		p.loop.mu.Lock()
	}
}

func (p *packetConn) run(accept func(datagram, []byte)) error {
	failed := make(chan error, 1)
	go func() { // ends when the conn is closed or broken
		failed <- p.read(accept)
	}()
	select {
	case err := <-failed:
		return err
	case <-p.down:
		return nil
	}
}

func (p *packetConn) stop() { p.once.Do(func() { close(p.down) }) }

func (p *packetConn) stopped() bool {
	select {
	case <-p.down:
		return true
	default:
		return false
	}
}

// read reads what arrives: packets of the sessions and requests.
func (p *packetConn) read(accept func(datagram, []byte)) error {
	buf := make([]byte, 4+maxBlock+1)
	source := newPacketSource(p.conn)
	for failed := 0; ; {
		n, d, err := source.read(buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			return fmt.Errorf("tftp: %w", err)
		}
		if err != nil {
			// The system reports other peers' troubles on this socket, too; but
			// one that keeps failing must not be read in a circle.
			if failed++; failed == maxReadErrors {
				return fmt.Errorf("tftp: reading requests: %w", err)
			}
			p.s.logger().Warn("tftp: reading a request", "error", err)
			select {
			case <-time.After(time.Duration(failed) * 10 * time.Millisecond):
			case <-p.s.ctx.Done():
			}
			continue
		}
		failed = 0
		if !d.peer.IsValid() {
			continue
		}
		if !isRequest(buf[:n]) {
			p.loop.mu.Lock()
			if s := p.sessions[d.peer]; s != nil {
				s.packet(p.loop.now(), buf[:n])
				p.drain()
			}
			p.loop.mu.Unlock()
			continue
		}
		if !p.stopped() {
			d.broadcast = isBroadcast(d)
			accept(d, buf[:n])
		}
	}
}

// isRequest tells requests from the packets of a running transfer.
func isRequest(b []byte) bool { return len(b) >= 2 && b[0] == 0 && (b[1] == opRRQ || b[1] == opWRQ) }

func (p *packetConn) close() {
	p.conn.Close()
	p.loop.mu.Lock()
	p.timer.Stop()
	p.loop.mu.Unlock()
}

func (p *packetConn) abort(err error) { p.loop.abort(err) }

func (p *packetConn) dial(d datagram, _ bool) (link, int, *loop, error) {
	return &packetLink{p: p, d: d}, fitsInto(d), p.loop, nil
}

func (p *packetConn) attach(l link, s session) error {
	pl := l.(*packetLink)
	if old := p.sessions[pl.d.peer]; old != nil { // the client has begun again
		old.drop(p.loop.now())
	}
	pl.s = s
	p.sessions[pl.d.peer] = s
	return nil
}

func (p *packetConn) reply(d datagram, b []byte) error { return writeTo(p.conn, d, b) }

// packetLink is a client's place on the conn.
type packetLink struct {
	p *packetConn
	d datagram
	s session
}

func (l *packetLink) send(b []byte, size int) (n int, err error) {
	for n < len(b) {
		part := b[n:min(n+size, len(b))]
		if err := writeTo(l.p.conn, l.d, part); err != nil {
			l.p.s.logger().Debug("tftp: sending", "peer", l.d.peer, "error", err) // as if it were lost
		}
		n += len(part)
	}
	return n, nil
}

func (l *packetLink) close() {
	if l.p.sessions[l.d.peer] == l.s {
		delete(l.p.sessions, l.d.peer)
	}
}
