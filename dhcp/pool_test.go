package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp/internal/limit"
)

const (
	discover = dhcpv4.MessageTypeDiscover
	request  = dhcpv4.MessageTypeRequest
	offered  = dhcpv4.MessageTypeOffer
	acked    = dhcpv4.MessageTypeAck
	naked    = dhcpv4.MessageTypeNak
	silence  = dhcpv4.MessageTypeNone
)

// serve asks h and returns the type of its answer and the answer.
func serve(t testing.TB, h Handler, r *Request) (dhcpv4.MessageType, *dhcpv4.DHCPv4) {
	t.Helper()
	reply, err := h.ServeDHCP(context.Background(), r)
	if err != nil {
		require.ErrorIs(t, err, ErrDrop)
	}
	if reply == nil {
		return silence, nil
	}
	return reply.MessageType(), reply
}

func TestPoolReply(t *testing.T) {
	p := testPool(func(p *Pool) {
		p.Reservations = []Reservation{{HardwareAddr: macA, Addr: ip("10.0.0.10"), Hostname: "node-01"}}
	})
	kind, offer := serve(t, p, on(message(discover, macA, BIOSFirmware())))
	require.Equal(t, offered, kind)
	require.Equal(t, "10.0.0.10", offer.YourIPAddr.String())
	require.Equal(t, "10.0.0.1", offer.ServerIdentifier().String())
	require.Equal(t, net.CIDRMask(24, 32), offer.SubnetMask())
	require.Equal(t, "10.0.0.255", offer.BroadcastAddress().String())
	require.Equal(t, "10.0.0.254", offer.Router()[0].String())
	require.Len(t, offer.DNS(), 2)
	require.Equal(t, "10.0.0.3", offer.DNS()[1].String())
	require.Equal(t, "lab.example", offer.DomainName())
	require.Equal(t, "node-01", offer.HostName())
	require.Equal(t, 12*time.Hour, offer.IPAddressLeaseTime(0))
	require.Empty(t, offer.BootFileName)

	_, err := p.LeaseByAddr(t.Context(), ip("10.0.0.10"))
	require.ErrorIs(t, err, fs.ErrNotExist, "an offer is no lease")
	require.Equal(t, "10.0.0.10", dora(t, p, macA, BIOSFirmware()).String())

	l, err := p.LeaseByAddr(t.Context(), ip("10.0.0.10"))
	require.NoError(t, err)
	require.Equal(t, macA, l.HardwareAddr)
	require.Equal(t, "node-01", l.Hostname)
	require.Equal(t, uuidText, l.UUID)
	require.Equal(t, iana.Archs{iana.INTEL_X86PC}, l.Archs)
	l, err = p.LeaseByAddr(t.Context(), ip("::ffff:10.0.0.10")) // as a dual-stack socket names the peer
	require.NoError(t, err)
	require.Equal(t, ip("10.0.0.10"), l.Addr)
	l, err = p.LeaseByHardwareAddr(t.Context(), macA)
	require.NoError(t, err)
	require.Equal(t, ip("10.0.0.10"), l.Addr)
	for _, other := range []string{"10.0.0.11", "10.0.1.10", "2001:db8::1"} {
		_, err = p.LeaseByAddr(t.Context(), ip(other))
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	_, err = p.LeaseByHardwareAddr(t.Context(), macB)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// One boot is four clients: they get one address, and what the firmware told
// is still known when the system has asked.
func TestPoolOneAddressFromROMToSystem(t *testing.T) {
	p := testPool()
	system := Firmware{Params: []byte{1, 3, 6}}
	addr := dora(t, p, macA, UEFIFirmware(iana.EFI_X86_64))
	require.Equal(t, addr, dora(t, p, macA, IPXEFirmware(iana.EFI_X86_64)))
	require.Equal(t, addr, dora(t, p, macA, InitramfsFirmware()))
	kind, reply := serve(t, p, on(message(discover, macA, system, option(61, 255, 1, 2, 3, 4, 0, 2), option(12, []byte("n1")...))))
	require.Equal(t, offered, kind)
	require.Equal(t, addr, toAddr(reply.YourIPAddr))
	kind, _ = serve(t, p, on(message(request, macA, system, option(61, 255, 1, 2, 3, 4, 0, 2), option(12, []byte("n1")...),
		requested(addr.String()), serverID("10.0.0.1"))))
	require.Equal(t, acked, kind)

	l, err := p.LeaseByHardwareAddr(t.Context(), macA)
	require.NoError(t, err)
	require.Equal(t, uuidText, l.UUID)
	require.Equal(t, iana.Archs{iana.EFI_X86_64}, l.Archs)
	require.Equal(t, []byte{255, 1, 2, 3, 4, 0, 2}, l.ClientID)
	require.Equal(t, "n1", l.ClientHostname)
	require.Empty(t, l.Hostname, "a claim is no name")
	n := 0
	for _, err := range p.store.Leases(t.Context()) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, 1, n)
}

// The choice depends on the hardware address, not on who came first, so that a
// restart with an empty store changes nothing.
func TestPoolSameAddressAfterRestart(t *testing.T) {
	wide := func(p *Pool) { p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.199")}} }
	before, after := testPool(wide), testPool(wide)
	a, b := dora(t, before, macA, bareSystem), dora(t, before, macB, bareSystem)
	require.NotEqual(t, a, b)
	require.Equal(t, b, dora(t, after, macB, bareSystem))
	require.Equal(t, a, dora(t, after, macA, bareSystem))
}

func TestPoolMessagePaths(t *testing.T) {
	known := func(p *Pool) {
		p.Reservations = []Reservation{{HardwareAddr: macC, Addr: ip("10.0.0.10")}}
	}
	leased := func(t *testing.T, p *Pool) { // macA has .101
		require.NoError(t, p.Validate())
		require.NoError(t, p.store.Commit(t.Context(), Lease{Addr: ip("10.0.0.101"), HardwareAddr: macA, Expires: time.Now().Add(time.Hour)}))
	}
	for _, test := range []struct {
		name   string
		change func(*Pool)
		before func(*testing.T, *Pool)
		m      *dhcpv4.DHCPv4
		want   dhcpv4.MessageType
		addr   string
	}{
		{name: "DISCOVER that asks for a free address", m: message(discover, macA, bareSystem, requested("10.0.0.102")), want: offered, addr: "10.0.0.102"},
		{name: "DISCOVER that asks for a leased address", before: leased, m: message(discover, macB, bareSystem, requested("10.0.0.101")), want: offered},
		{name: "DISCOVER that asks for an address outside of the ranges", m: message(discover, macA, bareSystem, requested("10.0.0.50")), want: offered},
		{name: "DISCOVER that asks for the server's address", m: message(discover, macA, bareSystem, requested("10.0.0.1")), want: offered},
		{name: "DISCOVER of a lease's owner", before: leased, m: message(discover, macA, bareSystem, requested("10.0.0.103")), want: offered, addr: "10.0.0.101"},
		{name: "DISCOVER of a reserved machine", change: known, m: message(discover, macC, bareSystem, requested("10.0.0.102")), want: offered, addr: "10.0.0.10"},
		{name: "DISCOVER without a hardware address", m: message(discover, net.HardwareAddr{0, 0, 0, 0, 0, 0}, bareSystem), want: silence},
		{name: "DISCOVER through a relay of another subnet", m: message(discover, macA, bareSystem, relay("10.0.9.1")), want: silence},
		{name: "DISCOVER through a relay of the subnet", m: message(discover, macA, bareSystem, relay("10.0.0.77")), want: offered},

		{name: "SELECTING an address that was never offered, but is free", m: message(request, macA, bareSystem, requested("10.0.0.102"), serverID("10.0.0.1")), want: acked, addr: "10.0.0.102"},
		{name: "SELECTING another's", before: leased, m: message(request, macB, bareSystem, requested("10.0.0.101"), serverID("10.0.0.1")), want: naked},
		{name: "SELECTING one outside of the ranges", m: message(request, macB, bareSystem, requested("10.0.0.50"), serverID("10.0.0.1")), want: naked},
		{name: "SELECTING another server", m: message(request, macA, bareSystem, requested("10.0.0.102"), serverID("10.0.0.2")), want: silence},
		{name: "SELECTING with a malformed server", m: message(request, macA, bareSystem, requested("10.0.0.102"), option(54, 10, 0)), want: silence},
		{name: "REQUEST for nothing", m: message(request, macA, bareSystem), want: silence},
		{name: "REQUEST with a malformed address", m: message(request, macA, bareSystem, option(50, 10, 0, 0)), want: silence},

		{name: "INIT-REBOOT, own lease", before: leased, m: message(request, macA, bareSystem, requested("10.0.0.101")), want: acked, addr: "10.0.0.101"},
		{name: "INIT-REBOOT, unknown, free (the server forgot)", m: message(request, macA, bareSystem, requested("10.0.0.101")), want: acked, addr: "10.0.0.101"},
		{name: "INIT-REBOOT, another's", before: leased, m: message(request, macB, bareSystem, requested("10.0.0.101")), want: naked},
		{name: "INIT-REBOOT, wrong subnet", m: message(request, macA, bareSystem, requested("192.168.1.5")), want: naked},
		{name: "INIT-REBOOT, unknown, outside of the ranges", m: message(request, macA, bareSystem, requested("10.0.0.50")), want: naked},
		{name: "INIT-REBOOT, the router's address", m: message(request, macA, bareSystem, requested("10.0.0.254")), want: naked},
		{name: "INIT-REBOOT, the broadcast address", m: message(request, macA, bareSystem, requested("10.0.0.255")), want: naked},
		{name: "INIT-REBOOT, reserved, its own", change: known, m: message(request, macC, bareSystem, requested("10.0.0.10")), want: acked, addr: "10.0.0.10"},
		{name: "INIT-REBOOT, reserved, the one it had before", change: known, m: message(request, macC, bareSystem, requested("10.0.0.101")), want: naked},
		{name: "INIT-REBOOT, one reserved for another", change: known, m: message(request, macA, bareSystem, requested("10.0.0.10")), want: naked},
		{name: "INIT-REBOOT through a relay, wrong subnet", m: message(request, macA, bareSystem, requested("192.168.1.5"), relay("10.0.0.77")), want: naked},

		{name: "RENEWING", before: leased, m: message(request, macA, bareSystem, ciaddr("10.0.0.101")), want: acked, addr: "10.0.0.101"},
		{name: "RENEWING, another's", before: leased, m: message(request, macB, bareSystem, ciaddr("10.0.0.101")), want: naked},
		{name: "RENEWING, the server forgot", m: message(request, macA, bareSystem, ciaddr("10.0.0.101")), want: acked, addr: "10.0.0.101"},

		{name: "INFORM", m: message(dhcpv4.MessageTypeInform, macA, bareSystem, ciaddr("10.0.0.50")), want: acked},
		{name: "INFORM through a relay of another subnet", m: message(dhcpv4.MessageTypeInform, macA, bareSystem, ciaddr("10.0.0.50"), relay("10.9.0.1")), want: silence},
		{name: "INFORM from another subnet", m: message(dhcpv4.MessageTypeInform, macA, bareSystem, ciaddr("10.0.9.50")), want: silence},
		{name: "BOOTP", m: message(discover, macA, bareSystem, option(53)), want: silence},
		{name: "an OFFER", m: message(offered, macA, bareSystem), want: silence},

		{name: "unknown machine, known only", change: func(p *Pool) { p.KnownOnly = true }, m: message(discover, macA, bareSystem), want: silence},
		{name: "unknown machine, known only, INIT-REBOOT", change: func(p *Pool) { p.KnownOnly = true }, m: message(request, macA, bareSystem, requested("192.168.1.5")), want: silence},
		{name: "known machine without an address, known only", change: func(p *Pool) {
			p.KnownOnly, p.Reservations = true, []Reservation{{HardwareAddr: macA, Hostname: "n1"}}
		}, m: message(discover, macA, bareSystem, requested("10.0.0.103")), want: offered, addr: "10.0.0.103"},
		{name: "known machine, renewing a lease from before its reservation", before: leased, change: func(p *Pool) {
			p.Reservations = []Reservation{{HardwareAddr: macA, Addr: ip("10.0.0.10")}}
		}, m: message(request, macA, bareSystem, ciaddr("10.0.0.101")), want: acked, addr: "10.0.0.101"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := testPool()
			if test.change != nil {
				test.change(p)
			}
			if test.before != nil {
				test.before(t, p)
			}
			kind, reply := serve(t, p, on(test.m))
			require.Equal(t, test.want, kind)
			if test.addr != "" {
				require.Equal(t, test.addr, reply.YourIPAddr.String())
			}
			switch kind {
			case offered:
				require.True(t, p.inRanges(toAddr(reply.YourIPAddr)) || func() bool { _, ok := p.reserved[toAddr(reply.YourIPAddr)]; return ok }())
			case naked:
				require.Nil(t, reply.YourIPAddr)
				require.False(t, reply.Options.Has(dhcpv4.OptionIPAddressLeaseTime))
				require.Equal(t, "10.0.0.1", reply.ServerIdentifier().String())
			case acked:
				require.Equal(t, "10.0.0.1", reply.ServerIdentifier().String())
				if test.m.MessageType() == dhcpv4.MessageTypeInform {
					require.Nil(t, reply.YourIPAddr)
					require.False(t, reply.Options.Has(dhcpv4.OptionIPAddressLeaseTime))
				} else {
					l, err := p.LeaseByHardwareAddr(t.Context(), test.m.ClientHWAddr)
					require.NoError(t, err)
					require.Equal(t, test.addr, l.Addr.String())
				}
			}
		})
	}
}

// A client behind a relay renews with the server directly: only the pool of
// its subnet may answer, and the pool of the interface must not refuse it.
func TestPoolRoutedRenewal(t *testing.T) {
	near := testPool()
	far := testPool(func(p *Pool) {
		p.Prefix = netip.MustParsePrefix("10.0.9.0/24")
		p.Router, p.Ranges = ip("10.0.9.1"), []Range{{ip("10.0.9.100"), ip("10.0.9.110")}}
	})
	both := First(near, far)
	_, offer := serve(t, both, on(message(discover, macA, bareSystem, relay("10.0.9.1"))))
	addr := toAddr(offer.YourIPAddr)
	require.True(t, far.Prefix.Contains(addr))
	renew := on(message(request, macA, bareSystem, ciaddr(addr.String())))
	renew.Peer, renew.Local = netip.AddrPortFrom(addr, 68), netip.MustParseAddrPort("10.0.0.1:67")

	kind, _ := serve(t, both, renew)
	require.Equal(t, silence, kind, "no lease yet: nothing shows where the client is")
	kind, _ = serve(t, both, on(message(request, macA, bareSystem, relay("10.0.9.1"), requested(addr.String()), serverID("10.0.0.1"))))
	require.Equal(t, acked, kind)
	kind, _ = serve(t, both, renew)
	require.Equal(t, acked, kind)

	// On this link, the same client is in the wrong subnet.
	moved := on(message(request, macA, bareSystem, ciaddr(addr.String())))
	moved.Peer = netip.AddrPortFrom(addr, 68)
	kind, _ = serve(t, near, moved)
	require.Equal(t, naked, kind)
}

func TestPoolNeverGivesWhatIsTaken(t *testing.T) {
	p := testPool(func(p *Pool) {
		p.Prefix = netip.MustParsePrefix("10.0.0.0/29")
		p.Ranges = []Range{{ip("10.0.0.0"), ip("10.0.0.7")}}
		p.ServerID, p.Router = ip("10.0.0.1"), ip("10.0.0.2")
		p.Reservations = []Reservation{{HardwareAddr: macC, Addr: ip("10.0.0.3")}}
	})
	seen := map[string]bool{}
	for i := range byte(3) {
		seen[dora(t, p, net.HardwareAddr{2, 0, 0, 0, 1, i}, bareSystem).String()] = true
	}
	require.Equal(t, map[string]bool{"10.0.0.4": true, "10.0.0.5": true, "10.0.0.6": true}, seen)
	kind, _ := serve(t, p, on(message(discover, macA, bareSystem)))
	require.Equal(t, silence, kind)
	require.Equal(t, "10.0.0.3", dora(t, p, macC, bareSystem).String(), "kept for its machine")
}

func TestPoolOffersAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(func(p *Pool) { p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.100")}} })
		kind, _ := serve(t, p, on(message(discover, macA, bareSystem)))
		require.Equal(t, offered, kind)
		kind, _ = serve(t, p, on(message(discover, macB, bareSystem)))
		require.Equal(t, silence, kind, "held for the first")
		kind, _ = serve(t, p, on(message(request, macB, bareSystem, requested("10.0.0.100"), serverID("10.0.0.1"))))
		require.Equal(t, naked, kind, "held for the first")
		kind, _ = serve(t, p, on(message(discover, macA, bareSystem)))
		require.Equal(t, offered, kind, "its own offer again")

		time.Sleep(defaultOfferTime)
		kind, _ = serve(t, p, on(message(discover, macB, bareSystem)))
		require.Equal(t, offered, kind, "held no longer")

		kind, _ = serve(t, p, on(message(discover, macA, bareSystem)))
		require.Equal(t, silence, kind)

		// The second takes another server's offer: ours is free at once.
		kind, _ = serve(t, p, on(message(request, macB, bareSystem, requested("10.0.7.7"), serverID("10.0.7.1"))))
		require.Equal(t, silence, kind)
		kind, _ = serve(t, p, on(message(discover, macA, bareSystem)))
		require.Equal(t, offered, kind)
		kind, _ = serve(t, p, on(message(request, macA, bareSystem, requested("10.0.0.100"), serverID("10.0.0.1"))))
		require.Equal(t, acked, kind)
	})
}

func TestPoolExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(func(p *Pool) {
			p.LeaseTime = time.Hour
			p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.101")}}
		})
		a := dora(t, p, macA, bareSystem)
		time.Sleep(30 * time.Minute)
		b := dora(t, p, macB, bareSystem)
		kind, _ := serve(t, p, on(message(discover, macC, bareSystem)))
		require.Equal(t, silence, kind, "no address left")

		time.Sleep(29*time.Minute + 59*time.Second)
		_, err := p.LeaseByAddr(t.Context(), a)
		require.NoError(t, err)
		time.Sleep(time.Second)
		_, err = p.LeaseByAddr(t.Context(), a)
		require.ErrorIs(t, err, fs.ErrNotExist)

		require.Equal(t, a, dora(t, p, macA, bareSystem), "its old address again")
		time.Sleep(time.Hour) // a and b have expired, b first
		require.Equal(t, b, dora(t, p, macC, bareSystem))
		kind, _ = serve(t, p, on(message(request, macB, bareSystem, ciaddr(b.String()))))
		require.Equal(t, naked, kind)
		require.Equal(t, a, dora(t, p, macB, bareSystem))
	})
}

func TestPoolInfiniteLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(func(p *Pool) { p.LeaseTime = -1 })
		a := dora(t, p, macA, bareSystem)
		_, ack := serve(t, p, on(message(request, macA, bareSystem, ciaddr(a.String()))))
		require.Equal(t, []byte{255, 255, 255, 255}, ack.Options.Get(dhcpv4.OptionIPAddressLeaseTime))
		time.Sleep(10 * 365 * 24 * time.Hour)
		l, err := p.LeaseByAddr(t.Context(), a)
		require.NoError(t, err)
		require.True(t, l.Expires.IsZero())
	})
}

