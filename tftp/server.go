package tftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	defaultTimeout   = time.Second
	defaultRetries   = 5
	defaultMaxWindow = 64
)

// Server answers read requests, and write requests where its Handler is an
// [Uploader]. Its exported fields are the options; they must
// not change while it serves, and the server never writes to them. The zero
// value works: it listens on port 69 and has no files. All methods may be
// called concurrently.
type Server struct {
	// Addr is where ListenAndServe listens, host:port. Empty means ":69".
	Addr string

	// Handler finds the files. nil: there are none.
	Handler Handler

	// Trace sees what happens. nil: nobody does.
	Trace *Trace

	// Logger gets one Debug record per request and a Warn for what an operator
	// must see. nil means slog.Default().
	Logger *slog.Logger

	// OnePort keeps transfers on the port of the requests, for clients behind
	// address translation, for containers and for strict firewalls. Without it
	// each transfer has a port of its own, as RFC 1350 section 4 has it: then
	// nobody can forge acknowledgements without guessing the port, the system
	// tells when a client is gone, and several processors share the work. Where
	// the system or the conn cannot do that (on Linux with a [*net.UDPConn] they
	// can) all transfers stay on the one port. Uploads to it come in blocks of
	// 2044 bytes at most there.
	OnePort bool

	// Timeout is how long a datagram may stay unanswered before it is sent
	// again, unless the client negotiates another time (RFC 2349); the wait
	// doubles with each repetition, up to eight times Timeout or what was
	// negotiated. 0 means one second. A client whose round trip time is known does not wait that long:
	// a few round trips, but at least 20 ms.
	Timeout time.Duration

	// Retries is how often a datagram is sent again, after Timeout or more,
	// before the client counts as gone; quicker repetitions do not count. 0
	// means 5, -1 never. The first datagram of a transfer, whose receiver may be
	// a forged address, is never sent more than three times.
	Retries int

	// MaxBlockSize bounds the block size (RFC 2348) that a client may
	// negotiate, in bytes, between 8 and 65464. 0 and -1 mean no bound but the
	// one that is always there: a datagram fits into the MTU of the path to the
	// client as far as the system knows it, so that nothing fragments.
	MaxBlockSize int

	// MaxWindowSize bounds the window (RFC 7440) that a client may negotiate,
	// in blocks. 0 means 64, -1 what the protocol allows.
	MaxWindowSize int

	// MaxRate and MaxRatePerPeer bound what is sent, in bytes per second, in
	// total and to one IP address. 0 and -1 mean no bound.
	MaxRate, MaxRatePerPeer int64

	// CacheSize bounds, in bytes, what is kept in memory of files with an ID
	// while clients read them, so that one reading serves all. 0 means 128 MiB,
	// -1 that every transfer reads for itself.
	CacheSize int64

	// MaxTransfers and MaxTransfersPerPeer bound the requests in flight, in
	// total and for one IP address. 0 means 1000 and 64, -1 none. A request
	// beyond is not answered, which makes the client repeat it. Where all are
	// too many, one whose client has never answered ends for a new one.
	MaxTransfers, MaxTransfersPerPeer int

	mu        sync.Mutex
	closing   bool
	listeners map[*listener]struct{} // that take requests
	draining  map[*listener]struct{} // whose last transfers run
	admission admission
	ctx       context.Context // of all requests; nil before the first Serve
	cancel    context.CancelCauseFunc
	epoch     time.Time
	minWait   time.Duration // between repetitions; tests raise it
	cache     *cache
	pace      *pacer // of all; nil: no limit
	rtts      map[netip.Addr]rtt
	wg        sync.WaitGroup // one for each listener, until its last transfer is over
}

// ListenAndServe listens on Addr and calls [Server.Serve].
func (s *Server) ListenAndServe() error {
	s.mu.Lock()
	closing := s.closing
	s.mu.Unlock()
	if closing {
		return ErrServerClosed
	}
	addr := s.Addr
	if addr == "" {
		addr = ":69"
	}
	conn, err := net.ListenPacket("udp", addr)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("tftp: %w: ports below 1024 need the capability CAP_NET_BIND_SERVICE, or hand a socket to Serve", err)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("tftp: %w: another TFTP server runs there; stop it, or set Addr to one address or another port", err)
	case err != nil:
		return fmt.Errorf("tftp: %w", err)
	}
	return s.Serve(conn)
}

