package dhcp_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcptest"
	"github.com/stretchr/testify/require"
)

func TestMemoryStore(t *testing.T) {
	dhcptest.TestLeaseStore(t, func(*testing.T) dhcp.LeaseStore { return new(dhcp.MemoryStore) })
}

func TestMemoryStoreBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := &dhcp.MemoryStore{MaxLeases: 10}
		commit := func(n byte, d time.Duration) error {
			return s.Commit(ctx, dhcp.Lease{Addr: dhcptest.Addr(n), HardwareAddr: dhcptest.HardwareAddr(n), Expires: time.Now().Add(d)})
		}
		for n := range byte(10) {
			require.NoError(t, commit(n, time.Duration(n+1)*time.Minute))
		}
		require.ErrorIs(t, commit(10, time.Hour), syscall.ENOSPC)
		require.ErrorIs(t, s.Decline(ctx, dhcptest.Addr(10), string(dhcptest.HardwareAddr(10)), time.Now().Add(time.Hour)), syscall.ENOSPC)
		require.NoError(t, commit(3, 4*time.Minute), "a renewal needs no room")

		time.Sleep(4 * time.Minute) // 0, 1, 2, 3 have expired
		require.NoError(t, commit(10, time.Hour))
		for n := range byte(11) {
			_, err := s.LeaseByAddr(ctx, dhcptest.Addr(n))
			require.Equal(t, n > 1, err == nil, "the first to expire are the first to go: %d", n)
		}
		leases, err := s.LeasesByOwner(ctx, string(dhcptest.HardwareAddr(0)))
		require.NoError(t, err)
		require.Empty(t, leases)
	})
	synctest.Test(t, func(t *testing.T) { // one at a time
		s := &dhcp.MemoryStore{MaxLeases: 1}
		for n := range byte(3) {
			require.NoError(t, s.Commit(t.Context(), dhcp.Lease{Addr: dhcptest.Addr(n), HardwareAddr: dhcptest.HardwareAddr(n), Expires: time.Now().Add(time.Minute)}))
			time.Sleep(time.Minute)
			known := 0
			for range s.Leases(t.Context()) {
				known++
			}
			require.Equal(t, 1, known)
		}
	})
}

func TestMemoryStoreLeasesStops(t *testing.T) {
	s := new(dhcp.MemoryStore)
	for n := range byte(3) {
		require.NoError(t, s.Commit(t.Context(), dhcp.Lease{Addr: dhcptest.Addr(n), HardwareAddr: dhcptest.HardwareAddr(n)}))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seen int
	var last error
	for _, err := range s.Leases(ctx) {
		seen++
		last = err
		cancel()
	}
	require.Equal(t, 2, seen)
	require.ErrorIs(t, last, context.Canceled)
}

func ExampleMemoryStore() {
	store := &dhcp.MemoryStore{MaxLeases: 1000}
	err := store.Commit(context.Background(), dhcp.Lease{Addr: dhcptest.Addr(1), HardwareAddr: dhcptest.HardwareAddr(1)})
	if err != nil {
		panic(err)
	}
	for lease, err := range store.Leases(context.Background()) {
		fmt.Println(lease.Addr, lease.HardwareAddr, err)
	}
	// Output: 198.51.100.1 02:00:00:00:00:01 <nil>
}
