package life

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	errClosed = errors.New("server closed")
	errRead   = errors.New("read")
)

func listen(t *testing.T) net.PacketConn {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func isClosed(conn net.PacketConn) bool {
	return errors.Is(conn.SetWriteDeadline(time.Time{}), net.ErrClosed)
}

// serve is Serve in a goroutine; began is closed when read has been called.
func (l *Life) serve(conn net.PacketConn, read func() error) (began chan struct{}, ended chan error) {
	began, ended = make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- l.Serve(conn, errClosed, func() error {
			close(began)
			return read()
		})
	}()
	return began, ended
}

// readOnce waits for a datagram or an error.
func readOnce(conn net.PacketConn) error {
	_, _, err := conn.ReadFrom(make([]byte, 1))
	return err
}

// noDeadlines is a conn that reads can only be ended of by closing it.
type noDeadlines struct{ net.PacketConn }

func (noDeadlines) SetReadDeadline(time.Time) error { return errors.ErrUnsupported }

func TestServeAfterTheEnd(t *testing.T) {
	for name, end := range map[string]func(*Life) error{
		"Shutdown": func(l *Life) error { return l.Shutdown(t.Context()) },
		"Close":    (*Life).Close,
	} {
		t.Run(name, func(t *testing.T) {
			var l Life
			require.False(t, l.Closing())
			require.NoError(t, end(&l))
			require.NoError(t, end(&l), "once more")
			require.True(t, l.Closing())
			conn := listen(t)
			err := l.Serve(conn, errClosed, func() error {
				t.Error("it reads")
				return nil
			})
			require.True(t, err == errClosed, "got %v", err) // as programs compare it too
			require.True(t, isClosed(conn))
		})
	}
}

// A read that fails ends its Serve only, and nothing of it is kept.
func TestReadFails(t *testing.T) {
	var l Life
	conn := listen(t)
	_, ended := l.serve(conn, func() error { return errRead })
	require.Equal(t, errRead, <-ended)
	require.True(t, isClosed(conn))
	require.Empty(t, l.conns)
	require.False(t, l.Closing())
	require.NoError(t, l.Context().Err())

	began, ended := l.serve(listen(t), func() error { <-l.Context().Done(); return errRead })
	<-began
	require.NoError(t, l.Close())
	require.Equal(t, errClosed, <-ended)
}

// Shutdown wakes readers, but what they do then has its sockets and its context,
// and is waited for.
func TestShutdownWaits(t *testing.T) {
	var l Life
	peer := listen(t)
	a, b := listen(t), noDeadlines{listen(t)}
	answer := make(chan struct{})
	_, endedA := l.serve(a, func() error {
		err := readOnce(a)
		<-answer
		if _, err := a.WriteTo([]byte{1}, peer.LocalAddr()); err != nil {
			t.Error(err)
		}
		return errors.Join(err, l.Context().Err())
	})
	beganB, endedB := l.serve(b, func() error { return readOnce(b) })
	<-beganB
	for l.open() < 2 {
		time.Sleep(time.Millisecond)
	}

	now, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, l.Shutdown(now), context.Canceled)
	require.Equal(t, errClosed, <-endedB)
	require.False(t, isClosed(a))
	require.NoError(t, l.Context().Err())
	close(answer)
	require.NoError(t, l.Shutdown(t.Context()))
	require.True(t, isClosed(a))
	require.Equal(t, errClosed, <-endedA)
	require.NoError(t, readOnce(peer))
}

func (l *Life) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// A reader that tries again after errors learns of the end by Closing.
func TestShutdownWhileReadsFail(t *testing.T) {
	var l Life
	failed := make(chan struct{})
	var once sync.Once
	_, ended := l.serve(listen(t), func() error {
		for !l.Closing() {
			once.Do(func() { close(failed) })
		}
		return errRead
	})
	<-failed
	require.NoError(t, l.Shutdown(t.Context()))
	require.Equal(t, errClosed, <-ended)
}

// Close wakes readers and handlers, and waits for none.
func TestCloseWhileServing(t *testing.T) {
	var l Life
	conn := listen(t)
	goOn := make(chan struct{})
	began, ended := l.serve(conn, func() error {
		err := readOnce(conn)
		<-l.Context().Done()
		<-goOn
		return err
	})
	<-began
	require.NoError(t, l.Close())
	require.True(t, isClosed(conn))
	require.ErrorIs(t, l.Context().Err(), context.Canceled)
	require.NoError(t, l.Close(), "once more, of a socket that is closed")
	close(goOn)
	require.Equal(t, errClosed, <-ended)
}

// Whoever is first: every Serve ends, and every socket is closed.
func TestServeAndEndAtOnce(t *testing.T) {
	for i := range 50 {
		var l Life
		var wg sync.WaitGroup
		conns := make([]net.PacketConn, 4)
		for n := range conns {
			conn := listen(t)
			conns[n] = conn
			wg.Go(func() {
				if err := l.Serve(conn, errClosed, func() error { return readOnce(conn) }); err != errClosed {
					t.Error(err)
				}
			})
		}
		if i%2 == 0 {
			wg.Go(func() { _ = l.Close() })
		}
		require.NoError(t, l.Shutdown(t.Context()))
		wg.Wait()
		require.Empty(t, l.conns)
		for _, conn := range conns {
			require.True(t, isClosed(conn))
		}
	}
}