func TestPoolRelease(t *testing.T) {
	p := testPool(func(p *Pool) { p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.100")}} })
	from := ip("10.0.0.66")
	release := func(hw net.HardwareAddr, change ...func(*dhcpv4.DHCPv4)) {
		r := on(message(dhcpv4.MessageTypeRelease, hw, bareSystem, append(change, ciaddr("10.0.0.100"))...))
		r.Peer = netip.AddrPortFrom(from, 68)
		kind, _ := serve(t, p, r)
		require.Equal(t, silence, kind)
	}
	dora(t, p, macA, bareSystem)
	release(macA) // from another's address: forged
	from = ip("10.0.0.100")
	release(macB)                       // not its lease
	release(macA, serverID("10.0.0.2")) // not this server
	_, err := p.LeaseByAddr(t.Context(), ip("10.0.0.100"))
	require.NoError(t, err)
	kind, _ := serve(t, p, on(message(discover, macB, bareSystem)))
	require.Equal(t, silence, kind)

	release(macA, serverID("10.0.0.1"))
	_, err = p.LeaseByAddr(t.Context(), ip("10.0.0.100"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, "10.0.0.100", dora(t, p, macB, bareSystem).String(), "free at once")
}

func TestPoolDecline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, logged := logTo(slog.LevelWarn)
		p := testPool(func(p *Pool) {
			p.Logger = logger
			p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.101")}}
			p.Reservations = []Reservation{{HardwareAddr: macC, Addr: ip("10.0.0.10")}}
		})
		decline := func(hw net.HardwareAddr, addr netip.Addr) {
			kind, _ := serve(t, p, on(message(dhcpv4.MessageTypeDecline, hw, bareSystem, requested(addr.String()), serverID("10.0.0.1"))))
			require.Equal(t, silence, kind)
		}
		a := dora(t, p, macA, bareSystem)
		decline(macB, a) // not its address: not believed
		decline(macB, ip("10.0.0.101"))
		decline(macB, ip("192.168.0.1"))
		serve(t, p, on(message(dhcpv4.MessageTypeDecline, macA, bareSystem, requested(a.String()), serverID("10.0.0.2")))) // another server's
		require.Empty(t, logged.String())
		require.Equal(t, a, dora(t, p, macA, bareSystem))

		decline(macA, a)
		require.Contains(t, logged.String(), "addr="+a.String())
		b := dora(t, p, macA, bareSystem)
		require.NotEqual(t, a, b)
		kind, _ := serve(t, p, on(message(discover, macB, bareSystem)))
		require.Equal(t, silence, kind, "one is leased, the other in quarantine")
		kind, _ = serve(t, p, on(message(request, macA, bareSystem, requested(a.String()))))
		require.Equal(t, naked, kind)

		// A reserved address stays.
		time.Sleep(time.Second)
		dora(t, p, macC, bareSystem)
		decline(macC, ip("10.0.0.10"))
		require.Contains(t, logged.String(), "reserved=true")
		require.Equal(t, "10.0.0.10", dora(t, p, macC, bareSystem).String())

		time.Sleep(defaultDeclineTime)
		require.Equal(t, a, dora(t, p, macB, bareSystem))
	})
}

