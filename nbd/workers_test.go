package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// slow is a device whose reads of odd blocks wait for a word.
type slow struct {
	*nbdtest.Memory
	begun   chan int64 // a read or a write has begun
	free    chan struct{}
	running atomic.Int32
}

func newSlow(content []byte) *slow {
	return &slow{Memory: nbdtest.NewMemory(content), begun: make(chan int64, 100), free: make(chan struct{})}
}

func (d *slow) Features() nbd.Features {
	f := d.Memory.Features()
	f.Slow = true
	return f
}

func (d *slow) hold(off int64) {
	if off/512%2 == 1 {
		d.running.Add(1)
		d.begun <- off
		<-d.free
		d.running.Add(-1)
	}
}

func (d *slow) ReadAt(p []byte, off int64) (int, error) {
	d.hold(off)
	return d.Memory.ReadAt(p, off)
}

func (d *slow) WriteAt(p []byte, off int64) (int, error) {
	d.hold(off)
	return d.Memory.WriteAt(p, off)
}

// What is quick is answered while what is slow is worked on.
func TestSlowDevice(t *testing.T) {
	content := pattern(1 << 20)
	dev := newSlow(bytes.Clone(content))
	r := dialRaw(t, serve(t, dev)).greet(3)
	r.open("x")
	r.send(cat(request(0, cmdRead, 1, 512, 512), request(0, cmdWrite, 2, 1536, 512), make([]byte, 512)))
	<-dev.begun
	<-dev.begun
	r.send(cat(request(0, cmdRead, 3, 4096, 1000), request(0, cmdWrite, 4, 0, 512), bytes.Repeat([]byte{1}, 512)))
	seen := map[uint64]bool{}
	for range 2 { // in whatever order
		h := r.recv(16)
		cookie := uint64(h[15])
		seen[cookie] = true
		if cookie == 3 {
			require.Equal(t, content[4096:5096], r.recv(1000))
		}
	}
	require.Equal(t, map[uint64]bool{3: true, 4: true}, seen)
	// A flush waits for no more than what was answered.
	r.send(request(0, cmdFlush, 5, 0, 0))
	require.Zero(t, r.simple(5))
	require.Equal(t, 1, dev.Synced())
	// A write longer than what is held for it is taken as it comes.
	long := pattern(300 << 10)
	r.send(cat(request(0, cmdWrite, 6, 8192, len(long)), long))
	require.Zero(t, r.simple(6))
	close(dev.free)
	for range 2 {
		if h := r.recv(16); h[15] == 1 {
			require.Equal(t, content[512:1024], r.recv(512))
		}
	}
	copy(content, bytes.Repeat([]byte{1}, 512))
	copy(content[1536:], make([]byte, 512))
	copy(content[8192:], long)
	require.True(t, bytes.Equal(content, dev.Bytes()))
}

// The work on one connection is bounded, and what it was given is finished
// before the device is closed: when the client leaves, when it is gone, and at
// a shutdown, whose replies come.
func TestSlowDeviceEnds(t *testing.T) {
	for _, end := range []string{"disc", "gone", "shutdown"} {
		t.Run(end, func(t *testing.T) {
			dev := newSlow(pattern(1 << 20))
			closed := make(chan nbd.ConnStats, 1)
			srv := &nbd.Server{Logger: quiet, Handler: always(dev), Trace: &nbd.Trace{
				ConnClosed: func(_ nbd.ConnInfo, s nbd.ConnStats, _ error) { closed <- s }}}
			r := dialRaw(t, nbdtest.ServeServer(t, srv)).greet(3)
			r.open("x")
			for i := range 16 {
				r.send(request(0, cmdRead, uint64(i), 512, 512))
			}
			for range 16 {
				<-dev.begun
			}
			require.EqualValues(t, 16, dev.running.Load())
			shut := make(chan error, 1)
			switch end {
			case "disc":
				// Its turn comes when one of the others is done.
				r.send(cat(request(0, cmdRead, 16, 512, 512), request(0, cmdDisc, 0, 0, 0)))
			case "gone":
				r.Close()
			case "shutdown":
				go func() { shut <- srv.Shutdown(context.Background()) }()
			}
			require.Zero(t, dev.Closed())
			close(dev.free)
			replies := map[string]int{"disc": 17, "shutdown": 16}[end]
			for range replies {
				h := r.recv(16)
				require.Zero(t, h[7])
				r.recv(512)
			}
			if replies > 0 {
				r.closed()
			}
			stats := <-closed
			require.Equal(t, 1, dev.Closed())
			require.Zero(t, dev.running.Load())
			require.EqualValues(t, 512*max(replies, 16), stats.BytesRead)
			if end == "shutdown" {
				require.NoError(t, <-shut)
			}
		})
	}
}

