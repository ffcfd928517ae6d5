//go:build unix

package etcdstore

import (
	"context"
	"net/netip"
	"slices"
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

// The same where it is of another subnet of the link.
func TestOfferBehindOnSharedNetwork(t *testing.T) {
	etcd := etcdtest.Start(t, 1)
	a, b := openStore(t, etcd.Client(t), Options{Name: "a"}), openStore(t, etcd.Client(t), Options{Name: "b"})
	ctx := t.Context()
	store := &behind{Store: a, lease: leaseFor(1, 1, -time.Hour)}
	pool := func(net byte) *dhcp.Pool {
		at := func(n byte) netip.Addr { a := dhcptest.Addr(n).As4(); a[2] += net; return netip.AddrFrom4(a) }
		return &dhcp.Pool{Prefix: netip.PrefixFrom(at(0), 24), Ranges: []dhcp.Range{{First: at(1), Last: at(9)}}, ServerID: dhcptest.Addr(200), Store: store}
	}
	link := &dhcp.SharedNetwork{Pools: []*dhcp.Pool{pool(0), pool(1)}}
	other := leaseFor(1, 1, time.Hour)
	other.Addr = link.Pools[1].Ranges[0].Last
	require.NoError(t, b.Commit(ctx, other))
	m, err := dhcpv4.NewDiscovery(mac(1))
	require.NoError(t, err)
	offer, err := link.ServeDHCP(ctx, &dhcp.Request{DHCPv4: m, Local: netip.AddrPortFrom(dhcptest.Addr(200), 67)})
	require.NoError(t, err)
	require.NotNil(t, offer)
	require.Equal(t, other.Addr.String(), offer.YourIPAddr.String())
}

// Two servers give a machine an address each at the same time: the one that was
// later takes its own back, and the machine keeps the earlier one, to all of them.
func TestTwoAtOnce(t *testing.T) {
	etcd := etcdtest.Start(t, 1)
	gate := &gated{Watcher: etcd.Client(t).Watcher}
	client := etcd.Client(t)
	client.Watcher = gate
	a, b := openStore(t, client, Options{Name: "a", MaxAge: -1}), openStore(t, etcd.Client(t), Options{Name: "b"})
	ctx := t.Context()
	pool := func(s *Store) *dhcp.Pool {
		return &dhcp.Pool{
			Prefix: netip.PrefixFrom(dhcptest.Addr(0), 24), Ranges: []dhcp.Range{{First: dhcptest.Addr(1), Last: dhcptest.Addr(9)}},
			ServerID: dhcptest.Addr(200), Store: s,
		}
	}
	here, there := pool(a), pool(b)
	ask := func(p *dhcp.Pool, m *dhcpv4.DHCPv4, err error) (*dhcpv4.DHCPv4, error) {
		require.NoError(t, err)
		return p.ServeDHCP(ctx, &dhcp.Request{DHCPv4: m, Local: netip.AddrPortFrom(dhcptest.Addr(200), 67)})
	}
	m, err := dhcpv4.NewDiscovery(mac(1))
	offer, err := ask(here, m, err)
	require.NoError(t, err)
	late := offer.YourIPAddr.String()
	other := leaseFor(8, 1, time.Hour)
	require.NotEqual(t, other.Addr.String(), late)

	gate.shut(t) // so that a does not see what b does
	require.NoError(t, b.Commit(ctx, other))
	type answer struct {
		m   *dhcpv4.DHCPv4
		err error
	}
	done := make(chan answer, 1)
	m, err = dhcpv4.NewRequestFromOffer(offer)
	go func() {
		m, err := ask(here, m, err)
		done <- answer{m, err}
	}()
	require.Eventually(t, func() bool {
		if b.Sync(ctx) != nil {
			return false
		}
		leases, err := b.LeasesByOwner(ctx, string(mac(1)))
		return err == nil && len(leases) == 2 && leases[1].Addr.String() == late && leases[1].Active(time.Now())
	}, time.Minute, 10*time.Millisecond, "a makes its lease all the same")
	m, err = dhcpv4.NewDiscovery(mac(1))
	offer, err = ask(there, m, err)
	require.NoError(t, err)
	require.Equal(t, other.Addr.String(), offer.YourIPAddr.String(), "the lease made first counts, though the other ends later")

	gate.open()
	got := <-done
	require.ErrorIs(t, got.err, dhcp.ErrDrop)
	require.Nil(t, got.m)
	require.NoError(t, b.Sync(ctx))
	leases, err := b.LeasesByOwner(ctx, string(mac(1)))
	require.NoError(t, err)
	require.False(t, leases[1].Active(time.Now()), "a took its own back")

	// A machine that remembers that address is told to ask anew.
	m, err = dhcpv4.NewDiscovery(mac(1), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(leases[1].Addr.AsSlice())))
	nak, err := ask(here, m, err)
	require.NoError(t, err)
	require.Equal(t, dhcpv4.MessageTypeNak, nak.MessageType())
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
	leases = slices.DeleteFunc(leases, func(l dhcp.Lease) bool { return !l.Active(time.Now()) })
	require.Len(t, leases, 1)
	require.Equal(t, other.Addr, leases[0].Addr)
	require.NoError(t, b.Release(ctx, other.Addr, string(mac(1))))
	reply, err = ask(m)
	require.NoError(t, err)
	require.Equal(t, dhcpv4.MessageTypeAck, reply.MessageType())
}