// Something answers ARP for all addresses: one machine does not take them all
// from the others.
func TestPoolDeclinesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, logged := logTo(slog.LevelWarn)
		p := testPool(func(p *Pool) {
			p.Logger = logger
			p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.109")}}
		})
		lost := make(map[netip.Addr]bool)
		for range 50 {
			a := dora(t, p, macA, bareSystem)
			lost[a] = true
			kind, _ := serve(t, p, on(message(dhcpv4.MessageTypeDecline, macA, bareSystem, requested(a.String()), serverID("10.0.0.1"))))
			require.Equal(t, silence, kind)
		}
		require.Len(t, lost, maxDeclines+1, "the last one it is offered again and again")
		require.Equal(t, 1, strings.Count(logged.String(), "declines each address"), logged)
		dora(t, p, macB, bareSystem)
	})
}

func TestPoolExhausted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, logged := logTo(slog.LevelWarn)
		p := testPool(func(p *Pool) { p.Logger = logger })
		for i := range byte(4) {
			dora(t, p, net.HardwareAddr{2, 0, 0, 0, 1, i}, bareSystem)
		}
		require.Empty(t, logged.String())
		for i := range byte(100) {
			kind, _ := serve(t, p, on(message(discover, net.HardwareAddr{2, 0, 0, 0, 2, i}, bareSystem)))
			require.Equal(t, silence, kind)
		}
		require.Equal(t, 1, strings.Count(logged.String(), "no address left"), logged)
		require.Contains(t, logged.String(), "widen Ranges")
		time.Sleep(time.Minute)
		serve(t, p, on(message(discover, macA, bareSystem)))
		require.Equal(t, 2, strings.Count(logged.String(), "no address left"))
		require.Contains(t, logged.String(), "unlogged=99")

		// Another server frees an address in the shared store: noticed soon.
		require.NoError(t, p.store.Release(t.Context(), p.nth(0), string(net.HardwareAddr{2, 0, 0, 0, 1, leaseOwner(t, p, p.nth(0))})))
		time.Sleep(recheck)
		kind, _ := serve(t, p, on(message(discover, macA, bareSystem)))
		require.Equal(t, offered, kind)
	})
}

