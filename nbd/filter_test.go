package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// from is a request of a client.
func from(addr string) *nbd.Request {
	r := &nbd.Request{Export: "x"}
	if addr != "" {
		r.Client = netip.AddrPortFrom(netip.MustParseAddr(addr), 1000)
	}
	return r
}

// TestFilterDevices runs the suite over what each filter and handler gives,
// over a device that can do everything and one that can only be read.
func TestFilterDevices(t *testing.T) {
	content := pattern(150 << 10)
	clear(content[70<<10 : 90<<10])
	handler := func(h func(nbd.Handler) nbd.Handler) nbd.Filter {
		return func(dev nbd.Device) nbd.Device {
			dev, err := h(always(dev)).OpenNBD(t.Context(), from("192.0.2.1"))
			require.NoError(t, err)
			return dev
		}
	}
	for _, c := range []struct {
		name   string
		filter nbd.Filter
		slow   bool
	}{
		{"stats", new(nbd.Stats).Filter, false},
		{"delay", nbd.Delay{}.Filter, true},
		{"faults", new(nbd.Faults).Filter, true},
		{"read-only", nbd.ReadOnly, false},
		{"rate", handler(func(h nbd.Handler) nbd.Handler { return &nbd.RateLimit{Handler: h, Read: 1 << 40, Write: 1 << 40} }), true},
		{"limit", handler(func(h nbd.Handler) nbd.Handler { return &nbd.ConnLimit{Handler: h, PerClient: 1} }), false},
		{"stats by client", handler(func(h nbd.Handler) nbd.Handler { return &nbd.StatsByClient{Handler: h} }), false},
		{"stack", func(dev nbd.Device) nbd.Device {
			dev, err := nbd.Filtered(always(dev), new(nbd.Stats).Filter, nbd.Delay{}.Filter).OpenNBD(t.Context(), from(""))
			require.NoError(t, err)
			return dev
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := nbdtest.NewMemory(bytes.Clone(content))
			dev := c.filter(mem)
			want := mem.Features()
			if c.name == "read-only" {
				want.Write, want.Trim, want.Zero, want.FastZero = false, false, false, false
			}
			want.Slow = c.slow
			require.Equal(t, want, dev.Features())
			nbdtest.TestDevice(t, dev, content)
			require.NoError(t, dev.(interface{ Close() error }).Close())
			require.Equal(t, 1, mem.Closed())

			ro := nbd.NewReaderAt(bytes.NewReader(content), int64(len(content)))
			dev = c.filter(ro)
			want = ro.Features()
			want.Slow = c.slow
			require.Equal(t, want, dev.Features(), "it has abilities that its device has not")
			nbdtest.TestDevice(t, dev, content)
		})
	}
}

// TestReadOnly: what a filter masks, a client cannot reach.
func TestReadOnly(t *testing.T) {
	mem := nbdtest.NewMemory(pattern(8192))
	dev := nbd.ReadOnly(mem)
	require.ErrorIs(t, dev.(nbd.Trimmer).Trim(0, 512), fs.ErrPermission)
	require.ErrorIs(t, dev.(nbd.Zeroer).Zero(0, 512, 0), fs.ErrPermission)
	c := dial(t, serve(t, dev), "x")
	require.True(t, c.ReadOnly())
	_, err := c.WriteAt([]byte("x"), 0)
	require.ErrorIs(t, err, syscall.EPERM)
	require.Equal(t, pattern(8192), mem.Bytes())
}

