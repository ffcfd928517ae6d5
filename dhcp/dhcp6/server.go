package dhcp6

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/internal/life"
	"github.com/seed-3ec230fa/diskless/dhcp/internal/limit"
)

// maxDatagram bounds what is read of a datagram; a longer one is cut, which
// makes it malformed.
const maxDatagram = 4096

// Server answers DHCPv6 requests. Its exported fields are set before it is
// started and not changed afterwards; the server never writes to them.
type Server struct {
	// Addr is the UDP address that ListenAndServe listens on; empty is
	// ":547".
	Addr string

	// Interfaces, when there are any, are the names of the only network
	// interfaces that are served: ListenAndServe listens there, and Serve
	// ignores what came in by another one. On a machine in more than one
	// network, set it.
	Interfaces []string

	// Handler decides what clients are told. It is required.
	Handler Handler

	// Trace holds hooks for watching; nil for none.
	Trace *Trace

	// Logger gets a line per request at Debug, and at Warn what an operator
	// must see; nil is [slog.Default].
	Logger *slog.Logger

	// MaxInFlight is how many requests are worked on at the same time; 0 is
	// 1024, -1 no limit. When all are busy the server stops reading, and the
	// kernel's socket buffer holds or drops what comes; clients retry. Of one
	// client they are worked on in their order, and eight wait for that at
	// most: what it sends besides is dropped.
	MaxInFlight int

	life     life.Life
	failures limit.Seldom
}

// ListenAndServe listens on Addr and serves requests until the server is shut
// down or closed; see [Listen] and [Server.Serve].
func (s *Server) ListenAndServe() error {
	if s.life.Closing() {
		return ErrServerClosed
	}
	conn, err := Listen(s.Addr, s.Interfaces...)
	if err != nil {
		return err
	}
	return s.Serve(conn)
}

// Serve answers the requests that arrive on conn, and closes it in the end.
// It returns [ErrServerClosed] after [Server.Shutdown] or [Server.Close], and
// otherwise the read error that ended it, always non-nil; errors that pass by
// themselves do not end it. A server may serve several sockets.
//
// With a *[net.UDPConn] (network "udp6") the server learns for each request
// the receiving interface. With any other conn [Request.Interface] is the one
// that the field Interfaces names, if it is one, and [Request.Local] is the
// conn's local address.
func (s *Server) Serve(conn net.PacketConn) error {
	if s.Handler == nil {
		return errors.Join(fmt.Errorf("dhcp6: Server.Handler is nil: %w", fs.ErrInvalid), conn.Close())
	}
	return s.life.Serve(conn, ErrServerClosed, func() error { return s.serve(newSocket(conn, s.Interfaces)) })
}

// serve reads until the socket fails or the server ends, and returns when
// every request it read has been dealt with.
func (s *Server) serve(sock *socket) error {
	w := newWorkers(s, sock)
	defer w.wg.Wait()
	ctx := s.life.Context()
	buf := make([]byte, maxDatagram)
	var pause time.Duration
	for {
		n, from, err := sock.read(buf)
		if err != nil {
			if s.life.Closing() || !temporary(err) {
				return err
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.logger().Warn("dhcp6: cannot read, trying again", "err", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		if from.foreign {
			continue
		}
		if r := s.request(append([]byte(nil), buf[:n]...), from); r != nil { // it may be kept
			w.give(received{r, from})
		}
	}
}

// request reads a datagram; nil for one that is none.
func (s *Server) request(data []byte, from source) *Request {
	defer s.survive(from)
	msg, relays, err := decode(data)
	if err != nil {
		s.Trace.malformed(from.peer, err)
		s.logger().Debug("dhcp6: malformed request", "peer", from.peer, "err", err)
		return nil
	}
	return &Request{Message: msg, Relays: relays, Peer: from.peer, Local: from.local, Interface: from.iface, addrs: from.addrs}
}

// survive is deferred: a panic costs one datagram only.
func (s *Server) survive(from source) {
	if p := recover(); p != nil {
		s.logger().Error("dhcp6: panic", "peer", from.peer, "panic", p, "stack", string(debug.Stack()))
	}
}

// handle answers one request.
func (s *Server) handle(ctx context.Context, sock *socket, r *Request, from source) {
	defer s.survive(from)
	s.Trace.request(r)
	reply, err := s.Handler.ServeDHCP(ctx, r)
	if reply == nil || err != nil {
		s.noReply(r, err)
		return
	}
	to := destination(r, sock.local.Port())
	if err := sock.write(encode(r, reply), to, from); err != nil {
		s.noReply(r, fmt.Errorf("dhcp6: send reply to %v: %w", to, err))
		return
	}
	s.Trace.reply(r, reply, to)
	if log := s.logger(); log.Enabled(ctx, slog.LevelDebug) {
		log.Debug("dhcp6: replied", "type", r.MessageType.String(), "reply", reply.MessageType.String(),
			"client", r.who(), "url", reply.Options.BootFileURL(), "to", to)
	}
}

func (s *Server) noReply(r *Request, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	s.Trace.noReply(r, err)
	if err != nil && !errors.Is(err, dhcp.ErrDrop) {
		if ok, missed := s.failures.Due(time.Second); ok {
			s.logger().Warn("dhcp6: request not answered", "type", r.MessageType.String(), "client", r.who(), "peer", r.Peer, "err", err, "unlogged", missed)
			return
		}
	}
	if log := s.logger(); log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("dhcp6: no reply", "type", r.MessageType.String(), "client", r.who(), "peer", r.Peer, "err", err)
	}
}

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