func leaseOwner(t *testing.T, p *Pool, a netip.Addr) byte {
	l, err := p.LeaseByAddr(t.Context(), a)
	require.NoError(t, err)
	return l.HardwareAddr[5]
}

// A machine's reserved address is still leased to another one: it gets one
// from the ranges, keeps that for the boot, and has its own later.
func TestPoolReservedAddressStillLeased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(MemoryStore)
		require.NoError(t, store.Commit(t.Context(), Lease{Addr: ip("10.0.0.10"), HardwareAddr: macB, Expires: time.Now().Add(time.Hour)}))
		logger, logged := logTo(slog.LevelWarn)
		p := testPool(func(p *Pool) {
			p.Store, p.Logger = store, logger
			p.Reservations = []Reservation{{HardwareAddr: macA, Addr: ip("10.0.0.10"), Hostname: "a"}}
		})
		a := dora(t, p, macA, bareSystem)
		require.True(t, p.inRanges(a))
		require.Contains(t, logged.String(), "still leased to another machine")
		kind, _ := serve(t, p, on(message(request, macA, bareSystem, requested(a.String()), serverID("10.0.0.1"))))
		require.Equal(t, acked, kind, "the ACK was lost, the request comes again")
		kind, _ = serve(t, p, on(message(request, macB, bareSystem, ciaddr("10.0.0.10"))))
		require.Equal(t, acked, kind, "its root may hang on the address")
		kind, _ = serve(t, p, on(message(request, macB, bareSystem, requested("10.0.0.10"))))
		require.Equal(t, naked, kind, "it starts again")
		time.Sleep(24 * time.Hour)
		require.Equal(t, "10.0.0.10", dora(t, p, macA, bareSystem).String())
		l, err := p.LeaseByHardwareAddr(t.Context(), macA)
		require.NoError(t, err)
		require.Equal(t, "10.0.0.10", l.Addr.String(), "the other one has ended")
	})
}

