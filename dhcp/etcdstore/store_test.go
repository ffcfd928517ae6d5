//go:build unix

package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcptest"
	"github.com/seed-3ec230fa/diskless/internal/etcdtest"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// openStore opens one for the test, and waits until it is filled.
func openStore(t testing.TB, client *clientv3.Client, o Options) *Store {
	s, err := Open(client, &o)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	require.Eventually(t, func() bool { return s.Sync(context.Background()) == nil }, time.Minute, 10*time.Millisecond)
	return s
}

func TestStore(t *testing.T) {
	client := etcdtest.Start(t, 1).Client(t)
	n := 0
	dhcptest.TestLeaseStore(t, func(t *testing.T) dhcp.LeaseStore {
		n++
		return openStore(t, client, Options{Name: "one", Prefix: fmt.Sprint("/test/", n)})
	})
}

func mac(n byte) net.HardwareAddr { return dhcptest.HardwareAddr(n) }

func leaseFor(addr, hw byte, d time.Duration) dhcp.Lease {
	return dhcp.Lease{Addr: dhcptest.Addr(addr), HardwareAddr: mac(hw), Expires: time.Now().Add(d)}
}

// What one server does, the other goes by, and neither takes away what the
// other gave.
func TestTwoServers(t *testing.T) {
	etcd := etcdtest.Start(t, 1)
	a, b := openStore(t, etcd.Client(t), Options{Name: "a"}), openStore(t, etcd.Client(t), Options{Name: "b"})
	ctx := t.Context()
	one, two := string(mac(1)), string(mac(2))

	require.NoError(t, a.Hold(ctx, dhcptest.Addr(1), one, time.Minute))
	require.ErrorIs(t, b.Hold(ctx, dhcptest.Addr(1), two, time.Minute), fs.ErrExist)
	require.ErrorIs(t, b.Commit(ctx, leaseFor(1, 2, time.Hour)), fs.ErrExist)
	require.NoError(t, b.Hold(ctx, dhcptest.Addr(1), one, time.Minute))
	_, known := b.AddrState(dhcptest.Addr(1), one)
	require.False(t, known)
	until, known := b.AddrState(dhcptest.Addr(1), two)
	require.True(t, known && until.After(time.Now()))

	require.NoError(t, b.Commit(ctx, leaseFor(1, 1, time.Hour))) // it takes the offer of the one at the other
	require.NoError(t, a.Sync(ctx))
	l, err := a.LeaseByAddr(ctx, dhcptest.Addr(1))
	require.NoError(t, err)
	require.True(t, l.Active(time.Now()))
	require.ErrorIs(t, a.Hold(ctx, dhcptest.Addr(1), two, time.Minute), fs.ErrExist)
	require.ErrorIs(t, a.Commit(ctx, leaseFor(1, 2, time.Hour)), fs.ErrExist)
	require.ErrorIs(t, a.Release(ctx, dhcptest.Addr(1), one), fs.ErrNotExist, "b gave it last")
	require.NoError(t, b.Release(ctx, dhcptest.Addr(1), one))
	require.NoError(t, a.Sync(ctx))

	// Who had it goes before who was offered it.
	require.NoError(t, a.Hold(ctx, dhcptest.Addr(1), two, time.Minute))
	require.NoError(t, b.Sync(ctx))
	require.NoError(t, b.Hold(ctx, dhcptest.Addr(1), one, time.Minute))
	require.ErrorIs(t, a.Commit(ctx, leaseFor(1, 2, time.Hour)), fs.ErrExist)
	require.NoError(t, a.Commit(ctx, leaseFor(1, 1, time.Hour)))

	// A server that had stopped finds a renewal and the release behind it; in
	// the meantime the machine has its address again, of the other server.
	require.NoError(t, b.Sync(ctx))
	require.NoError(t, b.Commit(ctx, leaseFor(1, 1, time.Hour)))
	require.NoError(t, a.Sync(ctx))
	require.NoError(t, a.Commit(ctx, leaseFor(1, 1, time.Hour)))
	require.ErrorIs(t, a.Release(ctx, dhcptest.Addr(1), one), fs.ErrNotExist)
	require.NoError(t, b.Sync(ctx))
	require.ErrorIs(t, b.Release(ctx, dhcptest.Addr(1), one), fs.ErrNotExist)
	require.ErrorIs(t, b.Commit(ctx, leaseFor(1, 2, time.Hour)), fs.ErrExist)

	// A quarantine lasts as long as the machine may believe in its lease.
	require.NoError(t, b.Decline(ctx, dhcptest.Addr(1), one, time.Now().Add(-time.Second)))
	require.ErrorIs(t, b.Commit(ctx, leaseFor(1, 2, time.Hour)), fs.ErrExist)
	require.NoError(t, a.Sync(ctx))
	l, err = a.LeaseByAddr(ctx, dhcptest.Addr(1))
	require.NoError(t, err)
	require.True(t, l.Declined)
}

