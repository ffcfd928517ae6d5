package dhcp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"
)

// On a link with several subnets each message goes to the pool that its address
// is of, wherever that is in the message.
func TestSharedNetworkMessages(t *testing.T) {
	first := testPool(func(p *Pool) {
		p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.100")}}
		p.KnownOnly, p.Reservations = true, []Reservation{{HardwareAddr: macA}}
	})
	second := testPool(func(p *Pool) {
		p.Prefix, p.Router = netip.MustParsePrefix("10.1.0.0/24"), ip("10.1.0.254")
		p.Ranges = []Range{{ip("10.1.0.100"), ip("10.1.0.101")}}
	})
	n := &SharedNetwork{Pools: []*Pool{first, second}}
	holds := func(p *Pool, addr string) bool {
		_, err := p.LeaseByAddr(t.Context(), ip(addr))
		return err == nil
	}
	require.Equal(t, ip("10.0.0.100"), dora(t, n, macA, bareSystem))
	b := dora(t, n, macB, bareSystem)
	require.True(t, second.Prefix.Contains(b), "the first is not for it")

	renew := on(message(request, macB, bareSystem, ciaddr(b.String())))
	renew.Peer = netip.AddrPortFrom(b, clientPort)
	kind, ack := serve(t, n, renew)
	require.Equal(t, acked, kind)
	require.Equal(t, "10.1.0.254", ack.Router()[0].String())
	require.Equal(t, b, toAddr(ack.ClientIPAddr), "as in table 3 of RFC 2131")

	kind, _ = serve(t, n, on(message(dhcpv4.MessageTypeInform, macC, bareSystem, ciaddr("10.1.0.7"))))
	require.Equal(t, acked, kind)
	kind, _ = serve(t, n, on(message(dhcpv4.MessageTypeInform, macC, bareSystem, ciaddr("10.2.0.7"))))
	require.Equal(t, silence, kind, "in neither")
	kind, _ = serve(t, n, on(message(request, macB, bareSystem, requested("10.0.0.100"))))
	require.Equal(t, naked, kind, "another's")

	// One that asks for an address of the second gets that, though the first has room.
	kind, offer := serve(t, n, on(message(discover, macA, bareSystem, requested("10.1.0.101"))))
	require.Equal(t, offered, kind)
	require.Equal(t, "10.0.0.100", offer.YourIPAddr.String(), "what it has goes before what it asks for")

	release := on(message(dhcpv4.MessageTypeRelease, macB, bareSystem, ciaddr(b.String()), serverID("10.0.0.1")))
	release.Peer = netip.AddrPortFrom(b, clientPort)
	serve(t, n, release)
	require.False(t, holds(second, b.String()))
	require.True(t, holds(first, "10.0.0.100"))
	serve(t, n, on(message(dhcpv4.MessageTypeDecline, macA, bareSystem, requested("10.0.0.100"), serverID("10.0.0.1"))))
	l, err := first.store.LeaseByAddr(t.Context(), ip("10.0.0.100"))
	require.NoError(t, err)
	require.True(t, l.Declined)

	known := &SharedNetwork{Pools: []*Pool{testPool(func(p *Pool) { p.KnownOnly = true })}}
	kind, _ = serve(t, known, on(message(discover, macB, bareSystem)))
	require.Equal(t, silence, kind)
	bad := &SharedNetwork{Pools: []*Pool{testPool(), testPool(func(p *Pool) { p.Prefix = netip.Prefix{} })}}
	_, err = bad.ServeDHCP(t.Context(), on(message(discover, macB, bareSystem)))
	require.ErrorContains(t, err, "Prefix")

	// What it had goes before what it asks for, too.
	had := testPool(func(p *Pool) { p.Ranges, p.Store = first.Ranges, new(MemoryStore) })
	require.NoError(t, had.Store.Commit(t.Context(), Lease{Addr: ip("10.0.0.100"), HardwareAddr: macC, Expires: time.Now().Add(-time.Hour)}))
	_, offer = serve(t, &SharedNetwork{Pools: []*Pool{second, had}}, on(message(discover, macC, bareSystem, requested("10.1.0.101"))))
	require.Equal(t, "10.0.0.100", offer.YourIPAddr.String())

	// A new machine gets the subnet that it asks for.
	open := testPool(func(p *Pool) { p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.109")}} })
	both := &SharedNetwork{Pools: []*Pool{open, second}}
	_, offer = serve(t, both, on(message(discover, net.HardwareAddr{2, 9, 9, 9, 9, 9}, bareSystem, requested("10.1.0.101"))))
	require.Equal(t, "10.1.0.101", offer.YourIPAddr.String())
}

// A machine that gets an address of its own gives up the one that it had.
func TestPoolMovesMachine(t *testing.T) {
	store := new(MemoryStore)
	before := testPool(func(p *Pool) {
		p.Store = store
		p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.100")}}
	})
	require.Equal(t, ip("10.0.0.100"), dora(t, before, macA, BIOSFirmware()))
	after := testPool(func(p *Pool) {
		p.Store, p.Ranges = store, before.Ranges
		p.Reservations = []Reservation{{HardwareAddr: macA, Addr: ip("10.0.0.10")}}
	})
	kind, _ := serve(t, after, on(message(discover, macB, bareSystem)))
	require.Equal(t, silence, kind, "nothing is free, which is remembered")
	require.Equal(t, ip("10.0.0.10"), dora(t, after, macA, bareSystem))
	require.Equal(t, ip("10.0.0.100"), dora(t, after, macB, bareSystem), "at once")
	l, err := after.LeaseByAddr(t.Context(), ip("10.0.0.10"))
	require.NoError(t, err)
	require.Equal(t, uuidText, l.UUID, "what its firmware told stays known")
	require.Len(t, l.Archs, 1)
}

// plainStore is a store of somebody else's, with nothing but the interface.
type plainStore struct{ LeaseStore }

func TestPoolPlainStore(t *testing.T) {
	p := testPool(func(p *Pool) { p.Store = plainStore{new(MemoryStore)} })
	given := map[netip.Addr]bool{}
	for i := range byte(4) {
		given[dora(t, p, append(macA[:5:5], 0x20+i), bareSystem)] = true
	}
	require.Len(t, given, 4)
	kind, _ := serve(t, p, on(message(discover, macB, bareSystem)))
	require.Equal(t, silence, kind)
	l, err := p.LeaseByAddr(t.Context(), ip("10.0.0.102"))
	require.NoError(t, err)
	require.NoError(t, p.store.Release(t.Context(), l.Addr, l.Owner()))
	p.search.freed()
	require.Equal(t, ip("10.0.0.102"), dora(t, p, macB, bareSystem))
}

// Where all addresses were used, those go first that were given back longest ago:
// a machine that returns finds its own as long as possible.
func TestPoolOldestFirst(t *testing.T) {
	hours := map[string]time.Duration{"10.0.0.100": 2, "10.0.0.101": 4, "10.0.0.102": 1, "10.0.0.103": 3}
	p := testPool(func(p *Pool) { p.Store = new(MemoryStore) })
	n := byte(0)
	for addr, ago := range hours {
		n++
		l := Lease{Addr: ip(addr), HardwareAddr: net.HardwareAddr{6, 0, 0, 0, 0, n}, Expires: time.Now().Add(-ago * time.Hour)}
		require.NoError(t, p.Store.Commit(t.Context(), l))
	}
	for i, want := range []string{"10.0.0.101", "10.0.0.103", "10.0.0.100", "10.0.0.102"} {
		require.Equal(t, ip(want), dora(t, p, net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}, bareSystem))
	}
}