// Another server gave the lease, of an address that this one had offered to
// somebody else: the machine that has it is not refused when it starts again.
func TestPoolOfferOfALeasedAddress(t *testing.T) {
	store := new(MemoryStore)
	one := testPool(func(p *Pool) { p.Store = store })
	two := testPool(func(p *Pool) { p.Store = store })
	kind, offer := serve(t, one, on(message(discover, macB, bareSystem)))
	require.Equal(t, offered, kind)
	a := toAddr(offer.YourIPAddr).String()
	reboot := message(request, macA, bareSystem, requested(a))
	kind, _ = serve(t, one, on(reboot))
	require.Equal(t, naked, kind, "offered, and nobody's yet")
	kind, _ = serve(t, two, on(reboot))
	require.Equal(t, acked, kind)
	kind, ack := serve(t, one, on(reboot))
	require.Equal(t, acked, kind)
	require.Equal(t, a, ack.YourIPAddr.String())
	kind, _ = serve(t, one, on(message(request, macB, bareSystem, requested(a), serverID("10.0.0.1"))))
	require.Equal(t, naked, kind)
}

// A link's limit holds also when each request names a port of its own, of which
// there are more than are counted.
func TestPoolFloodOfPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(func(p *Pool) { p.MaxNewPerLink = 3 })
		allowed := 0
		for i := range limit.MaxSources + 3 {
			r := on(message(discover, macA, bareSystem, option(82, 1, 2, byte(i>>8), byte(i))))
			if p.admit(client{Request: r, hw: macA}) {
				allowed++
			}
		}
		require.Equal(t, 3, allowed)
	})
}

// Nor is a forger many relays.
func TestPoolFloodOfRelays(t *testing.T) {
	p := testPool(func(p *Pool) { p.MaxNewPerLink = 3 })
	for i := range byte(9) {
		r := on(message(discover, macA, bareSystem, relay(netip.AddrFrom4([4]byte{10, 0, 0, 200 + i}).String())))
		r.Peer = netip.MustParseAddrPort("10.9.9.9:67")
		require.Equal(t, i < 3, p.admit(client{Request: r, hw: macA}))
	}
	r := on(message(discover, macA, bareSystem, relay("10.0.0.200")))
	r.Peer = netip.MustParseAddrPort("10.9.9.10:67")
	require.True(t, p.admit(client{Request: r, hw: macA}))
}

// To explain a request that names another server drops no offer.
func TestExplainKeepsOffer(t *testing.T) {
	p := testPool()
	kind, offer := serve(t, p, on(message(discover, macA, bareSystem)))
	require.Equal(t, offered, kind)
	Explain(t.Context(), p, on(message(request, macA, bareSystem, requested("10.0.0.100"), serverID("10.0.0.9"))))
	require.Equal(t, toAddr(offer.YourIPAddr), p.offers.addr(string(macA)))
}

