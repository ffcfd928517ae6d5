// Package life is how a server of either version begins and ends: its sockets,
// and the context of its handlers.
package life

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Life is a server's. It is ready as zero value, and safe for concurrent use.
type Life struct {
	mu      sync.Mutex
	conns   map[net.PacketConn]struct{}
	closing bool
	serving sync.WaitGroup // one for each Serve

	once   sync.Once
	ctx    context.Context
	cancel context.CancelFunc
}

// Serve closes conn when read, which reads it, has returned, and returns its
// error; or closed, once the server was shut down or closed.
func (l *Life) Serve(conn net.PacketConn, closed error, read func() error) error {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		conn.Close()
		return closed
	}
	if l.conns == nil {
		l.conns = make(map[net.PacketConn]struct{})
	}
	l.conns[conn] = struct{}{}
	l.serving.Add(1)
	l.mu.Unlock()
	defer l.serving.Done()

	err := read()

	conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
	if l.closing {
		return closed
	}
	return err
}

// Shutdown has all reads fail, and waits until all Serve calls have returned, or
// ctx ends.
func (l *Life) Shutdown(ctx context.Context) error {
	l.mu.Lock()
	l.closing = true
	for conn := range l.conns {
		// Wakes the reader; replies are still sent. A conn without deadlines
		// can only be woken by closing it.
		if conn.SetReadDeadline(time.Unix(1, 0)) != nil {
			conn.Close()
		}
	}
	l.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends with the last Serve
		l.serving.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes all sockets and cancels the context. It waits for nobody.
func (l *Life) Close() error {
	l.Context()
	l.cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	var errs []error
	for conn := range l.conns {
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Closing reports whether Shutdown or Close was called.
func (l *Life) Closing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closing
}

// Context is the handlers'; Close cancels it.
func (l *Life) Context() context.Context {
	l.once.Do(func() { l.ctx, l.cancel = context.WithCancel(context.Background()) })
	return l.ctx
}
