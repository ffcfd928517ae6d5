package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// stub is a device of funcs; what is nil is Memory's.
type stub struct {
	*nbdtest.Memory
	readAt   func(p []byte, off int64) (int, error)
	writeAt  func(p []byte, off int64) (int, error)
	sync     func() error
	features *nbd.Features
}

func (s *stub) ReadAt(p []byte, off int64) (int, error) {
	if s.readAt != nil {
		return s.readAt(p, off)
	}
	return s.Memory.ReadAt(p, off)
}

func (s *stub) WriteAt(p []byte, off int64) (int, error) {
	if s.writeAt != nil {
		return s.writeAt(p, off)
	}
	return s.Memory.WriteAt(p, off)
}

func (s *stub) Sync() error {
	if s.sync != nil {
		return s.sync()
	}
	return s.Memory.Sync()
}

func (s *stub) Features() nbd.Features {
	if s.features != nil {
		return *s.features
	}
	return s.Memory.Features()
}

// always is a handler that gives dev and does not keep it open.
func always(dev nbd.Device) nbd.Handler {
	return nbd.HandlerFunc(func(context.Context, *nbd.Request) (nbd.Device, error) { return dev, nil })
}

func dial(t testing.TB, addr, export string) *nbd.Client {
	t.Helper()
	c, err := nbd.Dial(t.Context(), "tcp", addr, export)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestHandshakeForms(t *testing.T) {
	addr := serve(t, nbdtest.NewMemory(pattern(10000)))
	// HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN, CACHE, FAST_ZERO
	const flags = 1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<8 | 1<<10 | 1<<11

	for _, zeroes := range []bool{true, false} {
		clientFlags, tail := 3, 0
		if zeroes {
			clientFlags, tail = 1, 124
		}
		r := dialRaw(t, addr).greet(clientFlags)
		r.send(option(optExportName, []byte("x")))
		require.Equal(t, cat(u64(10000), u16(flags), make([]byte, tail)), r.recv(10+tail))
		r.send(request(0, cmdRead, 5, 0, 1))
		require.Zero(t, r.simple(5))
	}

	r := dialRaw(t, addr).greet(3)
	for _, opt := range []int{optInfo, optGo} {
		r.send(option(opt, goData("/a name", 1, 2, 3)))
		require.Equal(t, cat(u16(0), u64(10000), u16(flags)), r.wantReply(opt, repInfo))
		require.Equal(t, cat(u16(1), []byte("/a name")), r.wantReply(opt, repInfo))
		require.Equal(t, cat(u16(3), u32(1), u32(4096), u32(32<<20)), r.wantReply(opt, repInfo))
		r.wantReply(opt, repAck)
	}

	// All at once, as a client that knows what it wants may send it.
	r = dialRaw(t, addr)
	r.send(cat(u32(3), option(optGo, goData("")), request(0, cmdRead, 9, 0, 4), request(0, cmdDisc, 10, 0, 0)))
	r.recv(18)
	r.wantReply(optGo, repInfo)
	r.wantReply(optGo, repAck)
	require.Zero(t, r.simple(9))
	r.recv(4)
	r.closed()
}

// Flags are what a device says and has: masking either is enough.
func TestFeaturesBecomeFlags(t *testing.T) {
	mem := nbdtest.NewMemory(make([]byte, 512))
	readOnly := nbd.NewReaderAt(bytes.NewReader(nil), 0)
	for _, c := range []struct {
		name string
		dev  nbd.Device
		want int
	}{
		{"everything", mem, 1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<8 | 1<<10 | 1<<11},
		{"write only", &stub{Memory: mem, features: &nbd.Features{Write: true}}, 1},
		{"write and multi-conn", &stub{Memory: mem, features: &nbd.Features{Write: true, MultiConn: true}}, 1 | 1<<8},
		{"flush only", &stub{Memory: mem, features: &nbd.Features{Flush: true}}, 1 | 1<<1 | 1<<2},
		{"nothing", &stub{Memory: mem, features: &nbd.Features{}}, 1 | 1<<1},
		{"trim", &stub{Memory: mem, features: &nbd.Features{Write: true, Trim: true}}, 1 | 1<<5},
		{"trim and zero without write", &stub{Memory: mem, features: &nbd.Features{Trim: true, Zero: true, FastZero: true}}, 1 | 1<<1},
		{"zero", &stub{Memory: mem, features: &nbd.Features{Write: true, Zero: true}}, 1 | 1<<6},
		{"fast zero without zero", &stub{Memory: mem, features: &nbd.Features{Write: true, FastZero: true}}, 1},
		{"cache", &stub{Memory: mem, features: &nbd.Features{Cache: true}}, 1 | 1<<1 | 1<<10},
		{"passed on", nbd.Pass{Device: readOnly}, 1 | 1<<1 | 1<<8},
		{"read-only", readOnly, 1 | 1<<1 | 1<<8},
		{"says more than it has", struct{ nbd.Device }{liar{readOnly}}, 1 | 1<<1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := dialRaw(t, serve(t, c.dev)).greet(3)
			_, flags := r.open("x")
			require.Equal(t, c.want, flags)
		})
	}
}

