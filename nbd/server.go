package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves the exports of a [Handler]. Its exported fields are options:
// they are read, never written, and must not change while it serves. The zero
// value works and has no exports. A Server must not be copied after first use.
//
// Of every limit, 0 means the default given here and a negative value none.
type Server struct {
	// Addr is the TCP address that ListenAndServe listens on; "" is ":10809",
	// NBD's port.
	Addr string
	// Handler finds the device of an export; nil knows none.
	Handler Handler
	// Trace is told what happens.
	Trace *Trace
	// Logger gets a Debug record per connection and opened export, and a Warn
	// record for refused exports, for a device's first error on a connection,
	// and for limits reached: of one kind for one client and export once a
	// second, further ones at Debug; nil is slog.Default().
	Logger *slog.Logger

	// TLS makes the server offer encryption (NBD_OPT_STARTTLS); nil does not.
	// It needs a certificate. What it says of client certificates holds as
	// everywhere: a Handler sees them in Request.TLS.
	TLS *tls.Config
	// RequireTLS makes everything else wait for encryption: options are
	// refused with NBD_REP_ERR_TLS_REQD until then, and clients that cannot
	// ask for it are cut. It needs TLS.
	RequireTLS bool

	// MaxConns is how many connections may be open at once; 0 is 4096. One
	// that is too many is closed at once.
	MaxConns int
	// MaxConnsPerAddr is the same for each IP address; 0 is 256. Connections
	// without one, as on a Unix socket, are not counted.
	MaxConnsPerAddr int
	// HandshakeTimeout is how long a client may take for its handshake, the
	// time that the Handler takes not counted; 0 is 10 s.
	HandshakeTimeout time.Duration
	// MaxOptions is how many options a client may send in a handshake; 0 is 64.
	MaxOptions int
	// MaxOptionLength is how long the data of an option may be, in bytes; 0,
	// a negative value and more than 64 KiB are 64 KiB.
	MaxOptionLength int
	// MaxRequest is the longest read or write, in bytes; 0 is 32 MiB, which
	// every client may rely on.
	MaxRequest int64
	// MaxBuffered is how many bytes all connections together may hold of
	// replies whose data is copied, as it is for encryption and from a device
	// that is no [Mapper], and of writes to slow devices; 0 is 256 MiB, and
	// less than 2 MiB is 2 MiB. A connection that has a seventeenth of what
	// others leave of it waits for its own client before it gets more, as do
	// all of an address when they have a fifth: clients that ask for much and
	// take nothing, until IOTimeout cuts them, are not in the way of others.
	MaxBuffered int64
	// IOTimeout is how long a client may take to send the next 64 KiB of a
	// request it has begun, or to take the replies sent at once (at most
	// 1 MiB); 0 is 60 s. Between requests it may be silent for ever: dead
	// peers are found by TCP keepalive.
	IOTimeout time.Duration

	// Handover changes what Shutdown does with requests that have not been
	// begun: it cuts the connection without an answer to them, instead of
	// answering ESHUTDOWN. A client that reconnects (package nbdattach, and
	// nbd-client -persist) can then repeat them to the next server, whereas
	// Linux makes an I/O error of ESHUTDOWN. Set it where another server takes
	// over at once.
	Handover bool

	mu        sync.Mutex
	closing   bool          // Shutdown or Close was called
	done      chan struct{} // closed when closing is set
	empty     chan struct{} // closed when closing is set and conns is empty
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	peers     map[netip.Addr]*peer
	lastID    uint64
	warned    warnings
	budget    budget

	bufs bufPools
	// last is the connection that had the last request, to know when one is
	// alone.
	last atomic.Uint64
}

// ListenAndServe listens on Addr and serves until Shutdown or Close; it then
// returns [ErrServerClosed].
func (s *Server) ListenAndServe() error {
	addr := s.Addr
	if addr == "" {
		addr = ":10809"
	}
	if s.isClosing() {
		return ErrServerClosed
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("nbd: %w", err)
	}
	return s.Serve(l)
}

// Serve accepts connections from l, each served on a goroutine of its own,
// until Shutdown or Close; it then returns [ErrServerClosed]. It closes l. It
// may be called several times with different listeners.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, nil) }