// What a request has logged once is not used up by an explanation, nor is a pool
// taken for full by it.
func TestExplainLogsNothing(t *testing.T) {
	logger, log := logTo(slog.LevelDebug)
	p := testPool(func(p *Pool) {
		p.Logger = logger
		p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.101")}}
		p.Reservations = []Reservation{{HardwareAddr: macC, Addr: ip("10.0.0.9")}}
	})
	ctx := t.Context()
	require.NoError(t, p.Validate())
	for i, a := range []string{"10.0.0.100", "10.0.0.101", "10.0.0.9"} {
		require.NoError(t, p.store.Commit(ctx, Lease{Addr: ip(a), HardwareAddr: net.HardwareAddr{6, 0, 0, 0, 0, byte(i)}, Expires: time.Now().Add(time.Hour)}))
	}
	for _, mac := range []net.HardwareAddr{macA, macC} {
		e := Explain(ctx, p, on(message(discover, mac, bareSystem)))
		require.Nil(t, e.Reply)
		require.Contains(t, strings.Join(e.Steps, "\n"), "no address is left")
	}
	require.Empty(t, log.String())
	require.False(t, p.search.hopeless(time.Now()))
	kind, _ := serve(t, p, on(message(discover, macC, bareSystem)))
	require.Equal(t, silence, kind)
	require.Contains(t, log.String(), "no address left")
	require.Contains(t, log.String(), "still leased to another machine")
}

// What is explained of a rapid commit is what is sent, and makes no lease.
func TestExplainRapidCommit(t *testing.T) {
	p := testPool(func(p *Pool) { p.RapidCommit = true })
	r := on(message(discover, macA, bareSystem, option(80)))
	told := Explain(t.Context(), p, r)
	require.NotNil(t, told.Reply)
	_, err := p.LeaseByHardwareAddr(t.Context(), macA)
	require.ErrorIs(t, err, fs.ErrNotExist)
	kind, reply := serve(t, p, r)
	require.Equal(t, acked, kind)
	require.Equal(t, kind, told.Reply.MessageType())
	require.Equal(t, reply.YourIPAddr, told.Reply.YourIPAddr)
}

func TestPoolHostileStrings(t *testing.T) {
	p := testPool()
	m := message(request, macA, bareSystem, requested("10.0.0.100"), serverID("10.0.0.1"),
		option(12, []byte("x; reboot\n")...), option(61, make([]byte, 3000)...), option(93, make([]byte, 3000)...))
	kind, _ := serve(t, p, on(m))
	require.Equal(t, acked, kind)
	l, err := p.LeaseByHardwareAddr(t.Context(), macA)
	require.NoError(t, err)
	require.Empty(t, l.Hostname)
	require.Len(t, l.ClientID, 255)
	require.Len(t, l.Archs, 16)
}

// Many machines at once, each retransmitting: nobody shares an address.
func TestPoolConcurrent(t *testing.T) {
	p := testPool(func(p *Pool) { p.Ranges = []Range{{ip("10.0.0.10"), ip("10.0.0.73")}} })
	const machines = 64
	got := make([][3]netip.Addr, machines)
	var wg sync.WaitGroup
	for i := range got {
		for j := range got[i] {
			wg.Go(func() {
				hw := net.HardwareAddr{2, 0, 0, 0, 3, byte(i)}
				_, offer := serve(t, p, on(message(discover, hw, bareSystem)))
				if offer == nil {
					return
				}
				kind, ack := serve(t, p, on(message(request, hw, bareSystem, requested(offer.YourIPAddr.String()), serverID("10.0.0.1"))))
				if kind == acked {
					got[i][j] = toAddr(ack.YourIPAddr)
				}
			})
		}
	}
	wg.Wait()
	owner := map[netip.Addr]int{}
	for i := range got {
		l, err := p.LeaseByHardwareAddr(t.Context(), net.HardwareAddr{2, 0, 0, 0, 3, byte(i)})
		require.NoError(t, err)
		require.NotContains(t, owner, l.Addr)
		owner[l.Addr] = i
		for _, a := range got[i] {
			require.Equal(t, l.Addr, a, "machine %d", i)
		}
	}
	require.Len(t, owner, machines)
}

// brokenStore fails, to see that nobody is told anything then.
type brokenStore struct {
	LeaseStore
	err error
}

func (s brokenStore) Commit(context.Context, Lease) error { return s.err }
func (s brokenStore) LeaseByAddr(context.Context, netip.Addr) (Lease, error) {
	return Lease{}, s.err
}
func (s brokenStore) LeasesByOwner(context.Context, string) ([]Lease, error) {
	return nil, s.err
}
func (s brokenStore) Leases(context.Context) iter.Seq2[Lease, error] { return nil }

func TestPoolStoreFails(t *testing.T) {
	broken := errors.New("disk on fire")
	p := testPool(func(p *Pool) { p.Store = brokenStore{err: broken} })
	for _, m := range []*dhcpv4.DHCPv4{
		message(discover, macA, bareSystem),
		message(request, macA, bareSystem, requested("10.0.0.100"), serverID("10.0.0.1")),
		message(dhcpv4.MessageTypeDecline, macA, bareSystem, requested("10.0.0.100")),
	} {
		reply, err := p.ServeDHCP(t.Context(), on(m))
		require.Nil(t, reply)
		require.ErrorIs(t, err, broken)
	}
	_, err := p.LeaseByAddr(t.Context(), ip("10.0.0.100"))
	require.ErrorIs(t, err, broken)
	_, err = p.LeaseByHardwareAddr(t.Context(), macA)
	require.ErrorIs(t, err, broken)

	p = testPool(func(p *Pool) { p.Store = &MemoryStore{MaxLeases: 1} })
	kind, _ := serve(t, p, on(message(request, macA, bareSystem, requested("10.0.0.101"))))
	require.Equal(t, acked, kind)
	reply, err := p.ServeDHCP(t.Context(), on(message(request, macB, bareSystem, requested("10.0.0.102"))))
	require.Nil(t, reply)
	require.ErrorIs(t, err, syscall.ENOSPC)
}

