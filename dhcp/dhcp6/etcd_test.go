package dhcp6

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/etcdstore"
	"github.com/seed-3ec230fa/diskless/internal/etcdtest"
)

// Two servers with their leases in etcd, and many machines that ask both of
// them at the same time for the few addresses there are: each has one, whichever
// it takes it of, and the other server knows it.
func TestServersOnEtcd(t *testing.T) {
	etcd := etcdtest.Start(t, 1)
	var pools [2]*Pool
	for i, name := range []string{"a", "b"} {
		store, err := etcdstore.Open(etcd.Client(t), &etcdstore.Options{Name: name, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		t.Cleanup(func() { store.Close() })
		require.Eventually(t, func() bool { return store.Sync(context.Background()) == nil }, time.Minute, 10*time.Millisecond)
		pools[i] = testPool(func(p *Pool) {
			p.Store = store
			p.Ranges = []dhcp.Range{{First: ip("fd00::100"), Last: ip("fd00::13f")}}
		})
	}
	// A server that cannot reach etcd keeps silent, and the client asks again.
	answer := func(p *Pool, r *Request) (addr string) {
		for range 1000 {
			reply, err := p.ServeDHCP(t.Context(), r)
			if err == nil {
				if addrs, _ := granted(reply); len(addrs) == 1 {
					return addrs[0]
				}
				return ""
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Error("etcd is away for good")
		return ""
	}
	const machines = 48
	var wg sync.WaitGroup
	got := make([]string, machines)
	for i := range machines {
		wg.Go(func() {
			hw := net.HardwareAddr{2, 0, 0, 0, 7, byte(i)}
			var told [2]string
			for j, p := range pools {
				told[j] = answer(p, message(solicit, hw, uefi, withIA()))
			}
			chosen := i % 2
			if told[chosen] != "" {
				got[i] = answer(pools[chosen], message(request, hw, uefi, to(self), withIA(told[chosen])))
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for i, addr := range got {
		hw := net.HardwareAddr{2, 0, 0, 0, 7, byte(i)}
		require.NotEmpty(t, addr, "machine %d", i)
		require.False(t, seen[addr], "%s is given twice", addr)
		seen[addr] = true
		for _, p := range pools {
			l, err := p.LeaseByAddr(t.Context(), ip(addr))
			require.NoError(t, err)
			require.Equal(t, hw, l.HardwareAddr)
		}
		require.Equal(t, addr, answer(pools[(i+1)%2], message(rebind, hw, uefi, withIA(addr))))
	}
}