type liar struct{ nbd.Device }

func (liar) Features() nbd.Features {
	return nbd.Features{Write: true, Flush: true, Trim: true, Zero: true, FastZero: true, Cache: true, Extents: true}
}

func TestListOneReplyEach(t *testing.T) {
	h := nbd.First(nbd.Exports{"b": always(nil), "a": always(nil), "": always(nil)}, nbd.Exports{"c": nil, "a": nil})
	addr := nbdtest.ServeServer(t, &nbd.Server{Handler: h, Logger: quiet})
	r := dialRaw(t, addr).greet(3)
	r.send(option(optList, nil))
	for _, name := range []string{"", "a", "b", "c"} {
		require.Equal(t, cat(u32(len(name)), []byte(name)), r.wantReply(optList, repServer))
	}
	r.wantReply(optList, repAck)

	addr = nbdtest.ServeServer(t, &nbd.Server{Handler: always(nil), Logger: quiet})
	r = dialRaw(t, addr).greet(3)
	r.send(option(optList, nil))
	r.wantReply(optList, errPolicy)
	r.send(option(optAbort, nil))
	r.wantReply(optAbort, repAck)
	r.closed()

	// One that cannot be said on the wire is left out; an error is one reply.
	for _, test := range []struct {
		list []nbd.ExportInfo
		err  error
		want int
	}{
		{list: []nbd.ExportInfo{{Name: "a\x00b"}, {Name: "\xff"}, {Name: string(make([]byte, 4097))}, {Name: "ok", Description: "it is"},
			{Name: "x", Description: string(make([]byte, 4097))}}},
		{err: errors.New("secret"), want: errShut},
		{err: fs.ErrPermission, want: errPolicy},
	} {
		r = dialRaw(t, nbdtest.ServeServer(t, &nbd.Server{Handler: listing{always(nil), test.list, test.err}, Logger: quiet})).greet(3)
		r.send(option(optList, nil))
		if test.err != nil {
			require.NotContains(t, string(r.wantReply(optList, test.want)), "secret")
		} else {
			require.Equal(t, cat(u32(2), []byte("okit is")), r.wantReply(optList, repServer))
			r.wantReply(optList, repAck)
		}
	}
}

// listing is a handler with a list.
type listing struct {
	nbd.Handler
	list []nbd.ExportInfo
	err  error
}

func (h listing) ListNBD(context.Context, *nbd.Request) ([]nbd.ExportInfo, error) {
	return h.list, h.err
}

// What stands in front of a handler lists what that lists.
func TestListThroughFilters(t *testing.T) {
	exports := nbd.Exports{"a": always(nil), "b": always(nil)}
	for name, filter := range map[string]func(nbd.Handler) nbd.Handler{
		"Filtered":      func(h nbd.Handler) nbd.Handler { return nbd.Filtered(h, nbd.ReadOnly) },
		"RateLimit":     func(h nbd.Handler) nbd.Handler { return &nbd.RateLimit{Handler: h} },
		"ConnLimit":     func(h nbd.Handler) nbd.Handler { return &nbd.ConnLimit{Handler: h} },
		"StatsByClient": func(h nbd.Handler) nbd.Handler { return &nbd.StatsByClient{Handler: h} },
	} {
		t.Run(name, func(t *testing.T) {
			list := func(h nbd.Handler) ([]nbd.ExportInfo, error) {
				nc, err := net.Dial("tcp", nbdtest.ServeServer(t, &nbd.Server{Handler: h, Logger: quiet}))
				require.NoError(t, err)
				return nbd.List(t.Context(), nc)
			}
			got, err := list(filter(exports))
			require.NoError(t, err)
			require.Equal(t, []nbd.ExportInfo{{Name: "a"}, {Name: "b"}}, got)
			_, err = list(filter(always(nil)))
			require.ErrorIs(t, err, fs.ErrPermission)
		})
	}
}

func TestHandlerErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
		is   error
	}{
		{fs.ErrNotExist, errUnknown, fs.ErrNotExist},
		{&fs.PathError{Op: "open", Path: "secret", Err: syscall.ENOENT}, errUnknown, fs.ErrNotExist},
		{fs.ErrPermission, errPolicy, fs.ErrPermission},
		{fs.ErrInvalid, errInvalid, fs.ErrInvalid},
		{errors.New("secret"), errShut, nil},
		{nil, errUnknown, fs.ErrNotExist},
	} {
		addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: nbd.HandlerFunc(
			func(context.Context, *nbd.Request) (nbd.Device, error) { return nil, c.err })})
		r := dialRaw(t, addr).greet(3)
		for _, opt := range []int{optInfo, optGo} {
			r.send(option(opt, goData("x")))
			require.NotContains(t, string(r.wantReply(opt, c.want)), "secret")
		}
		_, err := nbd.Dial(t.Context(), "tcp", addr, "x")
		require.Error(t, err)
		if c.is != nil {
			require.ErrorIs(t, err, c.is)
		}
	}
}

func TestZeroServer(t *testing.T) {
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet})
	_, err := nbd.Dial(t.Context(), "tcp", addr, "x")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// What a device returns reaches the client as the right number, and the
// connection goes on.
func TestDeviceErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want int
	}{
		{"EIO", syscall.EIO, eIO},
		{"anything", errors.New("disk on fire"), eIO},
		{"full", &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, eNOSPC},
		{"quota", syscall.EDQUOT, eNOSPC},
		{"too big", syscall.EFBIG, eNOSPC},
		{"permission", fs.ErrPermission, ePERM},
		{"read-only file system", syscall.EROFS, ePERM},
		{"invalid", fs.ErrInvalid, eINVAL},
		{"memory", syscall.ENOMEM, 12},
		{"unsupported", errors.ErrUnsupported, 95},
		{"shut down", syscall.ESHUTDOWN, eSHUTDOWN},
		{"fenced off", fs.ErrClosed, eIO},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := &stub{Memory: nbdtest.NewMemory(make([]byte, 1<<20))}
			dev.readAt = func([]byte, int64) (int, error) { return 0, c.err }
			dev.writeAt = func([]byte, int64) (int, error) { return 0, c.err }
			dev.sync = func() error { return c.err }
			r := dialRaw(t, serve(t, dev)).greet(3)
			r.open("x")
			r.send(cat(request(0, cmdRead, 1, 0, 4096), request(0, cmdRead, 2, 0, 1<<20),
				request(0, cmdWrite, 3, 0, 300000), make([]byte, 300000), request(0, cmdFlush, 4, 0, 0)))
			for cookie := range uint64(4) {
				require.Equal(t, c.want, r.simple(cookie+1))
			}
		})
	}
}