func TestPoolValidate(t *testing.T) {
	require.NoError(t, testPool().Validate())
	for _, test := range []struct {
		want   string
		change func(*Pool)
	}{
		{"no IPv4 subnet", func(p *Pool) { p.Prefix = netip.Prefix{} }},
		{"no IPv4 subnet", func(p *Pool) { p.Prefix = netip.MustParsePrefix("2001:db8::/64") }},
		{"host bits set, the subnet is 10.0.0.0/24", func(p *Pool) { p.Prefix = netip.MustParsePrefix("10.0.0.1/24") }},
		{"ServerID", func(p *Pool) { p.ServerID = netip.Addr{} }},
		{"ServerID", func(p *Pool) { p.ServerID = ip("0.0.0.0") }},
		{"Router", func(p *Pool) { p.Router = ip("10.0.1.1") }},
		{"DNS", func(p *Pool) { p.DNS = []netip.Addr{ip("2001:db8::1")} }},
		{"Domain", func(p *Pool) { p.Domain = strings.Repeat("d", 254) }},
		{"LeaseTime", func(p *Pool) { p.LeaseTime = time.Millisecond }},
		{"LeaseTime", func(p *Pool) { p.LeaseTime = -2 }},
		{"OfferTime", func(p *Pool) { p.OfferTime = -1 }},
		{"not inside of the subnet", func(p *Pool) { p.Ranges = []Range{{ip("10.0.0.5"), ip("10.0.1.5")}} }},
		{"not inside of the subnet", func(p *Pool) { p.Ranges = []Range{{}} }},
		{"ends before it begins", func(p *Pool) { p.Ranges = []Range{{ip("10.0.0.5"), ip("10.0.0.4")}} }},
		{"overlap", func(p *Pool) {
			p.Ranges = []Range{{ip("10.0.0.5"), ip("10.0.0.9")}, {ip("10.0.0.1"), ip("10.0.0.5")}}
		}},
		{"names no machine", func(p *Pool) { p.Reservations = []Reservation{{Addr: ip("10.0.0.5")}} }},
		{"two reservations for", func(p *Pool) { p.Reservations = []Reservation{{HardwareAddr: macA}, {HardwareAddr: macA}} }},
		{"reserved for both", func(p *Pool) {
			p.Reservations = []Reservation{{HardwareAddr: macA, Addr: ip("10.0.0.5")}, {HardwareAddr: macB, Addr: ip("10.0.0.5")}}
		}},
		{"not an address for a machine", func(p *Pool) { p.Reservations = []Reservation{{HardwareAddr: macA, Addr: ip("10.0.1.5")}} }},
		{"not an address for a machine", func(p *Pool) { p.Reservations = []Reservation{{HardwareAddr: macA, Addr: ip("10.0.0.1")}} }},
		{"no host name", func(p *Pool) { p.Reservations = []Reservation{{HardwareAddr: macA, Hostname: "a b"}} }},
		{"no host name", func(p *Pool) { p.Reservations = []Reservation{{HardwareAddr: macA, Hostname: "-rf"}} }},
	} {
		p := testPool(test.change)
		err := p.Validate()
		require.ErrorIs(t, err, fs.ErrInvalid)
		require.ErrorContains(t, err, test.want)
		_, serr := p.ServeDHCP(t.Context(), on(message(discover, macA, bareSystem)))
		require.Equal(t, err, serr)
		_, lerr := p.LeaseByAddr(t.Context(), ip("10.0.0.5"))
		require.Equal(t, err, lerr)
	}
}

// askedStore counts the addresses that a search looks at.
type askedStore struct {
	*MemoryStore
	asked int
}

func (s *askedStore) state(a netip.Addr) (time.Time, bool) {
	s.asked++
	return s.MemoryStore.state(a)
}

// Addresses that were given one after the other by another server, as ISC's
// and Kea's do, are not looked at again for each new machine.
func TestSearchPassesBlocks(t *testing.T) {
	store := &askedStore{MemoryStore: &MemoryStore{MaxLeases: -1}}
	p := benchPool()
	p.Store = store
	require.NoError(t, p.Validate())
	const taken, machines = 60_000, 200
	hw := net.HardwareAddr{2, 0, 0, 0, 0, 0}
	for n := range uint64(taken) {
		binary.BigEndian.PutUint32(hw[2:], uint32(n))
		require.NoError(t, store.Commit(t.Context(), Lease{Addr: p.nth(n), HardwareAddr: hw}))
	}
	for n := range machines {
		hw := net.HardwareAddr{4, 0, 0, 0, byte(n >> 8), byte(n)}
		reply, err := p.ServeDHCP(t.Context(), on(message(discover, hw, bareSystem)))
		require.NoError(t, err)
		require.NotNil(t, reply)
	}
	require.Less(t, store.asked, taken+2*machines*maxProbes)
}