// A machine that renews runs on the address: it keeps that, also where it has an
// earlier lease, as from a server that did not look for one.
func TestRenewalOfLater(t *testing.T) {
	etcd := etcdtest.Start(t, 1)
	a, b := openStore(t, etcd.Client(t), Options{Name: "a"}), openStore(t, etcd.Client(t), Options{Name: "b"})
	ctx := t.Context()
	pool := &dhcp.Pool{
		Prefix: netip.PrefixFrom(dhcptest.Addr(0), 24), Ranges: []dhcp.Range{{First: dhcptest.Addr(1), Last: dhcptest.Addr(9)}},
		ServerID: dhcptest.Addr(200), Store: a,
	}
	require.NoError(t, b.Commit(ctx, leaseFor(8, 1, time.Hour)))
	later := leaseFor(1, 1, time.Hour)
	require.NoError(t, a.Commit(ctx, later))
	for _, peer := range []netip.Addr{later.Addr, {}} { // RENEWING, REBINDING
		m, err := dhcpv4.NewDiscovery(mac(1), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(later.Addr.AsSlice()))
		require.NoError(t, err)
		reply, err := pool.ServeDHCP(ctx, &dhcp.Request{DHCPv4: m, Local: netip.AddrPortFrom(dhcptest.Addr(200), 67), Peer: netip.AddrPortFrom(peer, 68)})
		require.NoError(t, err)
		require.Equal(t, dhcpv4.MessageTypeAck, reply.MessageType())
		require.Equal(t, later.Addr.String(), reply.YourIPAddr.String())
		l, err := a.LeaseByAddr(ctx, later.Addr)
		require.NoError(t, err)
		require.True(t, l.Active(time.Now()), "nobody else may get it")
	}
}

// The same where what it got elsewhere is the address reserved for it, in this
// subnet or in another one of the link.
func TestRequestTooLateForReservation(t *testing.T) {
	etcd := etcdtest.Start(t, 1)
	a, b := openStore(t, etcd.Client(t), Options{Name: "a"}), openStore(t, etcd.Client(t), Options{Name: "b"})
	ctx := t.Context()
	for n, net := range []byte{0, 1} {
		at := func(net, n byte) netip.Addr { a := dhcptest.Addr(n).As4(); a[2] += net; return netip.AddrFrom4(a) }
		hw := byte(10 + n)
		reserved := leaseFor(0, hw, time.Hour)
		reserved.Addr = at(net, 100+hw)
		link := &dhcp.SharedNetwork{}
		for i := range byte(2) {
			p := &dhcp.Pool{Prefix: netip.PrefixFrom(at(i, 0), 24), ServerID: dhcptest.Addr(200), Store: a}
			if i == 0 {
				p.Ranges = []dhcp.Range{{First: at(0, 1), Last: at(0, 9)}}
			}
			if i == net {
				p.Reservations = []dhcp.Reservation{{HardwareAddr: mac(hw), Addr: reserved.Addr}}
			}
			link.Pools = append(link.Pools, p)
		}
		ask := func(m *dhcpv4.DHCPv4, err error) (*dhcpv4.DHCPv4, error) {
			require.NoError(t, err)
			return link.ServeDHCP(ctx, &dhcp.Request{DHCPv4: m, Local: netip.AddrPortFrom(dhcptest.Addr(200), 67)})
		}
		other := reserved
		other.HardwareAddr = mac(99)
		require.NoError(t, b.Commit(ctx, other))
		require.NoError(t, a.Sync(ctx))
		offer, err := ask(dhcpv4.NewDiscovery(mac(hw)))
		require.NoError(t, err)
		require.NotEqual(t, reserved.Addr.String(), offer.YourIPAddr.String())
		require.NoError(t, b.Release(ctx, other.Addr, other.Owner()))
		require.NoError(t, b.Commit(ctx, reserved))

		reply, err := ask(dhcpv4.NewRequestFromOffer(offer))
		require.ErrorIs(t, err, dhcp.ErrDrop)
		require.Nil(t, reply)
		offer, err = ask(dhcpv4.NewDiscovery(mac(hw)))
		require.NoError(t, err)
		require.Equal(t, reserved.Addr.String(), offer.YourIPAddr.String())
	}
}