func TestDeviceMisbehaves(t *testing.T) {
	mem := nbdtest.NewMemory(pattern(1 << 20))
	dev := &stub{Memory: mem}
	dev.readAt = func(p []byte, off int64) (int, error) {
		switch off {
		case 0:
			panic("read")
		case 512:
			return len(p) - 1, nil // short, and says nothing
		case 1024:
			return len(p) - 1, io.EOF
		case 1536:
			n, _ := mem.ReadAt(p, off)
			return n, io.EOF // all there is: no error
		}
		return mem.ReadAt(p, off)
	}
	dev.writeAt = func(p []byte, off int64) (int, error) {
		if off == 0 {
			panic(errors.New("write"))
		}
		return len(p) - 1, nil
	}
	dev.sync = func() error { panic("sync") }
	r := dialRaw(t, serve(t, dev)).greet(3)
	r.open("x")
	for i, c := range []struct {
		typ, off, code int
	}{
		{cmdRead, 0, eIO}, {cmdRead, 512, eIO}, {cmdRead, 1024, eIO}, {cmdRead, 1536, 0}, {cmdRead, 2048, 0},
		{cmdWrite, 0, eIO}, {cmdWrite, 512, eIO}, {cmdFlush, 0, eIO},
	} {
		n := 512
		if c.typ == cmdFlush {
			n = 0
		}
		p := request(0, c.typ, uint64(i), uint64(c.off), n)
		if c.typ == cmdWrite {
			p = append(p, make([]byte, n)...)
		}
		r.send(p)
		require.Equal(t, c.code, r.simple(uint64(i)), "%+v", c)
		if c.typ == cmdRead && c.code == 0 {
			r.recv(n)
		}
	}
}

// A failing write reports the error once its data is off the connection, and
// what was passed on before stays.
func TestWriteFailsHalfWay(t *testing.T) {
	mem := nbdtest.NewMemory(make([]byte, 1<<20))
	dev := &stub{Memory: mem}
	dev.writeAt = func(p []byte, off int64) (int, error) {
		if off+int64(len(p)) > 256<<10 {
			return 0, syscall.ENOSPC
		}
		return mem.WriteAt(p, off)
	}
	r := dialRaw(t, serve(t, dev)).greet(3)
	r.open("x")
	data := pattern(1 << 20)
	r.send(append(request(0, cmdWrite, 1, 0, len(data)), data...))
	require.Equal(t, eNOSPC, r.simple(1))
	r.send(request(0, cmdRead, 2, 0, 64<<10))
	require.Zero(t, r.simple(2))
	require.Equal(t, data[:64<<10], r.recv(64<<10))
}

// Pieces of a write end at block borders, whatever the client's alignment.
func TestWritePieces(t *testing.T) {
	mem := nbdtest.NewMemory(make([]byte, 2<<20))
	dev := &stub{Memory: mem}
	var bad atomic.Int32
	end := int64(700 + 1<<20)
	dev.writeAt = func(p []byte, off int64) (int, error) {
		if to := off + int64(len(p)); len(p) > 64<<10 || to != end && to%4096 != 0 {
			bad.Add(1)
		}
		return mem.WriteAt(p, off)
	}
	c := dial(t, serve(t, dev), "x")
	data := pattern(1 << 20)
	n, err := c.WriteAt(data, 700)
	require.NoError(t, err)
	require.Equal(t, len(data), n)
	require.True(t, bytes.Equal(data, mem.Bytes()[700:end]))
	require.Zero(t, bad.Load())
}

// A long read is right in every piece; one that fails after its header went
// out ends the connection, one that fails before does not.
func TestLongReads(t *testing.T) {
	content := pattern(5<<20 + 1234)
	mem := nbdtest.NewMemory(content)
	dev := &stub{Memory: mem}
	var broken atomic.Int64
	broken.Store(1 << 60)
	dev.readAt = func(p []byte, off int64) (int, error) {
		if off+int64(len(p)) > broken.Load() {
			return 0, syscall.EIO
		}
		return mem.ReadAt(p, off)
	}
	addr := serve(t, dev)
	c := dial(t, addr, "x")
	got := make([]byte, len(content))
	_, err := c.ReadAt(got, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))

	broken.Store(4096)
	_, err = c.ReadAt(got, 0)
	require.ErrorIs(t, err, syscall.EIO)
	_, err = c.ReadAt(got[:4096], 0)
	require.NoError(t, err)

	broken.Store(3 << 20)
	_, err = c.ReadAt(got, 0)
	require.ErrorIs(t, err, syscall.EIO)
	r := dialRaw(t, addr).greet(3) // no structured replies
	r.open("x")
	r.send(request(0, cmdRead, 1, 0, len(content)))
	r.drained()
	broken.Store(1 << 60)
	_, err = c.ReadAt(got, 0)
	require.NoError(t, err)
	stillServing(t, addr)
}