// Serve reads requests from conn until [Server.Shutdown] or [Server.Close],
// and then returns [ErrServerClosed]; it returns another error when conn
// fails. It takes conn over and closes it. Serve may be called for several
// conns at once.
//
// With a [*net.UDPConn] the client is answered from the address that it asked,
// and the MTU bounds its block size; any other conn chooses the address, all
// transfers stay on it, and an MTU of 1500 is assumed. conn must have UDP
// addresses. Sockets of transfers are made in the network namespace of the
// process: for a conn of another one set OnePort.
func (s *Server) Serve(conn net.PacketConn) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		conn.Close()
		return ErrServerClosed
	}
	s.begin()
	t, err := newTransport(s, conn)
	if err != nil {
		s.mu.Unlock()
		conn.Close()
		return err
	}
	l := &listener{transport: t}
	s.listeners[l] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()

	err = l.run(func(d datagram, b []byte) { s.accept(l, d, b) })

	l.stop()
	s.mu.Lock()
	delete(s.listeners, l)
	s.draining[l] = struct{}{}
	closing := s.closing
	s.mu.Unlock()
	go func() { // ends with the last transfer of this listener
		defer s.wg.Done()
		l.requests.Wait()
		l.close()
		s.mu.Lock()
		delete(s.draining, l)
		s.mu.Unlock()
	}()
	if closing {
		return ErrServerClosed
	}
	return err
}

// listener is a socket on which requests arrive.
type listener struct {
	transport
	requests sync.WaitGroup // those in flight; grows in admit only
}

// begin sets up what all listeners share. s.mu is held.
func (s *Server) begin() {
	if s.ctx != nil {
		return
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.listeners = make(map[*listener]struct{})
	s.draining = make(map[*listener]struct{})
	s.epoch = time.Now()
	if s.minWait == 0 {
		s.minWait = defaultMinWait
	}
	s.pace = newPacer(s.MaxRate)
	s.cache = &cache{limit: s.CacheSize, reads: &s.wg}
	if s.cache.limit == 0 {
		s.cache.limit = defaultCache
	}
}

// Shutdown stops accepting requests and waits for the transfers that run. When
// ctx ends first it returns its error, and the transfers go on; [Server.Close]
// then ends them.
func (s *Server) Shutdown(ctx context.Context) error {
	s.closeListeners()
	done := make(chan struct{})
	go func() { // ends with the last transfer
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close stops accepting requests and ends the transfers that run; their clients
// are told. What handlers and files still do it does not wait for.
func (s *Server) Close() error {
	s.closeListeners()
	s.mu.Lock()
	if s.cancel != nil {
		s.cancel(ErrServerClosed)
	}
	all := slices.AppendSeq(slices.Collect(maps.Keys(s.listeners)), maps.Keys(s.draining))
	s.mu.Unlock()
	for _, l := range all {
		l.abort(ErrServerClosed)
	}
	return nil
}

func (s *Server) closeListeners() {
	s.mu.Lock()
	s.closing = true
	all := slices.Collect(maps.Keys(s.listeners))
	s.mu.Unlock()
	for _, l := range all {
		l.stop()
	}
}

func (s *Server) logger() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}

func (s *Server) timeout() time.Duration {
	if s.Timeout > 0 {
		return s.Timeout
	}
	return defaultTimeout
}

// longest is the wait that doubling ends at: one that a client asked for does
// not double beyond, or it would keep its place for hours after its death.
func (s *Server) longest(timeout time.Duration) time.Duration {
	return max(timeout, 8*s.timeout())
}

func (s *Server) retries() int {
	switch {
	case s.Retries == 0:
		return defaultRetries
	case s.Retries < 0:
		return 0
	}
	return s.Retries
}