// Errors of a slow device are replies, also those of a long read's first
// piece; in chunks, of any piece.
func TestSlowDeviceFails(t *testing.T) {
	faults := new(nbd.Faults)
	faults.Add(nbd.Fault{Ops: []nbd.Op{nbd.OpRead}, Off: 2 << 20, Len: 512, Err: syscall.EIO},
		nbd.Fault{Ops: []nbd.Op{nbd.OpWrite}, Err: syscall.ENOSPC})
	content := pattern(4 << 20)
	addr := serve(t, faults.Filter(nbdtest.NewMemory(content)))
	r := dialRaw(t, addr).greet(3)
	r.open("x")
	r.send(request(0, cmdRead, 1, 2<<20, 2<<20))
	require.Equal(t, eIO, r.simple(1))
	r.send(cat(request(0, cmdWrite, 2, 0, 512), make([]byte, 512)))
	require.Equal(t, eNOSPC, r.simple(2))
	r.send(cat(request(0, cmdWrite, 3, 0, 1<<20), make([]byte, 1<<20)))
	require.Equal(t, eNOSPC, r.simple(3))
	c, err := nbd.Dial(t.Context(), "tcp", addr, "x")
	require.NoError(t, err)
	defer c.Close()
	_, err = c.ReadAt(make([]byte, 4<<20), 0)
	require.ErrorIs(t, err, syscall.EIO)
	got := make([]byte, 1<<20)
	_, err = c.ReadAt(got, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content[:1<<20], got))
}

// crowded is a slow device that says when it is read.
type crowded struct {
	*nbdtest.Memory
	reads atomic.Int32
}

func (d *crowded) Features() nbd.Features {
	f := d.Memory.Features()
	f.Slow = true
	return f
}

func (d *crowded) ReadAt(p []byte, off int64) (int, error) {
	d.reads.Add(1)
	return d.Memory.ReadAt(p, off)
}

// Reads longer than what is held at once are sent whole, and wait for no buffer
// that a reply behind them has.
func TestLongReadsOfSlowDevice(t *testing.T) {
	content := pattern(4 << 20)
	srv := &nbd.Server{Logger: quiet, Handler: always(&crowded{Memory: nbdtest.NewMemory(content)}), MaxBuffered: 1}
	r := dialRaw(t, nbdtest.ServeServer(t, srv)).greet(3)
	r.open("x")
	for range 20 {
		lengths := make([]int, 12)
		for i := range lengths {
			lengths[i] = 1 << 20
			if i%3 == 0 {
				lengths[i] = 3<<20 + 512
			}
			r.send(request(0, cmdRead, uint64(i), 0, lengths[i]))
		}
		for range lengths {
			h := r.recv(16)
			require.Zero(t, binary.BigEndian.Uint32(h[4:]))
			n := lengths[binary.BigEndian.Uint64(h[8:])]
			require.True(t, bytes.Equal(content[:n], r.recv(n)))
		}
	}
}

// A client that does not take what it asked for is in nobody's way, not of those
// who need such buffers, and not of those who do not.
func TestGreedyClients(t *testing.T) {
	needMaps(t)
	content := pattern(1 << 20)
	file, err := nbd.OpenFile(tempFile(t, content))
	require.NoError(t, err)
	defer file.Close()
	dev := &crowded{Memory: nbdtest.NewMemory(content)}
	srv := &nbd.Server{Logger: quiet, MaxBuffered: 1, Handler: nbd.Exports{"slow": always(dev), "image": nbd.Share(file)}}
	addr := nbdtest.ServeServer(t, srv)
	// Nothing is buffered on the way to it.
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close() })
	go srv.ServeConn(t.Context(), there) // ends with here
	greedy := (&raw{t, here}).greet(3)
	greedy.open("slow")
	greedy.send(bytes.Repeat(request(0, cmdRead, 1, 0, 1<<20), 3))
	require.Eventually(t, func() bool { return dev.reads.Load() == 1 }, 20*time.Second, time.Millisecond)
	c, err := nbd.Dial(t.Context(), "tcp", addr, "image")
	require.NoError(t, err)
	defer c.Close()
	got := make([]byte, len(content))
	_, err = c.ReadAt(got, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
	require.EqualValues(t, 1, dev.reads.Load(), "the second read found a buffer")
	other := dialRaw(t, addr).greet(3)
	other.open("slow")
	other.send(bytes.Repeat(request(0, cmdRead, 1, 0, 1<<20), 8))
	for range 8 {
		require.Zero(t, other.simple(1))
		require.True(t, bytes.Equal(content, other.recv(1<<20)))
	}
	require.EqualValues(t, 9, dev.reads.Load())
}

