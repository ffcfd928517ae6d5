package nbd_test

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// gate is a device whose reads wait, and say that they do.
func gate() (dev *stub, reading chan struct{}, goOn chan struct{}) {
	reading, goOn = make(chan struct{}, 100), make(chan struct{})
	dev = &stub{Memory: nbdtest.NewMemory(make([]byte, 1<<20))}
	dev.readAt = func(p []byte, off int64) (int, error) {
		reading <- struct{}{}
		<-goOn
		return dev.Memory.ReadAt(p, off)
	}
	return dev, reading, goOn
}

func listen(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}

func TestShutdown(t *testing.T) {
	for _, handover := range []bool{false, true} {
		t.Run(map[bool]string{false: "refuse", true: "handover"}[handover], func(t *testing.T) {
			dev, reading, goOn := gate()
			causes := make(chan error, 10)
			srv := &nbd.Server{Handler: always(dev), Logger: quiet, Handover: handover,
				Trace: &nbd.Trace{ConnClosed: func(_ nbd.ConnInfo, _ nbd.ConnStats, cause error) { causes <- cause }}}
			l := listen(t)
			served := make(chan error, 1)
			go func() { served <- srv.Serve(l) }()
			addr := l.Addr().String()

			busy := dialRaw(t, addr).greet(3)
			busy.open("x")
			busy.send(cat(request(0, cmdRead, 1, 0, 4096), request(0, cmdRead, 2, 0, 4096),
				request(0, cmdWrite, 3, 0, 512), make([]byte, 512), request(0, cmdFlush, 4, 0, 0)))
			<-reading
			idle := dialRaw(t, addr).greet(3)
			idle.open("x")
			talking := dialRaw(t, addr).greet(3)

			down := make(chan error, 1)
			go func() { down <- srv.Shutdown(context.Background()) }()
			require.Equal(t, nbd.ErrServerClosed, <-served)
			idle.closed()
			talking.closed()
			_, err := net.Dial("tcp", addr)
			require.Error(t, err)
			require.Equal(t, nbd.ErrServerClosed, <-causes)
			require.Equal(t, nbd.ErrServerClosed, <-causes)
			select {
			case err := <-down:
				t.Fatalf("Shutdown returned (%v) with a request under way", err)
			default:
			}

			close(goOn)
			require.Zero(t, busy.simple(1), "the request under way is answered")
			busy.recv(4096)
			if !handover {
				for cookie := range uint64(3) {
					require.Equal(t, eSHUTDOWN, busy.simple(2+cookie))
				}
			}
			n, err := busy.Read(make([]byte, 1))
			require.Zero(t, n)
			require.Equal(t, io.EOF, err, "the end is no reset")
			require.NoError(t, <-down)
			require.Equal(t, 2, dev.Closed())
			require.NoError(t, srv.Shutdown(t.Context()), "again")
			require.Equal(t, nbd.ErrServerClosed, srv.Serve(listen(t)))
			require.Equal(t, nbd.ErrServerClosed, srv.ListenAndServe())
			near, far := net.Pipe()
			require.Equal(t, nbd.ErrServerClosed, srv.ServeConn(t.Context(), far))
			_, err = near.Read(make([]byte, 1))
			require.Equal(t, io.EOF, err)
		})
	}
}

// A client that is in the middle of sending does not hold a shutdown up.
func TestShutdownInTheMiddleOfAWrite(t *testing.T) {
	dev := nbdtest.NewMemory(make([]byte, 1<<20))
	wrote := make(chan struct{}, 100)
	st := &stub{Memory: dev}
	st.writeAt = func(p []byte, off int64) (int, error) {
		wrote <- struct{}{}
		return dev.WriteAt(p, off)
	}
	srv := &nbd.Server{Handler: always(st), Logger: quiet, IOTimeout: -1}
	r := dialRaw(t, nbdtest.ServeServer(t, srv)).greet(3)
	r.open("x")
	r.send(append(request(0, cmdWrite, 1, 0, 1<<20), make([]byte, 512<<10)...))
	<-wrote
	require.NoError(t, srv.Shutdown(t.Context()))
	require.Equal(t, 1, dev.Closed())
}

func TestShutdownGivesUp(t *testing.T) {
	dev, reading, goOn := gate()
	srv := &nbd.Server{Handler: always(dev), Logger: quiet}
	r := dialRaw(t, nbdtest.ServeServer(t, srv)).greet(3)
	r.open("x")
	r.send(request(0, cmdRead, 1, 0, 512))
	<-reading
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, context.Canceled, srv.Shutdown(ctx))
	require.Zero(t, dev.Closed())
	require.NoError(t, srv.Close())
	r.closed()
	close(goOn)
	require.NoError(t, srv.Shutdown(t.Context()))
	require.Equal(t, 1, dev.Closed())
}

func TestShutdownUnused(t *testing.T) {
	var srv nbd.Server
	require.NoError(t, srv.Shutdown(t.Context()))
	require.NoError(t, srv.Close())
	require.Equal(t, nbd.ErrServerClosed, srv.ListenAndServe())
}

func TestListenAndServeSaysWhatIsWrong(t *testing.T) {
	l := listen(t)
	defer l.Close()
	srv := &nbd.Server{Addr: l.Addr().String(), Logger: quiet}
	require.ErrorContains(t, srv.ListenAndServe(), l.Addr().String())
}

// An error of Accept that passes does not end the server.
func TestAcceptErrors(t *testing.T) {
	l := listen(t)
	srv := &nbd.Server{Handler: always(nbdtest.NewMemory(make([]byte, 512))), Logger: quiet}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(&flaky{Listener: l, fail: 3}) }()
	stillServing(t, l.Addr().String())
	l.Close()
	require.ErrorIs(t, <-served, net.ErrClosed)
	require.NoError(t, srv.Shutdown(t.Context()))
}

type flaky struct {
	net.Listener
	fail int
}

func (l *flaky) Accept() (net.Conn, error) {
	if l.fail--; l.fail >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", os.ErrDeadlineExceeded)}
	}
	return l.Listener.Accept()
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	var req *nbd.Request
	srv := &nbd.Server{Logger: quiet, MaxConnsPerAddr: 1, Handler: nbd.HandlerFunc(
		func(_ context.Context, r *nbd.Request) (nbd.Device, error) {
			req = r
			return nbdtest.NewMemory(pattern(512)), nil
		})}
	go func() { _ = srv.Serve(l) }()
	for range 3 {
		c, err := nbd.Dial(t.Context(), "unix", path, "x")
		require.NoError(t, err)
		defer c.Close()
		require.False(t, req.Client.IsValid())
		require.IsType(t, &net.UnixConn{}, req.Conn)
	}
	require.NoError(t, srv.Shutdown(t.Context()))
}

// An idle connection costs little: no buffer is held for it.
func TestIdleConnectionsHoldNoBuffers(t *testing.T) {
	srv := &nbd.Server{Handler: anyName{nbdtest.NewMemory(make([]byte, 1<<20))}, Logger: quiet, MaxConnsPerAddr: -1}
	addr := nbdtest.ServeServer(t, srv)
	heap := func() int64 {
		var m runtime.MemStats
		for range 3 {
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	before := heap()
	const n = 300
	for i := range n {
		r := dialRaw(t, addr).greet(3)
		r.open("x")
		if i%2 == 0 { // then nothing: a hostile client
			r.send(request(0, cmdWrite, 1, 0, 1<<20))
		}
	}
	per := (heap() - before) / n
	t.Logf("%d bytes for each connection, both ends", per)
	require.Less(t, per, int64(24<<10))
}
