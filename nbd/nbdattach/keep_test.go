package nbdattach

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// TestAttach: what the kernel is told, and that a connection is used for each
// that was asked for, if the server allows several.
func TestAttach(t *testing.T) {
	k, srv := &fakeKernel{index: 999}, newServer(t, 1<<20, true)
	d, err := attach(t.Context(), srv.settings(t, Config{Connections: 4, Timeout: 7 * time.Second, ReconnectFor: time.Minute, DisconnectOnClose: true}), k)
	require.NoError(t, err)
	require.Equal(t, "/dev/nbd999", d.Path())
	require.EqualValues(t, 1<<20, d.Size())
	require.False(t, d.ReadOnly())
	require.Equal(t, 4, d.Connections())
	got := k.connected
	require.Len(t, k.sockets, 4)
	require.NotZero(t, got.serverFlags&flagMultiConn)
	got.serverFlags = 0
	require.Equal(t, deviceAttrs{index: -1, size: 1 << 20, blockSize: 512, timeout: 7, dead: 60, clientFlags: 2}, got)
	require.NoError(t, d.Err())
	k.inUse = syscall.EBUSY
	require.ErrorIs(t, d.Detach(), syscall.EBUSY)
	require.False(t, k.disconnected || k.stopped)
	k.inUse = nil
	require.NoError(t, d.Detach())
	require.NoError(t, d.Err())
	require.True(t, k.disconnected)
	require.True(t, k.stopped)

	k, srv = &fakeKernel{}, newServer(t, 1<<20, false)
	d, err = attach(t.Context(), srv.settings(t, Config{Connections: 4, ReadOnly: true, BlockSize: 4096}), k)
	require.NoError(t, err)
	require.Equal(t, 1, d.Connections(), "the server does not allow more")
	require.True(t, d.ReadOnly())
	require.NotZero(t, k.connected.serverFlags&flagReadOnly)
	require.EqualValues(t, 4096, k.connected.blockSize)
	d.Leave()
	require.False(t, k.disconnected)
	require.True(t, k.stopped)
}

// TestReplace: for each dead connection of this device a new one, dialled until
// the server is back, and not one more.
func TestReplace(t *testing.T) {
	k, srv := &fakeKernel{index: 1, reconfigured: make(chan int, 8)}, newServer(t, 1<<20, true)
	d, err := attach(t.Context(), srv.settings(t, Config{Connections: 3}), k)
	require.NoError(t, err)
	defer d.Leave()

	k.dead(1)
	require.Equal(t, 1, <-k.reconfigured)
	srv.refuse(2)
	k.dead(2)
	require.Equal(t, 1, <-k.reconfigured)
	require.Equal(t, 1, <-k.reconfigured)
	require.Zero(t, srv.refusals(), "tried again as often as it was refused")

	// Another device's is not ours; our own afterwards shows that nothing
	// was done for that one.
	k.lost(2)
	k.dead(1)
	require.Equal(t, 1, <-k.reconfigured)
	// Notices that got lost: as many as are dead.
	k.mu.Lock()
	k.deadNow = 2
	k.mu.Unlock()
	k.lost(-1)
	require.Equal(t, 1, <-k.reconfigured)
	require.Equal(t, 1, <-k.reconfigured)
	require.Empty(t, k.reconfigured)
	require.NoError(t, d.Err())
}

// TestChanged: an export that is not the same detaches the device.
func TestChanged(t *testing.T) {
	for name, change := range map[string]func(*server){
		"size":       func(s *server) { s.size = 2 << 20 },
		"read-only":  func(s *server) { s.features.Write = false },
		"no flush":   func(s *server) { s.features.Flush = false },
		"multi-conn": func(s *server) { s.features.MultiConn = false },
	} {
		t.Run(name, func(t *testing.T) {
			k, srv := &fakeKernel{reconfigured: make(chan int, 1)}, newServer(t, 1<<20, true)
			d, err := attach(t.Context(), srv.settings(t, Config{Connections: 2}), k)
			require.NoError(t, err)
			srv.mu.Lock()
			change(srv)
			srv.mu.Unlock()
			k.dead(1)
			<-d.Done()
			require.ErrorIs(t, d.Err(), ErrChanged)
			require.True(t, k.disconnected)
			require.Empty(t, k.reconfigured)
		})
	}
}

