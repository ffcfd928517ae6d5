package dhcp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp/internal/life"
	"github.com/seed-3ec230fa/diskless/dhcp/internal/limit"
)

const (
	defaultInFlight = 1024

	// maxDatagram bounds what is read of a datagram. DHCP messages stay below
	// the MTU; a longer one is refused, not cut.
	maxDatagram = 4096
)

// Server answers DHCPv4 requests. Its exported fields are set before it is
// started and not changed afterwards; the server never writes to them.
type Server struct {
	// Addr is the UDP address that ListenAndServe listens on; empty is ":67".
	Addr string

	// Interfaces, when there are any, are the names of the only network
	// interfaces that are served: ListenAndServe opens a socket for each and
	// binds it, and Serve ignores what came in by another one. On a machine
	// in more than one network, set it.
	Interfaces []string

	// ProxyPort makes ListenAndServe listen on port 4011 besides, where
	// firmware comes for its boot file after a ProxyDHCP offer; see [Proxy].
	ProxyPort bool

	// Handler decides what clients are told. It is required.
	Handler Handler

	// Trace holds hooks for watching; nil for none.
	Trace *Trace

	// Logger gets a line per request at Debug, and at Warn what an operator
	// must see; nil is [slog.Default].
	Logger *slog.Logger

	// MaxInFlight is how many requests are worked on at the same time; 0 is
	// 1024, -1 no limit. Those that wait for a disk or for a probe count too.
	// When all are busy the server stops reading, and the kernel's socket
	// buffer holds or drops what comes; clients retry. The requests of one
	// machine are worked on one after the other; of those that wait for that
	// more than eight are dropped.
	MaxInFlight int

	life      life.Life
	failures  limit.Seldom
	shortened limit.Seldom
}

// ListenAndServe listens on Addr and serves requests until the server is shut
// down or closed; see [Server.Serve]. Port 67 needs root or the capability
// CAP_NET_BIND_SERVICE, Interface may need CAP_NET_RAW. The socket is not
// shared: a port that another server of this machine uses is an error.
func (s *Server) ListenAndServe() error {
	if s.life.Closing() {
		return ErrServerClosed
	}
	var addrs []string
	addrs = append(addrs, s.Addr)
	if s.ProxyPort {
		host, _, err := net.SplitHostPort(s.Addr)
		if err != nil && s.Addr != "" {
			return fmt.Errorf("dhcp: Server.Addr: %w", err)
		}
		addrs = append(addrs, net.JoinHostPort(host, strconv.Itoa(proxyPort)))
	}
	interfaces := s.Interfaces
	if len(interfaces) == 0 {
		interfaces = []string{""}
	}
	var conns []net.PacketConn
	for _, iface := range interfaces {
		for _, addr := range addrs {
			conn, err := Listen(addr, iface)
			if err != nil {
				for _, c := range conns {
					c.Close()
				}
				return err
			}
			conns = append(conns, conn)
		}
	}
	return s.serveAll(conns)
}

// serveAll serves several sockets until the first of them fails, which ends
// the others.
func (s *Server) serveAll(conns []net.PacketConn) error {
	if len(conns) == 1 {
		return s.Serve(conns[0])
	}
	ended := make(chan error, len(conns))
	for _, conn := range conns {
		go func() { ended <- s.Serve(conn) }()
	}
	err := <-ended
	if !errors.Is(err, ErrServerClosed) { // Shutdown lets the others finish
		for _, conn := range conns {
			conn.Close()
		}
	}
	for range conns[1:] {
		<-ended
	}
	return err
}

// Serve answers the requests that arrive on conn, and closes it in the end.
// It returns [ErrServerClosed] after [Server.Shutdown] or [Server.Close], and
// otherwise the read error that ended it, always non-nil; errors that pass by
// themselves (a link that is down, no buffer space) do not end it. A server
// may serve several sockets.
//
// With a *[net.UDPConn] (network "udp4") the server learns for each request
// the receiving interface and sends broadcasts out of the same one. On a
// socket that [Listen] did not open, what was queued before Serve lacks that,
// and is ignored when the field Interfaces is set. With any other conn
// [Request.Interface] is the one that the field Interfaces names, if it is one,
// [Request.Local] is the conn's local address, and it is up to conn where a
// broadcast goes.
func (s *Server) Serve(conn net.PacketConn) error {
	if s.Handler == nil {
		return errors.Join(fmt.Errorf("dhcp: Server.Handler is nil: %w", fs.ErrInvalid), conn.Close())
	}
	return s.life.Serve(conn, ErrServerClosed, func() error {
		sock := newSocket(conn, s.Interfaces)
		defer sock.close()
		return s.serve(sock)
	})
}

