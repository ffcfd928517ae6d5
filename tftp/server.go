package tftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	defaultTimeout = time.Second
	defaultRetries = 5
)

// Server answers read requests. Its exported fields are the options; they must
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

	// Timeout is how long a datagram may stay unanswered before it is sent
	// again; the wait doubles with each repetition. 0 means one second. (RFC
	// 2349's timeout option is not granted.)
	Timeout time.Duration

	// Retries is how often a datagram is sent again before the client counts as
	// gone. 0 means 5, -1 never. The first datagram of a transfer, whose
	// receiver may be a forged address, is never sent more than three times.
	Retries int

	// MaxBlockSize bounds the block size (RFC 2348) that a client may
	// negotiate, in bytes, between 512 and 65464. 0 and -1 mean no bound but
	// the one that is always there: a datagram fits into the MTU of the
	// interface on which the request came, so that nothing fragments.
	MaxBlockSize int

	// MaxTransfers and MaxTransfersPerPeer bound the requests in flight, in
	// total and for one IP address. 0 means 1000 and 64, -1 none. A request
	// beyond is not answered, which makes the client repeat it.
	MaxTransfers, MaxTransfersPerPeer int

	mu        sync.Mutex
	closing   bool
	listeners map[*listener]struct{}
	admission admission
	ctx       context.Context // of all requests; nil before the first Serve
	cancel    context.CancelCauseFunc
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
// Each transfer has a UDP socket of its own, so conn needs UDP addresses. With
// a [*net.UDPConn] the client is answered from the address that it asked, and
// the MTU of the interface bounds its block size; with any other conn the
// system chooses the address, and an MTU of 1500 is assumed.
func (s *Server) Serve(conn net.PacketConn) error {
	l := newListener(conn)
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		conn.Close()
		return ErrServerClosed
	}
	if s.ctx == nil {
		s.ctx, s.cancel = context.WithCancelCause(context.Background())
		s.listeners = make(map[*listener]struct{})
	}
	s.listeners[l] = struct{}{}
	l.engine = newEngine(s.timeout(), s.logger())
	s.wg.Add(1)
	s.mu.Unlock()

	err := s.readRequests(l)

	conn.Close()
	s.mu.Lock()
	delete(s.listeners, l)
	closing := s.closing
	s.mu.Unlock()
	go func() { // ends with the last transfer of this listener
		defer s.wg.Done()
		l.requests.Wait()
		l.engine.stop()
	}()
	if closing {
		return ErrServerClosed
	}
	return err
}

// Shutdown stops accepting requests and waits for the transfers that run. When
// ctx ends first it returns its error, and the transfers go on; [Server.Close]
// then ends them.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.closeListeners()
	done := make(chan struct{})
	go func() { // ends with the last transfer
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close stops accepting requests and ends the transfers that run, without
// waiting for them: each ends with its next block, or when the acknowledgement
// it waits for has not come within Timeout.
func (s *Server) Close() error {
	err := s.closeListeners()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel(ErrServerClosed)
	}
	return err
}

func (s *Server) closeListeners() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	var errs []error
	for l := range s.listeners {
		if err := l.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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

func (s *Server) retries() int {
	switch {
	case s.Retries == 0:
		return defaultRetries
	case s.Retries < 0:
		return 0
	}
	return s.Retries
}