func (s *Server) serve(l net.Listener, p *Port) error {
	defer l.Close()
	if err := s.check(p); err != nil {
		return err
	}
	s.mu.Lock()
	s.setupLocked()
	if s.closing {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()

	var pause time.Duration
	for {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			if c, err := s.admit(context.Background(), nc, p); err == nil {
				c.start()
			}
			continue
		}
		if s.isClosing() {
			return ErrServerClosed
		}
		// Out of descriptors, or a client that was gone before it was
		// accepted: neither may end the server.
		var ne net.Error
		if errors.Is(err, net.ErrClosed) || !errors.As(err, &ne) {
			return fmt.Errorf("nbd: accept: %w", err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.log().Warn("nbd: cannot accept a connection, trying again", "err", err, "after", pause)
		select {
		case <-time.After(pause):
		case <-s.done:
		}
	}
}

// ServeConn serves one connection, closes it, and returns when it has ended
// and its device is closed. The error is nil when the client took its leave
// (NBD_CMD_DISC, NBD_OPT_ABORT), [io.EOF] when it closed the connection
// between two requests, and else what ended the connection: the cause given to
// Request.Disconnect, [ErrServerClosed], ctx's cause, or what went wrong.
//
// Limits on connections apply as in Serve.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) error {
	return s.serveConn(ctx, nc, nil)
}

func (s *Server) serveConn(ctx context.Context, nc net.Conn, p *Port) error {
	if err := s.check(p); err != nil {
		nc.Close()
		return err
	}
	c, err := s.admit(ctx, nc, p)
	if err != nil {
		return err
	}
	return c.run(ctx)
}

// Shutdown stops accepting connections and ends those there are: a request
// being worked on is finished and its reply sent, requests behind it are
// answered with ESHUTDOWN (but see Handover), then the connection is closed.
// Handshakes are cut off. It returns nil when all connections have ended and
// their devices are closed, or ctx's error; the connections left can then be
// cut with Close.
func (s *Server) Shutdown(ctx context.Context) error {
	empty := s.close((*conn).drain)
	select {
	case <-empty:
		return nil
	default:
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close stops accepting connections and cuts those there are. It does not wait
// for operations on devices under way; Shutdown, called after it, does.
func (s *Server) Close() error {
	s.close(func(c *conn) { c.cut(ErrServerClosed) })
	return nil
}

// close makes the server refuse whatever is new, ends each connection with
// end, and returns a channel that is closed when none is left.
func (s *Server) close(end func(*conn)) <-chan struct{} {
	s.mu.Lock()
	s.setupLocked()
	if !s.closing {
		s.closing = true
		close(s.done)
		if len(s.conns) == 0 {
			close(s.empty)
		}
	}
	listeners := slices.Collect(maps.Keys(s.listeners))
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}
	for _, c := range conns {
		end(c)
	}
	return s.empty
}

func (s *Server) setupLocked() {
	if s.done != nil {
		return
	}
	s.done = make(chan struct{})
	s.empty = make(chan struct{})
	s.listeners = make(map[net.Listener]struct{})
	s.conns = make(map[*conn]struct{})
	s.peers = make(map[netip.Addr]*peer)
	s.budget.free = s.maxBuffered()
}

// admit makes a connection known, or closes it because of a limit.
func (s *Server) admit(ctx context.Context, nc net.Conn, p *Port) (*conn, error) {
	info := ConnInfo{
		Client: addrPortOf(nc.RemoteAddr()),
		Local:  addrPortOf(nc.LocalAddr()),
		Remote: nc.RemoteAddr(),
		Opened: time.Now(),
	}
	c, err := s.register(ctx, nc, p, &info)
	if err == nil {
		return c, nil
	}
	nc.Close()
	if !errors.Is(err, ErrServerClosed) {
		s.warn(cause{msg: "nbd: connection refused"}, "client", info.Remote, "err", err)
		if s.Trace != nil && s.Trace.ConnRefused != nil {
			s.Trace.ConnRefused(info, err)
		}
	}
	return nil, err
}

func (s *Server) register(ctx context.Context, nc net.Conn, p *Port, info *ConnInfo) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setupLocked()
	s.lastID++
	info.ID = s.lastID
	ip := info.Client.Addr()
	switch {
	case s.closing:
		return nil, ErrServerClosed
	case len(s.conns) >= s.maxConns():
		return nil, fmt.Errorf("nbd: %d connections are open, the most that MaxConns allows", len(s.conns))
	}
	from := s.peers[ip] // those without an address are all from here
	if from == nil {
		from = new(peer)
	}
	if ip.IsValid() && from.conns >= s.maxConnsPerAddr() {
		return nil, fmt.Errorf("nbd: %v has %d connections open, the most that MaxConnsPerAddr allows", ip, from.conns)
	}
	from.conns++
	s.peers[ip] = from
	c := newConn(ctx, s, nc, p, *info)
	c.share.peer = from
	s.conns[c] = struct{}{}
	return c, nil
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if c.share.peer.conns--; c.share.peer.conns == 0 {
		delete(s.peers, c.info.Client.Addr())
	}
	if s.closing && len(s.conns) == 0 {
		close(s.empty)
	}
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

func (s *Server) log() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}

// addrPortOf returns a's address, or the zero value if it has none.
func addrPortOf(a net.Addr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	var ap netip.AddrPort
	if t, ok := a.(*net.TCPAddr); ok {
		ap = t.AddrPort()
	} else {
		ap, _ = netip.ParseAddrPort(a.String())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