// Clients with overlays of their own come and go, in the middle of requests
// too: each sees its own writes over the base and nobody else's.
func TestClientsComeAndGo(t *testing.T) {
	const clients, size = 64, 1 << 20
	base := pattern(size)
	file, err := nbd.OpenFile(tempFile(t, base))
	require.NoError(t, err)
	defer file.Close()
	overlays := map[string]*nbd.Overlay{}
	name := func(i int) string { return string([]byte{'a' + byte(i/8), 'a' + byte(i%8)}) }
	for i := range clients {
		if i%2 == 0 {
			overlays[name(i)] = nbd.NewOverlay(file)
			continue
		}
		o, err := nbd.OpenOverlay(file, filepath.Join(t.TempDir(), "o"), "base")
		require.NoError(t, err)
		defer o.Close()
		overlays[name(i)] = o
	}
	srv := &nbd.Server{Logger: quiet, Handler: nbd.HandlerFunc(func(_ context.Context, r *nbd.Request) (nbd.Device, error) {
		return nbd.Share(overlays[r.Export]).OpenNBD(context.Background(), r)
	})}
	addr := nbdtest.ServeServer(t, srv)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			if err := comeAndGo(t.Context(), addr, name(i), bytes.Clone(base), uint64(i)); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, srv.Shutdown(t.Context()))
	got := make([]byte, size)
	_, err = file.ReadAt(got, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(base, got), "the base was written to")
}

func comeAndGo(ctx context.Context, addr, export string, model []byte, seed uint64) error {
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 3 {
		c, err := nbd.Dial(ctx, "tcp", addr, export)
		if err != nil {
			return err
		}
		for range 10 {
			off := rnd.IntN(len(model))
			p := make([]byte, 1+rnd.IntN(min(len(model)-off, 20<<10)))
			for j := range p {
				p[j] = byte(rnd.Uint32())
			}
			copy(model[off:], p)
			if _, err := c.WriteAt(p, int64(off)); err != nil {
				return err
			}
			got := make([]byte, 1+rnd.IntN(len(model)))
			at := rnd.IntN(len(model) - len(got) + 1)
			if _, err := c.ReadAt(got, int64(at)); err != nil {
				return err
			}
			if !bytes.Equal(got, model[at:][:len(got)]) {
				return errors.New("it reads other data than it wrote")
			}
		}
		c.Close()
		// And one that is cut off, with replies under way that it never takes.
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		junk := cat(u32(3), option(optGo, goData(export)), bytes.Repeat(request(0, cmdRead, 1, 0, 100<<10), 50))
		_, _ = nc.Write(junk[:len(junk)-rnd.IntN(1000)])
		_ = nc.(*net.TCPConn).SetLinger(rnd.IntN(2))
		nc.Close()
	}
	return nil
}

// What workers have done counts as the connection's.
func TestSlowDeviceIsCounted(t *testing.T) {
	closed := make(chan nbd.ConnStats, 1)
	dev := newSlow(pattern(1 << 20))
	r := dialRaw(t, nbdtest.ServeServer(t, &nbd.Server{Handler: anyName{dev}, Logger: quiet,
		Trace: &nbd.Trace{ConnClosed: func(_ nbd.ConnInfo, s nbd.ConnStats, _ error) { closed <- s }}})).greet(3)
	r.open("x")
	for cookie := range uint64(3) {
		r.send(request(0, cmdRead, cookie, 0, 1000))
		require.Zero(t, r.simple(cookie))
		r.recv(1000)
	}
	r.send(cat(request(0, cmdWrite, 4, 0, 512), make([]byte, 512)))
	require.Zero(t, r.simple(4))
	r.send(request(0, cmdRead, 5, 1<<20, 512)) // beyond the end
	require.NotZero(t, r.simple(5))
	r.send(request(0, cmdDisc, 6, 0, 0))
	s := <-closed
	require.EqualValues(t, 3000, s.BytesRead)
	require.EqualValues(t, 512, s.BytesWritten)
	require.EqualValues(t, 1, s.Errors)
}