func TestFUAAndFlush(t *testing.T) {
	mem := nbdtest.NewMemory(make([]byte, 8192))
	r := dialRaw(t, serve(t, mem)).greet(3)
	r.open("x")
	steps := []struct{ flags, typ, synced int }{
		{0, cmdWrite, 0}, {1, cmdWrite, 1}, {0, cmdFlush, 2}, {1, cmdFlush, 3}, {1, cmdRead, 3},
	}
	for i, s := range steps {
		p := request(s.flags, s.typ, uint64(i), 0, 0)
		r.send(p)
		require.Zero(t, r.simple(uint64(i)))
		require.Equal(t, s.synced, mem.Synced(), "%+v", s)
	}
}

func TestDeviceIsClosedOnce(t *testing.T) {
	ends := map[string]func(r *raw){
		"DISC":            func(r *raw) { r.send(request(0, cmdDisc, 1, 0, 0)); r.closed() },
		"closes":          func(r *raw) { r.Close() },
		"in a request":    func(r *raw) { r.send(request(0, cmdWrite, 1, 0, 512)); r.Close() },
		"with replies":    func(r *raw) { r.send(bytes.Repeat(request(0, cmdRead, 1, 0, 512), 100)); r.Close() },
		"wrong magic":     func(r *raw) { r.send(make([]byte, 28)); r.closed() },
		"reset":           func(r *raw) { _ = r.Conn.(*net.TCPConn).SetLinger(0); r.Close() },
		"too long write":  func(r *raw) { r.send(request(0, cmdWrite, 1, 0, most32)); r.closed() },
		"before any byte": func(r *raw) { r.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			mem := nbdtest.NewMemory(make([]byte, 8192))
			srv := &nbd.Server{Handler: always(mem), Logger: quiet}
			addr := nbdtest.ServeServer(t, srv)
			r := dialRaw(t, addr).greet(3)
			r.send(option(optInfo, goData("x")))
			r.wantReply(optInfo, repInfo)
			r.wantReply(optInfo, repAck)
			require.Equal(t, 1, mem.Closed(), "INFO closes what it looked at")
			r.open("x")
			end(r)
			require.NoError(t, srv.Shutdown(t.Context()))
			require.Equal(t, 2, mem.Closed())
		})
	}
}

// A fence: the connection is cut while a request is being worked on, and its
// cause is told.
func TestDisconnect(t *testing.T) {
	fenced := errors.New("a newer boot has taken this root")
	reading, goOn := make(chan struct{}), make(chan struct{})
	dev := &stub{Memory: nbdtest.NewMemory(make([]byte, 8192))}
	dev.readAt = func(p []byte, _ int64) (int, error) {
		close(reading)
		<-goOn
		return len(p), nil
	}
	var cut func(error)
	closed := make(chan error, 1)
	addr := nbdtest.ServeServer(t, &nbd.Server{
		Logger: quiet,
		Handler: nbd.HandlerFunc(func(_ context.Context, r *nbd.Request) (nbd.Device, error) {
			cut = r.Disconnect
			return dev, nil
		}),
		Trace: &nbd.Trace{ConnClosed: func(_ nbd.ConnInfo, _ nbd.ConnStats, cause error) { closed <- cause }},
	})
	r := dialRaw(t, addr).greet(3)
	r.open("x")
	r.send(request(0, cmdRead, 1, 0, 512))
	<-reading
	cut(fenced)
	r.closed() // while the device is still at work
	cut(errors.New("another"))
	close(goOn)
	require.Equal(t, fenced, <-closed)
	require.Equal(t, 1, dev.Closed())
	cut(nil) // long after
}

func TestDisconnectInTheHandler(t *testing.T) {
	cause := errors.New("no")
	mem := nbdtest.NewMemory(make([]byte, 512))
	srv := &nbd.Server{Logger: quiet, Handler: nbd.HandlerFunc(func(ctx context.Context, r *nbd.Request) (nbd.Device, error) {
		r.Disconnect(cause)
		require.Equal(t, cause, context.Cause(ctx))
		return mem, nil
	})}
	nc, far := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- srv.ServeConn(t.Context(), far) }()
	_, err := nbd.NewClient(t.Context(), nc, "x")
	require.Error(t, err)
	require.Equal(t, cause, <-ended)
	require.Equal(t, 1, mem.Closed())
}