func TestStats(t *testing.T) {
	var stats nbd.Stats
	var faults nbd.Faults
	mem := nbdtest.NewMemory(make([]byte, 8192))
	dev := stats.Filter(faults.Filter(mem))
	_, err := dev.ReadAt(make([]byte, 100), 8192-50)
	require.Error(t, err) // io.EOF, which is no failure
	w := dev.(interface {
		WriteAt([]byte, int64) (int, error)
		Sync() error
		Trim(off, n int64) error
		Close() error
	})
	_, err = w.WriteAt(make([]byte, 1000), 0)
	require.NoError(t, err)
	faults.Add(nbd.Fault{Ops: []nbd.Op{nbd.OpWrite}, Err: syscall.EDQUOT}, nbd.Fault{Err: errors.New("broken")})
	_, err = w.WriteAt(make([]byte, 1000), 0)
	require.ErrorIs(t, err, syscall.EDQUOT)
	require.Error(t, w.Sync())
	faults.Clear()
	require.NoError(t, w.Trim(0, 4096))
	s := stats.Snapshot()
	require.Equal(t, 1, s.Open)
	read, write := s.Ops[nbd.OpRead], s.Ops[nbd.OpWrite]
	require.EqualValues(t, 1, read.Requests)
	require.EqualValues(t, 50, read.Bytes)
	require.Zero(t, read.Failed())
	require.EqualValues(t, 2, write.Requests)
	require.EqualValues(t, 1000, write.Bytes)
	require.Equal(t, map[syscall.Errno]uint64{syscall.ENOSPC: 1}, write.Errors)
	require.Equal(t, map[syscall.Errno]uint64{syscall.EIO: 1}, s.Ops[nbd.OpSync].Errors)
	require.EqualValues(t, 4096, s.Ops[nbd.OpTrim].Bytes)
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
	require.Zero(t, stats.Snapshot().Open)
	require.EqualValues(t, 1, stats.Snapshot().Opened)
}

// TestStatsLatency: a request is counted in the bucket of what it took.
func TestStatsLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stats nbd.Stats
		fast := stats.Filter(nbdtest.NewMemory(make([]byte, 512)))
		slow := stats.Filter(nbd.Delay{Read: 5 * time.Millisecond}.Filter(nbdtest.NewMemory(make([]byte, 512))))
		for range 9 {
			_, _ = fast.ReadAt(make([]byte, 1), 0)
		}
		_, _ = slow.ReadAt(make([]byte, 1), 0)
		s := stats.Snapshot().Ops[nbd.OpRead]
		require.Equal(t, 5*time.Millisecond, s.Time)
		require.EqualValues(t, 9, s.Latency[0])
		require.Equal(t, time.Microsecond, s.Quantile(0.9))
		p99 := s.Quantile(0.99)
		require.True(t, p99 >= 5*time.Millisecond && p99 < 10*time.Millisecond, p99)
		require.Zero(t, nbd.OpStats{}.Quantile(0.5))
	})
}

func TestStatsByClient(t *testing.T) {
	s := &nbd.StatsByClient{Handler: always(nbdtest.NewMemory(make([]byte, 512))), MaxKeys: 2}
	open := func(addr string) nbd.Device {
		dev, err := s.OpenNBD(t.Context(), from(addr))
		require.NoError(t, err)
		_, err = dev.ReadAt(make([]byte, 100), 0)
		require.NoError(t, err)
		return dev
	}
	shut := func(dev nbd.Device) { require.NoError(t, dev.(interface{ Close() error }).Close()) }
	a, b := open("192.0.2.1"), open("192.0.2.2")
	shut(open("192.0.2.1"))
	require.EqualValues(t, 2, s.Snapshot()["192.0.2.1 x"].Opened)
	shut(open("192.0.2.3")) // all are open: counted with the rest
	require.Len(t, s.Snapshot(), 3)
	shut(b)
	shut(a)
	shut(open("192.0.2.4")) // b has been closed longest
	snap := s.Snapshot()
	require.Len(t, snap, 3)
	require.NotContains(t, snap, "192.0.2.2 x")
	require.EqualValues(t, 2, snap[""].Opened)
	require.Zero(t, snap[""].Open)
	require.EqualValues(t, 200, snap[""].Ops[nbd.OpRead].Bytes)
	_, err := s.OpenNBD(t.Context(), &nbd.Request{Purpose: nbd.PurposeInfo})
	require.NoError(t, err)
	require.Len(t, s.Snapshot(), 3)
}