// TestRefused: a device is given up when the server goes on refusing it, and not
// while there is none, whatever the error for that is.
func TestRefused(t *testing.T) {
	for name, want := range map[string]error{"unknown": fs.ErrNotExist, "not allowed": fs.ErrPermission} {
		t.Run(name, func(t *testing.T) {
			k, srv := &fakeKernel{reconfigured: make(chan int, 1)}, newServer(t, 1<<20, true)
			s := srv.settings(t, Config{RefusedFor: 1})
			d, err := attach(t.Context(), s, k)
			require.NoError(t, err)
			srv.refuseWith(1000, want)
			k.dead(1)
			<-d.Done()
			require.ErrorIs(t, d.Err(), ErrRefused)
			require.ErrorIs(t, d.Err(), want)
			require.Equal(t, 998, srv.refusals(), "once is not for long")
			require.True(t, k.disconnected)
			require.Empty(t, k.reconfigured)
		})
	}
	t.Run("no server", func(t *testing.T) {
		k, srv := &fakeKernel{reconfigured: make(chan int, 1)}, newServer(t, 1<<20, true)
		s := srv.settings(t, Config{RefusedFor: 1})
		dials := 0
		s.Dial = func(ctx context.Context) (net.Conn, error) {
			switch dials++; dials {
			case 2: // a refusal that stays the only one in a row
				srv.refuseWith(1, fs.ErrNotExist)
			case 3:
				return nil, fs.ErrNotExist
			case 4:
				srv.refuseWith(1, fs.ErrPermission)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", srv.addr)
		}
		d, err := attach(t.Context(), s, k)
		require.NoError(t, err)
		defer d.Leave()
		k.dead(1)
		select {
		case <-k.reconfigured:
		case <-d.Done():
			require.NoError(t, d.Err())
		}
	})
	_, err := (&Config{Addr: "192.0.2.1:10809", RefusedFor: -2}).settings()
	require.ErrorIs(t, err, fs.ErrInvalid)
}

// TestDetachedByOthers: the device is gone when the kernel says so.
func TestDetachedByOthers(t *testing.T) {
	k, srv := &fakeKernel{}, newServer(t, 1<<20, true)
	d, err := attach(t.Context(), srv.settings(t, Config{}), k)
	require.NoError(t, err)
	k.mu.Lock()
	k.gone = true
	k.mu.Unlock()
	k.dead(1)
	<-d.Done()
	require.ErrorIs(t, d.Err(), ErrDetached)
}

func TestAdopt(t *testing.T) {
	k, srv := &fakeKernel{index: 5, deadNow: 1, reconfigured: make(chan int, 2)}, newServer(t, 1<<20, true)
	_, err := adopt(t.Context(), srv.settings(t, Config{}), k, 0)
	require.ErrorIs(t, err, fs.ErrInvalid, "no device")
	_, err = adopt(t.Context(), srv.settings(t, Config{Device: "nbd5"}), k, 4<<20)
	require.ErrorIs(t, err, ErrChanged)
	require.Empty(t, k.reconfigured)

	d, err := adopt(t.Context(), srv.settings(t, Config{Device: "/dev/nbd5", Timeout: time.Second}), k, 1<<20)
	require.NoError(t, err)
	require.Equal(t, 0, <-k.reconfigured, "first the timeouts, without a socket")
	require.Equal(t, 1, <-k.reconfigured, "it had lost its connection before")
	require.Equal(t, deviceAttrs{index: 5, timeout: 1, dead: 7 * 24 * 3600}, k.last)
	d.Leave()
}

// TestAttachErrors: nothing stays behind of what did not come about.
func TestAttachErrors(t *testing.T) {
	for name, c := range map[string]Config{
		"device": {Device: "/dev/sda"}, "block size": {BlockSize: 1000}, "connections": {Connections: -1},
		"timeout": {Timeout: time.Millisecond}, "no end": {ReconnectFor: -2},
	} {
		c.Addr = "192.0.2.1:10809"
		_, err := c.settings()
		require.ErrorIs(t, err, fs.ErrInvalid, name)
	}
	_, err := new(Config).settings()
	require.ErrorContains(t, err, "set Addr")

	srv := newServer(t, 1<<20, true)
	_, err = attach(t.Context(), srv.settings(t, Config{Export: "other"}), &fakeKernel{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	k := &fakeKernel{err: errors.New("refused by the kernel")}
	_, err = attach(t.Context(), srv.settings(t, Config{}), k)
	require.ErrorIs(t, err, k.err)
	require.True(t, k.stopped)
	srv.features.MinBlock = 1024
	_, err = attach(t.Context(), srv.settings(t, Config{BlockSize: 512}), &fakeKernel{})
	require.ErrorIs(t, err, fs.ErrInvalid)
	srv.size = 0
	_, err = attach(t.Context(), srv.settings(t, Config{}), &fakeKernel{})
	require.ErrorIs(t, err, fs.ErrInvalid)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = attach(ctx, srv.settings(t, Config{}), &fakeKernel{})
	require.ErrorIs(t, err, context.Canceled)
	// A connection that is not a socket.
	s := srv.settings(t, Config{})
	srv.size, srv.features.MinBlock = 1<<20, 0
	s.Dial = func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { _ = srv.nbd.ServeConn(context.Background(), theirs) }() // ends with ours
		return ours, nil
	}
	_, err = attach(t.Context(), s, &fakeKernel{})
	require.ErrorContains(t, err, "no socket")
}

// server is an NBD server on the loopback interface.
type server struct {
	nbd  *nbd.Server
	addr string

	mu       sync.Mutex
	size     int64
	features nbd.Features
	refusing int
	refusal  error
}

func newServer(t *testing.T, size int64, multi bool) *server {
	s := &server{size: size, features: nbd.Features{Write: true, Flush: true, MultiConn: multi}}
	s.nbd = &nbd.Server{Handler: nbd.Exports{"disk": s}, Logger: slog.New(slog.DiscardHandler)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addr = l.Addr().String()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.nbd.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.nbd.Close()
		<-ended
	})
	return s
}

func (s *server) settings(t *testing.T, c Config) *settings {
	c.Addr, c.Logger = s.addr, slog.New(slog.DiscardHandler)
	if c.Export == "" {
		c.Export = "disk"
	}
	out, err := c.settings()
	require.NoError(t, err)
	return out
}

func (s *server) refuse(n int) { s.refuseWith(n, fs.ErrPermission) }

func (s *server) refuseWith(n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusing, s.refusal = n, err
}

func (s *server) refusals() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusing
}