// Close ends a call that waits for a server which does not answer.
func TestClientClose(t *testing.T) {
	dev, reading, goOn := gate()
	c := dial(t, serve(t, dev), "x")
	failed := make(chan error, 1)
	go func() {
		_, err := c.ReadAt(make([]byte, 512), 0)
		failed <- err
	}()
	<-reading
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-failed, net.ErrClosed)
	close(goOn)
	require.NoError(t, c.Close(), "again")
	_, err := c.ReadAt(make([]byte, 512), 0)
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = c.WriteAt(nil, -1)
	require.ErrorIs(t, err, fs.ErrInvalid)
}

func TestDialContext(t *testing.T) {
	l := listen(t) // takes connections and says nothing
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := nbd.Dial(ctx, "tcp", l.Addr().String(), "x")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestServeConnReturnsWhy(t *testing.T) {
	mem := nbdtest.NewMemory(make([]byte, 8192))
	run := func(ctx context.Context, f func(r *raw)) error {
		near, far := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- (&nbd.Server{Handler: always(mem), Logger: quiet}).ServeConn(ctx, far) }()
		r := (&raw{t, near}).greet(3)
		r.open("x")
		f(r)
		defer near.Close()
		return <-ended
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	require.NoError(t, run(ctx, func(r *raw) { r.send(request(0, cmdDisc, 0, 0, 0)) }))
	require.Equal(t, io.EOF, run(ctx, func(r *raw) { r.Close() }))
	require.Equal(t, io.ErrUnexpectedEOF, run(ctx, func(r *raw) { r.send(make([]byte, 5)); r.Close() }))
	over := errors.New("over")
	require.Equal(t, over, run(ctx, func(*raw) { cancel(over) }))
}

func TestTrace(t *testing.T) {
	var mu sync.Mutex
	var got []string
	add := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, s)
	}
	var first, last nbd.ConnInfo
	var stats nbd.ConnStats
	var open nbd.OpenInfo
	srv := &nbd.Server{
		Logger:  quiet,
		Handler: nbd.Exports{"x": nbd.Share(nbdtest.NewMemory(make([]byte, 8192)))},
		Trace: &nbd.Trace{
			ConnOpened:    func(c nbd.ConnInfo) { first = c; add("opened") },
			ExportOpened:  func(_ nbd.ConnInfo, o nbd.OpenInfo) { open = o; add(o.Purpose.String() + " " + o.Export) },
			ExportRefused: func(_ nbd.ConnInfo, o nbd.OpenInfo, err error) { add("refused " + o.Export + ": " + err.Error()) },
			FirstRead:     func(_ nbd.ConnInfo, o nbd.OpenInfo) { add("first read " + o.Export) },
			ConnClosed: func(c nbd.ConnInfo, s nbd.ConnStats, cause error) {
				require.NoError(t, cause)
				last, stats = c, s
				add("closed")
			},
		},
	}
	addr := nbdtest.ServeServer(t, srv)
	r := dialRaw(t, addr).greet(3)
	for _, opt := range [][]byte{option(optGo, goData("y")), option(optInfo, goData("/x"))} {
		r.send(opt)
		if typ, _ := r.reply(int(opt[11])); typ == repInfo {
			r.wantReply(int(opt[11]), repAck)
		}
	}
	r.open("x")
	r.send(cat(request(0, cmdRead, 1, 0, 512), request(0, cmdRead, 2, 0, 1024), request(0, cmdRead, 3, 1<<40, 512),
		request(0, cmdWrite, 4, 0, 100), make([]byte, 100), request(0, cmdDisc, 5, 0, 0)))
	_, err := io.Copy(io.Discard, r)
	require.NoError(t, err)
	require.NoError(t, srv.Shutdown(t.Context()))

	require.Equal(t, []string{"opened", "refused y: file does not exist", "info /x", "go x", "first read x", "closed"}, got)
	require.Equal(t, r.LocalAddr().String(), last.Client.String())
	require.Equal(t, addr, last.Local.String())
	require.Equal(t, uint64(1), last.ID)
	require.Equal(t, first, last)
	require.Equal(t, nbd.OpenInfo{Export: "x", Size: 8192, Features: nbdtest.NewMemory(nil).Features()}, open)
	stats.Duration = 0
	require.Equal(t, nbd.ConnStats{Export: "x", Requests: 4, Errors: 1, BytesRead: 1536, BytesWritten: 100}, stats)
}

