//go:build unix

package etcdstore

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcptest"
	"github.com/seed-3ec230fa/diskless/internal/etcdtest"
	"github.com/stretchr/testify/require"
)

// behind is a store that the watch has not told what became of one lease,
// until it is asked to catch up.
type behind struct {
	*Store
	lease  dhcp.Lease
	synced bool
}

func (b *behind) LeasesByOwner(ctx context.Context, owner string) ([]dhcp.Lease, error) {
	if !b.synced {
		return []dhcp.Lease{b.lease}, nil
	}
	return b.Store.LeasesByOwner(ctx, owner)
}

func (b *behind) Hold(ctx context.Context, addr netip.Addr, owner string, d time.Duration) error {
	err := b.Store.Hold(ctx, addr, owner, d)
	if err != nil {
		b.lease.Addr = dhcptest.Addr(3) // another one that it had
	}
	return err
}

func (b *behind) Sync(ctx context.Context) error {
	b.synced = true
	return b.Store.Sync(ctx)
}

// A machine that has an address from one server since a moment is offered that
// by another, which knows only of those that the machine had before.
func TestOfferBehind(t *testing.T) {
	etcd := etcdtest.Start(t, 1)
	a, b := openStore(t, etcd.Client(t), Options{Name: "a"}), openStore(t, etcd.Client(t), Options{Name: "b"})
	ctx := t.Context()
	require.NoError(t, b.Commit(ctx, leaseFor(1, 9, time.Hour)))
	require.NoError(t, b.Commit(ctx, leaseFor(2, 1, time.Hour)))
	for name, left := range map[string]time.Duration{"expired": -time.Hour, "active": time.Hour} {
		t.Run(name, func(t *testing.T) {
			pool := &dhcp.Pool{
				Prefix: netip.PrefixFrom(dhcptest.Addr(0), 24), Ranges: []dhcp.Range{{First: dhcptest.Addr(1), Last: dhcptest.Addr(9)}},
				ServerID: dhcptest.Addr(200), Store: &behind{Store: a, lease: leaseFor(1, 1, left)},
			}
			m, err := dhcpv4.NewDiscovery(mac(1))
			require.NoError(t, err)
			offer, err := pool.ServeDHCP(ctx, &dhcp.Request{DHCPv4: m, Local: netip.AddrPortFrom(dhcptest.Addr(200), 67)})
			require.NoError(t, err)
			require.NotNil(t, offer)
			require.Equal(t, dhcptest.Addr(2).String(), offer.YourIPAddr.String())
		})
	}
}

// A REQUEST that waited in a server that had stopped, while the machine got
// its address elsewhere, moves it nowhere.
func TestRequestTooLate(t *testing.T) {
	etcd := etcdtest.Start(t, 1)
	a, b := openStore(t, etcd.Client(t), Options{Name: "a"}), openStore(t, etcd.Client(t), Options{Name: "b"})
	ctx := t.Context()
	pool := &dhcp.Pool{
		Prefix: netip.PrefixFrom(dhcptest.Addr(0), 24), Ranges: []dhcp.Range{{First: dhcptest.Addr(1), Last: dhcptest.Addr(9)}},
		ServerID: dhcptest.Addr(200), Store: a,
	}
	ask := func(m *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
		return pool.ServeDHCP(ctx, &dhcp.Request{DHCPv4: m, Local: netip.AddrPortFrom(dhcptest.Addr(200), 67)})
	}
	m, err := dhcpv4.NewDiscovery(mac(1))
	require.NoError(t, err)
	offer, err := ask(m)
	require.NoError(t, err)
	m, err = dhcpv4.NewRequestFromOffer(offer)
	require.NoError(t, err)
	other := leaseFor(8, 1, time.Hour)
	require.NotEqual(t, other.Addr.String(), offer.YourIPAddr.String())
	require.NoError(t, b.Commit(ctx, other))

	reply, err := ask(m)
	require.ErrorIs(t, err, dhcp.ErrDrop)
	require.Nil(t, reply)
	leases, err := a.LeasesByOwner(ctx, string(mac(1)))
	require.NoError(t, err)
	require.Len(t, leases, 1)
	require.NoError(t, b.Release(ctx, other.Addr, string(mac(1))))
	reply, err = ask(m)
	require.NoError(t, err)
	require.Equal(t, dhcpv4.MessageTypeAck, reply.MessageType())
}