func (s *server) OpenNBD(context.Context, *nbd.Request) (nbd.Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refusing > 0 {
		s.refusing--
		return nil, s.refusal
	}
	return disk{nbd.Pass{}, s.size, s.features}, nil
}

// disk is never read.
type disk struct {
	nbd.Pass
	size     int64
	features nbd.Features
}

func (d disk) Size() int64                     { return d.size }
func (d disk) Features() nbd.Features          { return d.features }
func (disk) ReadAt([]byte, int64) (int, error) { return 0, io.ErrUnexpectedEOF }

// fakeKernel stands for Linux.
type fakeKernel struct {
	index        int
	err          error    // of connect
	inUse        error    // of flush
	reconfigured chan int // the number of sockets of each reconfigure that was taken

	mu           sync.Mutex
	lost         func(int)
	connected    deviceAttrs
	last         deviceAttrs
	sockets      []uintptr
	deadNow      int
	gone         bool
	disconnected bool
	stopped      bool
}

// dead has n connections die, each with a notice.
func (k *fakeKernel) dead(n int) {
	k.mu.Lock()
	k.deadNow += n
	k.mu.Unlock()
	for range n {
		k.lost(k.index)
	}
}

func (k *fakeKernel) connect(d deviceAttrs, sockets []uintptr) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.connected, k.sockets = d, sockets
	return k.index, k.err
}

func (k *fakeKernel) reconfigure(d deviceAttrs, sockets []uintptr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone {
		return ErrDetached
	}
	if len(sockets) > k.deadNow {
		return errNoDead
	}
	k.deadNow -= len(sockets)
	k.last = d
	k.reconfigured <- len(sockets)
	return nil
}

func (k *fakeKernel) disconnect(int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.disconnected = true
	return nil
}

func (k *fakeKernel) flush(int) error { return k.inUse }

func (k *fakeKernel) attached(int) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.gone, nil
}

func (k *fakeKernel) watch(dead func(int)) (func(), error) {
	k.lost = dead
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.stopped = true
	}, nil
}