func TestConnectionLimits(t *testing.T) {
	refused := make(chan error, 10)
	srv := &nbd.Server{
		Logger:          quiet,
		Handler:         always(nbdtest.NewMemory(make([]byte, 512))),
		MaxConns:        3,
		MaxConnsPerAddr: 2,
		Trace:           &nbd.Trace{ConnRefused: func(_ nbd.ConnInfo, err error) { refused <- err }},
	}
	addr := nbdtest.ServeServer(t, srv)
	a, b := dial(t, addr, "x"), dial(t, addr, "x")
	dialRaw(t, addr).closed()
	require.ErrorContains(t, <-refused, "MaxConnsPerAddr")

	from := func(ip string) *raw {
		nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).Dial("tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { nc.Close() })
		require.NoError(t, nc.SetDeadline(time.Now().Add(30*time.Second)))
		return &raw{t, nc}
	}
	if runtime.GOOS != "linux" {
		return // has all of 127.0.0.0/8
	}
	from("127.0.0.2").greet(3).open("x")
	from("127.0.0.3").closed()
	require.ErrorContains(t, <-refused, "MaxConns ")

	// A place is free again when its connection has ended.
	a.Close()
	b.Close()
	require.Eventually(t, func() bool {
		c, err := nbd.Dial(t.Context(), "tcp", addr, "x")
		if err == nil {
			c.Close()
		}
		return err == nil
	}, 30*time.Second, time.Millisecond)
}

func TestSilentClientsAreCut(t *testing.T) {
	causes := make(chan error, 10)
	srv := &nbd.Server{
		Logger:           quiet,
		Handler:          always(&stub{Memory: nbdtest.NewMemory(make([]byte, 64<<20))}),
		HandshakeTimeout: 200 * time.Millisecond,
		IOTimeout:        200 * time.Millisecond,
		Trace:            &nbd.Trace{ConnClosed: func(_ nbd.ConnInfo, _ nbd.ConnStats, cause error) { causes <- cause }},
	}
	addr := nbdtest.ServeServer(t, srv)
	for name, f := range map[string]func(r *raw){
		"no flags":        func(r *raw) { r.recv(18) },
		"half an option":  func(r *raw) { r.greet(3).send(option(optGo, goData("x"))[:18]) },
		"between options": func(r *raw) { r.greet(3).send(option(4711, nil)); r.wantReply(4711, errUnsup) },
		"half a header":   func(r *raw) { r.greet(3).open("x"); r.send(make([]byte, 10)) },
		"no data":         func(r *raw) { r.greet(3).open("x"); r.send(request(0, cmdWrite, 0, 0, 32<<20)) },
		"half the data": func(r *raw) {
			r.greet(3).open("x")
			r.send(append(request(0, cmdWrite, 0, 0, 200000), make([]byte, 100000)...))
		},
		"no data to refuse": func(r *raw) { r.greet(3).open("x"); r.send(request(0, cmdWrite, 0, 1<<40, 32<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := dialRaw(t, addr)
			f(r)
			r.closed()
			require.ErrorIs(t, <-causes, os.ErrDeadlineExceeded)
		})
	}
	t.Run("does not read", func(t *testing.T) {
		r := dialRaw(t, addr).greet(3)
		r.open("x")
		r.send(bytes.Repeat(request(0, cmdRead, 0, 0, 16<<20), 10))
		require.ErrorIs(t, <-causes, os.ErrDeadlineExceeded)
	})
}

// bubble serves a connection in memory, in a time of its own.
func bubble(t *testing.T, srv *nbd.Server, f func(t *testing.T, r *raw)) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- srv.ServeConn(t.Context(), far) }()
		f(t, &raw{t, near})
		near.Close()
		<-ended
	})
}