// Etcd tells when a lease is over, whatever the clocks of the servers say; and
// the ACK of a shorter time ends no longer one that the machine may believe in.
func TestEndOfLeases(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t, 1)
	client := etcd.Client(t)
	a, b := openStore(t, client, Options{Name: "a"}), openStore(t, client, Options{Name: "b"})
	ctx := t.Context()
	began := time.Now()
	require.NoError(t, a.Commit(ctx, leaseFor(1, 1, time.Second)))
	require.NoError(t, a.Commit(ctx, leaseFor(2, 1, time.Hour)))
	require.NoError(t, a.Commit(ctx, leaseFor(2, 1, time.Second)))
	require.NoError(t, a.Decline(ctx, dhcptest.Addr(3), string(mac(1)), time.Now().Add(time.Second)))
	a.clockStep.Store(int64(-10 * 365 * 24 * time.Hour))
	b.clockStep.Store(int64(10 * 365 * 24 * time.Hour))
	require.NoError(t, b.Sync(ctx))
	for n := byte(1); n <= 3; n++ {
		until, known := b.AddrState(dhcptest.Addr(n), string(mac(2)))
		require.True(t, known && until.After(time.Now()), "%d", n)
		require.ErrorIs(t, b.Commit(ctx, leaseFor(n, 2, time.Hour)), fs.ErrExist)
	}
	for _, n := range []byte{1, 3} {
		require.Eventually(t, func() bool { return b.Commit(ctx, leaseFor(n, 2, time.Hour)) == nil }, time.Minute, 20*time.Millisecond)
		require.Greater(t, time.Since(began), time.Second)
	}
	require.ErrorIs(t, b.Commit(ctx, leaseFor(2, 2, time.Hour)), fs.ErrExist)
	l, err := a.LeaseByAddr(ctx, dhcptest.Addr(2))
	require.NoError(t, err)
	require.True(t, l.Active(time.Now()))
	require.NoError(t, a.Sync(ctx))
	l, err = a.LeaseByAddr(ctx, dhcptest.Addr(3))
	require.NoError(t, err)
	require.Equal(t, mac(2), l.HardwareAddr)
}