func TestConnLimit(t *testing.T) {
	mem := nbdtest.NewMemory(make([]byte, 512))
	l := &nbd.ConnLimit{Handler: always(mem), PerClient: 2, Total: 3}
	open := func(addr string) (interface{ Close() error }, error) {
		dev, err := l.OpenNBD(t.Context(), from(addr))
		if err != nil {
			return nil, err
		}
		return dev.(interface{ Close() error }), nil
	}
	a, err := open("192.0.2.1")
	require.NoError(t, err)
	_, err = open("192.0.2.1")
	require.NoError(t, err)
	_, err = open("192.0.2.1")
	require.ErrorIs(t, err, syscall.EBUSY)
	_, err = open("192.0.2.2")
	require.NoError(t, err)
	_, err = open("192.0.2.3")
	require.ErrorIs(t, err, syscall.EBUSY)
	require.NoError(t, a.Close())
	require.NoError(t, a.Close(), "closed twice counts once")
	_, err = open("192.0.2.1")
	require.NoError(t, err)
	_, err = open("192.0.2.3")
	require.ErrorIs(t, err, syscall.EBUSY)

	// What could not be opened is not counted.
	l = &nbd.ConnLimit{Handler: refuse{}, Total: 1}
	for range 2 {
		_, err = l.OpenNBD(t.Context(), from(""))
		require.ErrorIs(t, err, fs.ErrPermission)
	}
	_, err = l.ListNBD(t.Context(), from(""))
	require.ErrorIs(t, err, fs.ErrPermission)

	// Over the wire, a connection's end gives its place back.
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: &nbd.ConnLimit{Handler: always(mem), PerClient: 1}})
	c := dial(t, addr, "x")
	_, err = nbd.Dial(t.Context(), "tcp", addr, "x")
	require.Error(t, err)
	require.NoError(t, c.Close())
	require.Eventually(t, func() bool {
		c, err := nbd.Dial(t.Context(), "tcp", addr, "x")
		if err == nil {
			c.Close()
		}
		return err == nil
	}, 20*time.Second, time.Millisecond)
}

// TestRateLimit counts in a synthetic time: two devices of one client share,
// another client has its own, reconnecting gives nothing anew.
func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &nbd.RateLimit{Handler: always(nbdtest.NewMemory(make([]byte, 1<<20))), Read: 1000, Write: 10, Requests: 100}
		ctx, cut := context.WithCancel(t.Context())
		defer cut()
		open := func(addr string) nbd.Device {
			dev, err := l.OpenNBD(ctx, from(addr))
			require.NoError(t, err)
			return dev
		}
		start := time.Now()
		took := func() time.Duration { return time.Since(start).Round(100 * time.Millisecond) }
		a, b, other := open("192.0.2.1"), open("192.0.2.1"), open("192.0.2.2")
		_, err := a.ReadAt(make([]byte, 1000), 0)
		require.NoError(t, err)
		require.Zero(t, took())
		_, err = other.ReadAt(make([]byte, 1000), 0)
		require.NoError(t, err)
		require.Zero(t, took())
		_, err = b.ReadAt(make([]byte, 3000), 0) // more than a burst
		require.NoError(t, err)
		require.Equal(t, 3*time.Second, took())
		require.NoError(t, a.(interface{ Close() error }).Close())
		require.NoError(t, b.(interface{ Close() error }).Close())
		again := open("192.0.2.1")
		_, err = again.ReadAt(make([]byte, 500), 0)
		require.NoError(t, err)
		require.Equal(t, 3500*time.Millisecond, took())

		var wg sync.WaitGroup
		wg.Go(func() {
			_, err = again.(interface {
				WriteAt([]byte, int64) (int, error)
			}).WriteAt(make([]byte, 10000), 0)
		})
		synctest.Wait()
		cut()
		wg.Wait()
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 3500*time.Millisecond, took(), "a wait goes on for a connection that is cut")
	})
}

func TestFaults(t *testing.T) {
	var f nbd.Faults
	mem := nbdtest.NewMemory(pattern(16384))
	c := dial(t, serve(t, f.Filter(mem)), "x")
	read := func(off int64) error {
		_, err := c.ReadAt(make([]byte, 512), off)
		return err
	}
	f.Add(
		nbd.Fault{Ops: []nbd.Op{nbd.OpRead}, Off: 4096, Len: 4096, Err: syscall.EIO},
		nbd.Fault{Ops: []nbd.Op{nbd.OpWrite}, Skip: 1, Count: 2, Err: syscall.ENOSPC},
	)
	require.NoError(t, read(4096-512))
	require.ErrorIs(t, read(4096-511), syscall.EIO)
	require.ErrorIs(t, read(8191), syscall.EIO)
	require.NoError(t, read(8192))
	for i, want := range []error{nil, syscall.ENOSPC, syscall.ENOSPC, nil} {
		_, err := c.WriteAt([]byte{1}, 0)
		require.ErrorIs(t, err, want, i)
	}
	require.Equal(t, 4, f.Hits())
	f.Clear()
	require.NoError(t, read(4096), "the connection has outlived them")
	require.NoError(t, c.Sync())
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := nbd.Delay{Read: time.Second, Write: 2 * time.Second, Sync: 4 * time.Second}.Filter(nbdtest.NewMemory(make([]byte, 512)))
		w := d.(interface {
			WriteAt([]byte, int64) (int, error)
			Sync() error
			Trim(off, n int64) error
		})
		start := time.Now()
		_, _ = d.ReadAt(make([]byte, 1), 0)
		_, _ = w.WriteAt(make([]byte, 1), 0)
		require.NoError(t, w.Sync())
		require.NoError(t, w.Trim(0, 512))
		require.Equal(t, 9*time.Second, time.Since(start))
	})
}