// Between two requests a client may be silent for ever, also after a request
// that came slowly.
func TestIdleIsNoFault(t *testing.T) {
	bubble(t, &nbd.Server{Logger: quiet, Handler: always(nbdtest.NewMemory(make([]byte, 1<<20)))}, func(t *testing.T, r *raw) {
		r.greet(3).open("x")
		for i := range uint64(3) {
			r.send(append(request(0, cmdWrite, i, 0, 200000), make([]byte, 100000)...))
			time.Sleep(59 * time.Second)
			r.send(make([]byte, 100000))
			require.Zero(t, r.simple(i))
			time.Sleep(1000 * time.Hour)
		}
	})
}

// A byte now and then does not make a request that is late another one.
func TestTricklingClientsAreCut(t *testing.T) {
	for name, begun := range map[string][]byte{
		"a header":        request(0, cmdWrite, 0, 0, 4096)[:1],
		"data":            request(0, cmdWrite, 0, 0, 4096),
		"data to refuse":  request(0, cmdWrite, 0, 1<<40, 4096),
		"data for memory": request(0, cmdWrite, 0, 0, 300000),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, &nbd.Server{Logger: quiet, Handler: always(nbdtest.NewMemory(make([]byte, 1<<20)))}, func(t *testing.T, r *raw) {
				r.greet(3).open("x")
				r.send(begun)
				began, err := time.Now(), error(nil)
				for err == nil && time.Since(began) < time.Hour {
					time.Sleep(10 * time.Second)
					_, err = r.Write([]byte{0})
				}
				require.Error(t, err)
				require.LessOrEqual(t, time.Since(began), 2*time.Minute)
			})
		})
	}
}

// The handler's own time is not the client's: looking an image up may take
// longer than a handshake may.
func TestSlowHandler(t *testing.T) {
	srv := &nbd.Server{Logger: quiet, Handler: nbd.HandlerFunc(func(context.Context, *nbd.Request) (nbd.Device, error) {
		time.Sleep(time.Hour)
		return nbdtest.NewMemory(make([]byte, 512)), nil
	})}
	bubble(t, srv, func(t *testing.T, r *raw) {
		r.greet(3).send(option(optInfo, goData("x")))
		r.wantReply(optInfo, repInfo)
		r.wantReply(optInfo, repAck)
		time.Sleep(9 * time.Second)
		r.open("x")
	})
	bubble(t, srv, func(t *testing.T, r *raw) {
		r.greet(3).send(option(optExportName, []byte("x")))
		r.recv(10)
	})
	bubble(t, srv, func(t *testing.T, r *raw) {
		r.greet(3).send(option(optInfo, goData("x")))
		r.wantReply(optInfo, repInfo)
		r.wantReply(optInfo, repAck)
		time.Sleep(11 * time.Second)
		r.closed()
	})
}

// 32 clients, each with a part of the device of its own, that come and go in
// every way.
func TestManyClients(t *testing.T) {
	const clients, part = 32, 16 << 10
	mem := nbdtest.NewMemory(make([]byte, clients*part))
	srv := &nbd.Server{Handler: anyName{mem}, Logger: quiet, MaxBuffered: 1}
	addr := nbdtest.ServeServer(t, srv)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			model := make([]byte, part)
			for range 4 {
				c, err := nbd.Dial(context.Background(), "tcp", addr, "x")
				if err != nil {
					t.Error(err)
					return
				}
				for range 8 {
					off := rnd.IntN(part)
					p := make([]byte, 1+rnd.IntN(part-off))
					for j := range p {
						p[j] = byte(rnd.Uint32())
					}
					copy(model[off:], p)
					if _, err := c.WriteAt(p, int64(i*part+off)); err != nil {
						t.Error(err)
						return
					}
					got := make([]byte, part)
					if _, err := c.ReadAt(got, int64(i*part)); err != nil && err != io.EOF || !bytes.Equal(got, model) {
						t.Errorf("client %d reads other data than it wrote (%v)", i, err)
						return
					}
				}
				c.Close()

				nc, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				junk := cat(u32(3), option(optGo, goData("x")), bytes.Repeat(request(0, cmdRead, 1, 0, 4096), 50))
				_, _ = nc.Write(junk[:rnd.IntN(len(junk))])
				_ = nc.(*net.TCPConn).SetLinger(rnd.IntN(2))
				nc.Close()
			}
		})
	}
	wg.Wait()
	require.NoError(t, srv.Shutdown(t.Context()))
}