// serve reads until the socket fails or the server ends, and returns when
// every request it read has been dealt with.
func (s *Server) serve(sock *socket) error {
	ctx := s.life.Context()
	w := newWorkers(ctx, s, sock)
	defer w.close()
	var pause time.Duration
	batch := make([]*datagram, batchSize)
	for {
		for i, d := range batch {
			if d == nil {
				batch[i] = w.free.Get().(*datagram)
			}
		}
		n, err := sock.receive(batch)
		if err != nil {
			if s.life.Closing() || !temporary(err) {
				return err
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.logger().Warn("dhcp: cannot read, trying again", "err", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		for i, d := range batch[:n] {
			batch[i] = nil
			w.give(d)
		}
		runtime.Gosched() // answers go before questions
	}
}

// handle deals with one datagram. The last byte of data is spare.
func (s *Server) handle(ctx context.Context, out replier, data []byte, from source) {
	if from.foreign {
		return
	}
	defer s.survive(from)
	msg, err := decode(data)
	if err != nil {
		s.Trace.malformed(from.peer, err)
		s.logger().Debug("dhcp: malformed request", "peer", from.peer, "err", err)
		return
	}
	r := &Request{DHCPv4: msg, Peer: from.peer, Local: from.local}
	if from.link != nil {
		r.Interface, r.addrs = from.link.iface, from.link.addrs
	}
	r.platform, r.known = r.tellPlatform(), true
	s.Trace.request(r)

	reply, err := s.decide(ctx, r)
	if reply == nil || err != nil {
		s.noReply(r, err)
		return
	}
	packet, left, err := encode(r, reply)
	if err != nil {
		s.noReply(r, err)
		return
	}
	if len(left) > 0 {
		if ok, missed := s.shortened.Due(time.Second); ok {
			s.logger().Warn("dhcp: reply is longer than the client takes, options were left out: send fewer or shorter ones",
				"mac", r.machine(), "options", fmt.Sprint(left), "bytes", len(packet), "unlogged", missed)
		}
	}
	to, hw := destination(r, reply)
	out.send(outgoing{s: s, request: r, reply: reply, from: from, data: packet, to: to, hw: hw})
}

// survive is deferred: a panic costs one datagram only.
func (s *Server) survive(from source) {
	if p := recover(); p != nil {
		s.logger().Error("dhcp: panic", "peer", from.peer, "panic", p, "stack", string(debug.Stack()))
	}
}

// sent is called when the reply has been sent, or could not be.
func (o *outgoing) sent(to netip.AddrPort, err error) {
	s, r, reply := o.s, o.request, o.reply
	if err != nil {
		s.noReply(r, fmt.Errorf("dhcp: send reply to %v: %w", to, err))
		return
	}
	s.Trace.reply(r, reply, to)
	if log := s.logger(); log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("dhcp: replied", "type", r.MessageType().String(), "reply", reply.MessageType().String(),
			"mac", r.machine(), "addr", reply.YourIPAddr, "file", reply.BootFileName, "to", to)
	}
}

// decide asks the handler; a panic in it costs this request only.
func (s *Server) decide(ctx context.Context, r *Request) (reply *dhcpv4.DHCPv4, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.logger().Error("dhcp: handler panicked", "mac", r.machine(), "panic", p, "stack", string(debug.Stack()))
			reply, err = nil, fmt.Errorf("dhcp: handler panicked: %v", p)
		}
	}()
	return s.Handler.ServeDHCP(ctx, r)
}

func (s *Server) noReply(r *Request, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	s.Trace.noReply(r, err)
	if err != nil && !errors.Is(err, ErrDrop) {
		if ok, missed := s.failures.Due(time.Second); ok {
			s.logger().Warn("dhcp: request not answered", "type", r.MessageType().String(), "mac", r.machine(),
				"peer", r.Peer, "err", err, "unlogged", missed)
			return
		}
	}
	if log := s.logger(); log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("dhcp: no reply", "type", r.MessageType().String(),
			"mac", r.machine(), "peer", r.Peer, "err", err)
	}
}

// errNotRequest is for replies of other servers and the like.
var errNotRequest = errors.New("dhcp: not a BOOTREQUEST")

// Shutdown stops reading, waits until every request that was read has been
// answered and all sockets are closed, and returns nil; or, when ctx ends
// first, its error. Afterwards the server cannot be started again.
func (s *Server) Shutdown(ctx context.Context) error { return s.life.Shutdown(ctx) }

// Close closes all sockets and cancels the contexts of the handlers at work.
// It does not wait for them; the Serve calls do. Afterwards the server cannot
// be started again.
func (s *Server) Close() error { return s.life.Close() }

func (s *Server) logger() *slog.Logger { return orDefault(s.Logger) }

func orDefault(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.Default()
	}
	return l
}