func TestSwap(t *testing.T) {
	dir := t.TempDir()
	s := &nbd.Swap{Size: 150<<10 - 100, Dir: dir, MaxDevices: 2}
	defer s.Close()
	open := func(addr string) nbd.Device {
		dev, err := s.OpenNBD(t.Context(), from(addr))
		require.NoError(t, err)
		return dev
	}
	shut := func(dev nbd.Device) { require.NoError(t, dev.(interface{ Close() error }).Close()) }
	a := open("192.0.2.1")
	nbdtest.TestDevice(t, a, make([]byte, 150<<10))
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, names, "a file would stay after a crash")

	look, err := s.OpenNBD(t.Context(), &nbd.Request{Export: "x", Purpose: nbd.PurposeInfo, Client: from("192.0.2.9").Client})
	require.NoError(t, err)
	require.Equal(t, a.Size(), look.Size())
	require.Equal(t, a.Features(), look.Features())
	shut(look)

	write := func(dev nbd.Device, s string) {
		_, err := dev.(interface {
			WriteAt([]byte, int64) (int, error)
		}).WriteAt([]byte(s), 4096)
		require.NoError(t, err)
	}
	read := func(dev nbd.Device) string {
		p := make([]byte, 3)
		_, err := dev.ReadAt(p, 4096)
		require.NoError(t, err)
		return string(p)
	}
	write(a, "one")
	b := open("192.0.2.2")
	require.Equal(t, "\x00\x00\x00", read(b), "another client's memory")
	write(b, "two")
	second := open("192.0.2.1")
	require.Equal(t, "one", read(second))
	shut(a)
	shut(a)
	require.Equal(t, "one", read(second), "a second connection lost its device")
	shut(second)
	again := open("192.0.2.1")
	require.Equal(t, "one", read(again), "a reconnect lost its memory")
	_, err = s.OpenNBD(t.Context(), from("192.0.2.3"))
	require.ErrorIs(t, err, syscall.EBUSY)
	_, err = s.OpenNBD(t.Context(), from(""))
	require.ErrorIs(t, err, fs.ErrPermission)
	require.NoError(t, s.Close())
	require.Equal(t, "one", read(again), "closed under its user")
	shut(again)
	_, err = again.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = s.OpenNBD(t.Context(), from("192.0.2.1"))
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = new(nbd.Swap).OpenNBD(t.Context(), from("192.0.2.1"))
	require.ErrorIs(t, err, fs.ErrInvalid)
}

// TestSwapIsForgotten: after Keep a client finds an empty device.
func TestSwapIsForgotten(t *testing.T) {
	for _, keep := range []time.Duration{-1, 0} {
		synctest.Test(t, func(t *testing.T) {
			s := &nbd.Swap{Size: 8192, Dir: t.TempDir(), Keep: keep}
			defer s.Close()
			use := func() byte {
				dev, err := s.OpenNBD(t.Context(), from("192.0.2.1"))
				require.NoError(t, err)
				var p [1]byte
				_, err = dev.ReadAt(p[:], 100)
				require.NoError(t, err)
				_, err = dev.(interface {
					WriteAt([]byte, int64) (int, error)
				}).WriteAt([]byte{7}, 100)
				require.NoError(t, err)
				require.NoError(t, dev.(interface{ Close() error }).Close())
				return p[0]
			}
			require.Zero(t, use())
			if keep == 0 {
				time.Sleep(119 * time.Second)
				require.EqualValues(t, 7, use())
				time.Sleep(119 * time.Second)
				require.EqualValues(t, 7, use(), "the clock starts anew with each use")
				time.Sleep(121 * time.Second)
			}
			require.Zero(t, use())
		})
	}
}