// Cut off from etcd a store says so, and nothing else. When it is back it
// knows what happened meanwhile, also if etcd cannot tell each step any more.
func TestAway(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t, 1)
	p := newProxy(t, strings.TrimPrefix(etcd.URLs()[0], "http://"))
	near, err := etcdtest.NewClient("http://" + p.listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { near.Close() })
	var log lockedBuffer
	a := openStore(t, near, Options{Name: "a", MaxAge: 2 * time.Second, Timeout: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	far := etcd.Client(t)
	b := openStore(t, far, Options{Name: "b"})
	ctx := t.Context()
	require.NoError(t, a.Commit(ctx, leaseFor(1, 1, time.Hour)))
	require.NoError(t, a.Commit(ctx, leaseFor(2, 1, time.Hour)))

	p.set(refuses)
	require.ErrorIs(t, a.Commit(ctx, leaseFor(1, 1, time.Hour)), ErrAway)
	require.Eventually(t, func() bool {
		_, err := a.LeaseByAddr(ctx, dhcptest.Addr(1))
		return errors.Is(err, ErrAway)
	}, time.Minute, 10*time.Millisecond)
	require.ErrorIs(t, a.Hold(ctx, dhcptest.Addr(9), string(mac(1)), time.Minute), ErrAway)
	require.ErrorIs(t, a.Sync(ctx), ErrAway)
	_, err = a.LeasesByOwner(ctx, string(mac(1)))
	require.ErrorIs(t, err, ErrAway)
	for _, err := range a.Leases(ctx) {
		require.ErrorIs(t, err, ErrAway)
	}

	require.NoError(t, b.Sync(ctx))
	require.NoError(t, b.Commit(ctx, leaseFor(3, 3, time.Hour)))
	_, err = far.Delete(ctx, a.leaseKey(dhcptest.Addr(2))) // a person's work
	require.NoError(t, err)
	resp, err := far.Put(ctx, "other", "x")
	require.NoError(t, err)
	_, err = far.Compact(ctx, resp.Header.Revision)
	require.NoError(t, err)

	p.set(passes)
	require.Eventually(t, func() bool { return a.Sync(ctx) == nil }, time.Minute, 10*time.Millisecond)
	_, err = a.LeaseByAddr(ctx, dhcptest.Addr(1))
	require.NoError(t, err)
	_, err = a.LeaseByAddr(ctx, dhcptest.Addr(2))
	require.ErrorIs(t, err, fs.ErrNotExist)
	l, err := a.LeaseByAddr(ctx, dhcptest.Addr(3))
	require.NoError(t, err)
	require.Equal(t, mac(3), l.HardwareAddr)
	require.Contains(t, log.String(), "etcd does not answer")
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "etcd answers again") }, time.Minute, 10*time.Millisecond)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// What people and other programs put there.
func TestForeignValues(t *testing.T) {
	client := etcdtest.Start(t, 1).Client(t)
	var log lockedBuffer
	ctx := t.Context()
	for key, value := range map[string]string{
		"lease/" + dhcptest.Addr(1).String(): "mine!", "lease/somebody": "{}", "offer/" + dhcptest.Addr(2).String(): "[", "term/xyz": "", "odd": "",
		"lease/" + dhcptest.Addr(3).String(): strings.Repeat("x", maxValue+1),
	} {
		_, err := client.Put(ctx, DefaultPrefix+"/"+key, value)
		require.NoError(t, err)
	}
	s := openStore(t, client, Options{Name: "a", Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for _, n := range []byte{1, 3} {
		_, err := s.LeaseByAddr(ctx, dhcptest.Addr(n))
		require.ErrorIs(t, err, fs.ErrInvalid)
		until, known := s.AddrState(dhcptest.Addr(n), string(mac(1)))
		require.True(t, known && until.IsZero())
		require.ErrorIs(t, s.Commit(ctx, leaseFor(n, 1, time.Hour)), fs.ErrExist)
		require.ErrorIs(t, s.Release(ctx, dhcptest.Addr(n), string(mac(1))), fs.ErrNotExist)
		require.ErrorIs(t, s.Decline(ctx, dhcptest.Addr(n), string(mac(1)), time.Now()), fs.ErrExist)
	}
	require.ErrorIs(t, s.Commit(ctx, leaseFor(2, 1, time.Hour)), fs.ErrExist)
	require.Contains(t, log.String(), "not understood")
	_, err := client.Delete(ctx, DefaultPrefix+"/", clientv3.WithPrefix())
	require.NoError(t, err)
	require.NoError(t, s.Sync(ctx))
	for n := byte(1); n <= 3; n++ {
		require.NoError(t, s.Commit(ctx, leaseFor(n, 1, time.Hour)))
	}
}

// Without room the leases that ended first are forgotten.
func TestMaxLeases(t *testing.T) {
	client := etcdtest.Start(t, 1).Client(t)
	s := openStore(t, client, Options{Name: "a", MaxLeases: 4})
	ctx := t.Context()
	for n := byte(1); n <= 4; n++ {
		require.NoError(t, s.Commit(ctx, leaseFor(n, n, time.Hour)))
	}
	require.ErrorIs(t, s.Commit(ctx, leaseFor(5, 5, time.Hour)), syscall.ENOSPC)
	require.NoError(t, s.Commit(ctx, leaseFor(4, 4, time.Hour)), "not a new one")
	require.NoError(t, s.Release(ctx, dhcptest.Addr(2), string(mac(2))))
	require.NoError(t, s.Commit(ctx, leaseFor(5, 5, time.Hour)))
	_, err := s.LeaseByAddr(ctx, dhcptest.Addr(2))
	require.ErrorIs(t, err, fs.ErrNotExist)
	resp, err := client.Get(ctx, DefaultPrefix+"/lease/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	require.EqualValues(t, 4, resp.Count)
}

func TestOptions(t *testing.T) {
	client, err := etcdtest.NewClient("http://127.0.0.1:1")
	require.NoError(t, err)
	defer client.Close()
	_, err = Open(nil, nil)
	require.ErrorIs(t, err, fs.ErrInvalid)
	for _, o := range []Options{{Prefix: "/"}, {Prefix: "a\nb"}, {Name: "a/b"}, {Name: "a\x00"}, {Timeout: -1}} {
		_, err := Open(client, &o)
		require.ErrorIs(t, err, fs.ErrInvalid, "%+v", o)
	}
	s, err := Open(client, &Options{Timeout: time.Second, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ctx := t.Context()
	require.ErrorIs(t, s.Commit(ctx, leaseFor(1, 1, time.Hour)), ErrAway)
	require.ErrorIs(t, s.Commit(ctx, dhcp.Lease{Addr: dhcptest.Addr(1)}), fs.ErrInvalid)
	require.ErrorIs(t, s.Commit(ctx, dhcp.Lease{HardwareAddr: mac(1)}), fs.ErrInvalid)
	require.NoError(t, s.Close())
	_, err = s.LeaseByAddr(ctx, dhcptest.Addr(1))
	for _, err := range []error{err, s.Close(), s.Sync(ctx), s.Commit(ctx, leaseFor(1, 1, time.Hour)), s.Hold(ctx, dhcptest.Addr(1), "x", time.Second),
		s.Release(ctx, dhcptest.Addr(1), "x"), s.Decline(ctx, dhcptest.Addr(1), "x", time.Now())} {
		require.ErrorIs(t, err, fs.ErrClosed)
	}
}

// Many changes at once take few transactions.
func TestBatches(t *testing.T) {
	client := etcdtest.Start(t, 1).Client(t)
	s := openStore(t, client, Options{Name: "a"})
	ctx := t.Context()
	before, err := client.Get(ctx, "x")
	require.NoError(t, err)
	var wg sync.WaitGroup
	for n := range 250 {
		wg.Go(func() {
			require.NoError(t, s.Commit(ctx, leaseFor(byte(n), byte(n), time.Hour)))
		})
	}
	wg.Wait()
	after, err := client.Get(ctx, "x")
	require.NoError(t, err)
	require.Less(t, after.Header.Revision-before.Header.Revision, int64(150))
}

// As many as fit into a transaction, with as many to be forgotten.
func TestMaxLeasesAtOnce(t *testing.T) {
	const n = 2 * maxBatch
	s := openStore(t, etcdtest.Start(t, 1).Client(t), Options{Name: "a", MaxLeases: n})
	ctx := t.Context()
	all := func(from int, d time.Duration) {
		var wg sync.WaitGroup
		errs := make([]error, n)
		for i := range n {
			wg.Go(func() {
				addr, hw := numbered(int64(from + i))
				errs[i] = s.Commit(ctx, dhcp.Lease{Addr: addr, HardwareAddr: hw, Expires: time.Now().Add(d)})
			})
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
	}
	all(0, -time.Second)
	all(n, time.Hour)
	s.mu.RLock()
	defer s.mu.RUnlock()
	require.LessOrEqual(t, len(s.cache.addrs), n)
}

// silent is a Watcher whose first watch brings nothing, and does not end.
type silent struct {
	clientv3.Watcher
	watches atomic.Int32
}

func (w *silent) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	if w.watches.Add(1) == 1 {
		return make(clientv3.WatchChan)
	}
	return w.Watcher.Watch(ctx, key, opts...)
}

// A machine's leases come in the order in which they were made, whoever renewed
// which. One that was over is made anew, also by a server that has not seen that.
func TestOrderOfLeases(t *testing.T) {
	etcd := etcdtest.Start(t, 1)
	gate := &gated{Watcher: etcd.Client(t).Watcher}
	client := etcd.Client(t)
	client.Watcher = gate
	a, b := openStore(t, client, Options{Name: "a", MaxAge: -1}), openStore(t, etcd.Client(t), Options{Name: "b"})
	ctx := t.Context()
	owner := string(mac(1))
	order := func(s *Store) (list []string) {
		leases, err := s.LeasesByOwner(ctx, owner)
		require.NoError(t, err)
		for _, l := range leases {
			list = append(list, fmt.Sprint(l.Addr.As4()[3], l.Active(time.Now())))
		}
		return list
	}
	require.NoError(t, b.Commit(ctx, leaseFor(2, 1, time.Hour)))
	require.NoError(t, a.Commit(ctx, leaseFor(1, 1, time.Hour)))
	require.Equal(t, []string{"2 true", "1 true"}, order(a), "all that was done before is seen without Sync")
	require.NoError(t, a.Commit(ctx, leaseFor(2, 1, time.Hour)))
	require.NoError(t, b.Sync(ctx))
	require.NoError(t, b.Commit(ctx, leaseFor(2, 1, time.Hour)))
	require.NoError(t, a.Sync(ctx))
	require.Equal(t, []string{"2 true", "1 true"}, order(a))
	require.Equal(t, []string{"2 true", "1 true"}, order(b))
	require.NoError(t, b.Commit(ctx, leaseFor(3, 1, 0)))
	require.NoError(t, a.Sync(ctx))

	e := func() entry {
		a.mu.RLock()
		defer a.mu.RUnlock()
		return a.cache.at(dhcptest.Addr(2), nil)
	}
	gate.shut(t)
	_, err := etcd.Client(t).Revoke(ctx, clientv3.LeaseID(e().grants[len(e().grants)-1].Term)) // as when its time is over
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- a.Commit(ctx, leaseFor(2, 1, time.Hour)) }()
	select {
	case err := <-done:
		require.Fail(t, "the store did not wait until it saw what others did", "%v", err)
	case <-time.After(200 * time.Millisecond):
	}
	gate.open()
	require.NoError(t, <-done)
	require.Equal(t, []string{"1 true", "3 false", "2 true"}, order(a))
}

// A lease that was made before it was seen whether there was an earlier one is
// renewed only when that is known: nobody else has looked meanwhile.
func TestRenewalOfUnseen(t *testing.T) {
	etcd := etcdtest.Start(t, 1)
	gate := &gated{Watcher: etcd.Client(t).Watcher}
	client := etcd.Client(t)
	client.Watcher = gate
	a, b := openStore(t, client, Options{Name: "a", MaxAge: -1, Timeout: time.Minute}), openStore(t, etcd.Client(t), Options{Name: "b"})
	ctx := t.Context()
	gate.shut(t)
	require.NoError(t, b.Commit(ctx, leaseFor(2, 1, time.Hour)))
	done := make(chan error, 2)
	for range 2 {
		go func() { done <- a.Commit(ctx, leaseFor(1, 1, time.Hour)) }()
		require.Eventually(t, func() bool {
			a.mu.RLock()
			defer a.mu.RUnlock()
			return a.cache.leaseMod(dhcptest.Addr(1)) != 0
		}, time.Minute, 10*time.Millisecond)
	}
	select {
	case err := <-done:
		require.Fail(t, "the store did not wait until it saw what others did", "%v", err)
	case <-time.After(200 * time.Millisecond):
	}
	gate.open()
	require.NoError(t, <-done)
	leases, err := a.LeasesByOwner(ctx, string(mac(1)))
	require.NoError(t, err)
	require.Len(t, leases, 2)
	require.Equal(t, dhcptest.Addr(2), leases[0].Addr)
	require.NoError(t, <-done)
}

// gated is a Watcher that brings nothing while it is shut.
type gated struct {
	clientv3.Watcher
	mu   sync.RWMutex
	open func()
}

func (g *gated) shut(t *testing.T) {
	g.mu.Lock()
	g.open = sync.OnceFunc(g.mu.Unlock)
	t.Cleanup(g.open)
}

func (g *gated) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	from, to := g.Watcher.Watch(ctx, key, opts...), make(chan clientv3.WatchResponse)
	go func() {
		defer close(to)
		for r := range from {
			g.mu.RLock()
			select {
			case to <- r:
			case <-ctx.Done():
			}
			g.mu.RUnlock()
		}
	}()
	return to
}

// A watch that has fallen silent while etcd takes what is written is begun anew.
func TestSilentWatch(t *testing.T) {
	client := etcdtest.Start(t, 1).Client(t)
	w := &silent{Watcher: client.Watcher}
	client.Watcher = w
	s := openStore(t, client, Options{Name: "one", Timeout: 500 * time.Millisecond})
	require.EqualValues(t, 2, w.watches.Load())
	require.NoError(t, s.Commit(t.Context(), leaseFor(1, 1, time.Hour)))
}
