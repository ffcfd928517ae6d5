package dhcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

func TestPoolExclude(t *testing.T) {
	p := testPool(func(p *Pool) {
		p.Exclude = []Range{{ip("10.0.0.90"), ip("10.0.0.100")}, {ip("10.0.0.102"), ip("10.0.0.102")}}
	})
	got := map[netip.Addr]bool{}
	for n := range byte(2) {
		got[dora(t, p, net.HardwareAddr{2, 0, 0, 0, 9, n}, bareSystem)] = true
	}
	require.Equal(t, map[netip.Addr]bool{ip("10.0.0.101"): true, ip("10.0.0.103"): true}, got)
	kind, _ := serve(t, p, on(message(discover, macC, bareSystem)))
	require.Equal(t, silence, kind)
	kind, _ = serve(t, p, on(message(request, macC, bareSystem, requested("10.0.0.102"), serverID("10.0.0.1"))))
	require.Equal(t, naked, kind)
}

func TestPoolIdentity(t *testing.T) {
	id := func(v ...byte) func(*dhcpv4.DHCPv4) { return option(61, v...) }
	p := testPool(func(p *Pool) { p.Identity = ByClientID })
	first := leaseOf(t, p, message(discover, macA, bareSystem, id(0, 'd')))
	require.Equal(t, first, leaseOf(t, p, message(discover, macB, bareSystem, id(0, 'd'))), "another adapter, the same machine")
	require.NotEqual(t, first, leaseOf(t, p, message(discover, macA, bareSystem)), "no client identifier: the hardware address")
	l, err := p.LeaseByHardwareAddr(t.Context(), macB)
	require.NoError(t, err)
	require.Equal(t, first, l.Addr)

	p = testPool(func(p *Pool) { p.Identity = ByUUID })
	first = leaseOf(t, p, message(discover, macA, BIOSFirmware()))
	require.Equal(t, first, leaseOf(t, p, message(discover, macB, BIOSFirmware())))
}

// leaseOf takes a DISCOVER to its ACK and returns the address.
func leaseOf(t *testing.T, h Handler, m *dhcpv4.DHCPv4) netip.Addr {
	t.Helper()
	kind, offer := serve(t, h, on(m))
	require.Equal(t, offered, kind)
	addr := toAddr(offer.YourIPAddr)
	m.UpdateOption(dhcpv4.OptMessageType(request))
	m.UpdateOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr))
	m.UpdateOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier()))
	kind, ack := serve(t, h, on(m))
	require.Equal(t, acked, kind)
	require.Equal(t, addr, toAddr(ack.YourIPAddr))
	return addr
}

func TestReservationKeys(t *testing.T) {
	p := testPool(func(p *Pool) {
		p.KnownOnly = true
		p.Reservations = []Reservation{
			{ClientID: []byte{0, 'c'}, Addr: ip("10.0.0.11"), Hostname: "by-id"},
			{UUID: uuidText, Addr: ip("10.0.0.12")},
			{CircuitID: []byte("port 7"), Addr: ip("10.0.0.13")},
		}
	})
	require.Equal(t, ip("10.0.0.11"), leaseOf(t, p, message(discover, macA, bareSystem, option(61, 0, 'c'))))
	require.Equal(t, ip("10.0.0.11"), leaseOf(t, p, message(discover, macB, bareSystem, option(61, 0, 'c'))), "a new network card")
	require.Equal(t, ip("10.0.0.12"), leaseOf(t, p, message(discover, macA, BIOSFirmware())))
	port := append([]byte{1, 6}, "port 7"...)
	require.Equal(t, ip("10.0.0.13"), leaseOf(t, p, message(discover, macC, bareSystem, option(82, port...))))
	kind, _ := serve(t, p, on(message(discover, macC, bareSystem, option(82, 1, 1, '8'))))
	require.Equal(t, silence, kind)
	l, err := p.LeaseByHardwareAddr(t.Context(), macC)
	require.NoError(t, err)
	require.Equal(t, ip("10.0.0.13"), l.Addr)
}

func TestPoolOptionLevels(t *testing.T) {
	p := testPool(func(p *Pool) {
		p.Defaults = dhcpv4.Options{42: {1, 1, 1, 1}, 100: []byte("default"), 15: []byte("default.example"), 66: []byte("x")}
		p.Options = dhcpv4.Options{100: []byte("subnet"), 119: {0}}
		p.Classes = []Class{
			{Name: "no", Match: Match{Archs: []iana.Arch{7}}, Options: dhcpv4.Options{100: []byte("wrong")}},
			{Name: "bios", Match: Match{Archs: []iana.Arch{0}}, Options: dhcpv4.Options{100: []byte("class"), 101: []byte("class"), 12: []byte("class")}},
			{Name: "all", Options: dhcpv4.Options{101: []byte("late"), 102: []byte("late")}},
		}
		p.Reservations = []Reservation{{HardwareAddr: macA, Hostname: "a", Options: dhcpv4.Options{12: []byte("host"), 101: []byte("host")}}}
	})
	for _, test := range []struct {
		m    *dhcpv4.DHCPv4
		want map[uint8]string
	}{
		{message(discover, macB, bareSystem), map[uint8]string{42: "\x01\x01\x01\x01", 100: "subnet", 15: "lab.example", 101: "late", 102: "late", 12: ""}},
		{message(discover, macB, BIOSFirmware()), map[uint8]string{100: "class", 101: "class", 102: "late", 12: "class"}},
		{message(discover, macA, BIOSFirmware()), map[uint8]string{100: "class", 101: "host", 12: "host", 1: "\xff\xff\xff\x00"}},
	} {
		_, reply := serve(t, p, on(test.m))
		for code, want := range test.want {
			require.Equal(t, want, string(reply.Options[code]), "option %d", code)
		}
	}
	for _, bad := range []func(*Pool){
		func(p *Pool) { p.Options = dhcpv4.Options{54: {1}} },
		func(p *Pool) { p.Defaults = dhcpv4.Options{82: {1}} },
		func(p *Pool) { p.Options = dhcpv4.Options{3: {10, 0, 0, 9}} },
		func(p *Pool) { p.Classes = []Class{{Match: Match{UUIDs: []string{"x"}}}} },
		func(p *Pool) { p.Identity = "mac" },
		func(p *Pool) { p.BOOTP = "yes" },
		func(p *Pool) { p.MaxLeaseTime = time.Second },
		func(p *Pool) { p.Exclude = []Range{{ip("10.0.0.9"), ip("10.0.0.8")}} },
		func(p *Pool) { p.Reservations = []Reservation{{UUID: "x"}} },
	} {
		require.Error(t, testPool(bad).Validate())
	}
}

func TestPoolLeaseTimeWish(t *testing.T) {
	for _, test := range []struct {
		max  time.Duration
		wish uint32
		want time.Duration
	}{
		{0, 100, 12 * time.Hour}, {time.Hour, 100, 100 * time.Second}, {time.Hour, 5, time.Minute},
		{time.Hour, 1e6, time.Hour}, {-1, 1e6, 1e6 * time.Second}, {-1, 5, time.Minute}, {-1, 1<<32 - 1, (1<<32 - 1) * time.Second},
	} {
		p := testPool(func(p *Pool) { p.MaxLeaseTime = test.max })
		_, reply := serve(t, p, on(message(discover, macA, bareSystem, option(51, binary.BigEndian.AppendUint32(nil, test.wish)...))))
		require.Equal(t, test.want, reply.IPAddressLeaseTime(0))
	}
	times := testPool(func(p *Pool) {
		p.MaxLeaseTime = 100 * time.Second
		p.Options = dhcpv4.Options{58: {0, 0, 0, 60}, 59: {0, 0, 0, 90}}
	})
	for wish, want := range map[byte][]bool{100: {true, true}, 90: {true, false}, 60: {false, false}} {
		_, reply := serve(t, times, on(message(discover, macA, bareSystem, option(51, 0, 0, 0, wish))))
		require.Equal(t, want, []bool{reply.Options.Has(dhcpv4.OptionRenewTimeValue), reply.Options.Has(dhcpv4.OptionRebindingTimeValue)}, "T1 and T2 in %d s", wish)
	}
}

func TestPoolBOOTP(t *testing.T) {
	m := message(dhcpv4.MessageTypeNone, macA, bareSystem)
	delete(m.Options, 53)
	reserve := func(p *Pool) { p.Reservations = []Reservation{{HardwareAddr: macA, Addr: ip("10.0.0.10")}} }
	kind, _ := serve(t, testPool(reserve), on(m))
	require.Equal(t, silence, kind, "not allowed")

	p := testPool(reserve, func(p *Pool) { p.BOOTP = BOOTPReserved })
	reply, err := p.ServeDHCP(t.Context(), on(m))
	require.NoError(t, err)
	require.Equal(t, "10.0.0.10", reply.YourIPAddr.String())
	for _, code := range []uint8{51, 53, 54} {
		require.NotContains(t, reply.Options, code)
	}
	l, err := p.LeaseByAddr(t.Context(), ip("10.0.0.10"))
	require.NoError(t, err)
	require.True(t, l.Expires.IsZero(), "it cannot renew")
	data, _, err := encode(on(m), reply)
	require.NoError(t, err)
	require.Len(t, data, 300)

	other := message(dhcpv4.MessageTypeNone, macB, bareSystem)
	delete(other.Options, 53)
	kind, _ = serve(t, p, on(other))
	require.Equal(t, silence, kind)
	p = testPool(func(p *Pool) { p.BOOTP = BOOTPAny })
	reply, err = p.ServeDHCP(t.Context(), on(other))
	require.NoError(t, err)
	require.True(t, p.inRanges(toAddr(reply.YourIPAddr)))
}

func TestPoolRapidCommit(t *testing.T) {
	m := message(discover, macA, bareSystem, option(80))
	kind, _ := serve(t, testPool(), on(m))
	require.Equal(t, offered, kind)
	p := testPool(func(p *Pool) { p.RapidCommit = true })
	kind, reply := serve(t, p, on(m))
	require.Equal(t, acked, kind)
	require.True(t, reply.Options.Has(dhcpv4.OptionRapidCommit))
	_, err := p.LeaseByAddr(t.Context(), toAddr(reply.YourIPAddr))
	require.NoError(t, err)
	kind, _ = serve(t, p, on(message(discover, macB, bareSystem)))
	require.Equal(t, offered, kind, "only who asks for it")
}

func TestPoolRelays(t *testing.T) {
	p := testPool()
	for _, test := range []struct {
		name string
		m    *dhcpv4.DHCPv4
		want dhcpv4.MessageType
	}{
		{"link selection names the subnet", message(discover, macA, bareSystem, relay("10.9.0.1"), option(82, 5, 4, 10, 0, 0, 0)), offered},
		{"link selection names another", message(discover, macA, bareSystem, relay("10.0.0.9"), option(82, 5, 4, 10, 9, 0, 0)), silence},
		{"subnet selection", message(discover, macA, bareSystem, relay("10.9.0.1"), option(118, 10, 0, 0, 0)), offered},
		{"link selection before subnet selection", message(discover, macA, bareSystem, relay("10.9.0.1"), option(118, 10, 0, 0, 0), option(82, 5, 4, 10, 9, 0, 0)), silence},
		{"subnet selection without a relay", message(discover, macA, bareSystem, option(118, 10, 9, 0, 0)), offered},
		{"lengths that lie", message(discover, macA, bareSystem, relay("10.0.0.9"), option(82, 5, 200, 1)), offered},
	} {
		t.Run(test.name, func(t *testing.T) {
			kind, reply := serve(t, p, on(test.m))
			require.Equal(t, test.want, kind)
			if reply != nil {
				data, _, err := encode(on(test.m), reply)
				require.NoError(t, err)
				back, err := dhcpv4.FromBytes(data)
				require.NoError(t, err)
				require.Equal(t, test.m.Options.Get(dhcpv4.OptionRelayAgentInformation), back.Options.Get(dhcpv4.OptionRelayAgentInformation), "echoed")
				if toAddr(test.m.GatewayIPAddr).IsValid() {
					require.Equal(t, test.m.Options.Get(dhcpv4.OptionSubnetSelection), back.Options.Get(dhcpv4.OptionSubnetSelection), "echoed")
				} else {
					require.False(t, back.Options.Has(dhcpv4.OptionSubnetSelection), "not heeded")
				}
			}
		})
	}
	// The relay stands in for the server (RFC 5107).
	over := option(82, 11, 4, 10, 0, 0, 9)
	_, offer := serve(t, p, on(message(discover, macB, bareSystem, relay("10.0.0.9"), over)))
	require.Equal(t, "10.0.0.9", offer.ServerIdentifier().String())
	kind, _ := serve(t, p, on(message(request, macB, bareSystem, relay("10.0.0.9"), over, requested(offer.YourIPAddr.String()), serverID("10.0.0.9"))))
	require.Equal(t, acked, kind)
	kind, _ = serve(t, p, on(message(request, macB, bareSystem, requested(offer.YourIPAddr.String()), serverID("10.0.0.9"))))
	require.Equal(t, silence, kind, "nobody else may")
	_, offer = serve(t, p, on(message(discover, macC, bareSystem, over)))
	require.Equal(t, "10.0.0.1", offer.ServerIdentifier().String(), "nor may a client")
}

func TestPoolNotAuthoritative(t *testing.T) {
	p := testPool(func(p *Pool) { p.NotAuthoritative = true })
	kind, _ := serve(t, p, on(message(request, macA, bareSystem, requested("192.168.1.5"))))
	require.Equal(t, silence, kind)
	kind, _ = serve(t, p, on(message(request, macA, bareSystem, requested("10.0.0.50"), serverID("10.0.0.1"))))
	require.Equal(t, naked, kind, "it chose this server")
}

func TestPoolRogueServer(t *testing.T) {
	log, logged := logTo(slog.LevelWarn)
	p := testPool(func(p *Pool) { p.Logger, p.Peers = log, []netip.Addr{ip("10.0.0.2")} })
	serve(t, p, on(message(request, macA, bareSystem, requested("10.0.0.150"), serverID("10.0.0.2"))))
	require.Empty(t, logged.String(), "a peer")
	for range 3 {
		serve(t, p, on(message(request, macA, bareSystem, requested("10.0.0.150"), serverID("10.0.0.66"))))
	}
	require.Equal(t, 1, bytes.Count([]byte(logged.String()), []byte("another DHCP server")))
	require.Contains(t, logged.String(), "server=10.0.0.66")
}

func TestPoolInUse(t *testing.T) {
	var asked []netip.Addr
	var used map[netip.Addr]bool
	var fail error
	p := testPool(func(p *Pool) {
		p.Reservations = []Reservation{{HardwareAddr: macC, Addr: ip("10.0.0.10")}}
		p.InUse = func(_ context.Context, _ *Request, a netip.Addr) (bool, error) {
			asked = append(asked, a)
			return used[a], fail
		}
	})
	first := leaseOf(t, p, message(discover, macA, bareSystem))
	require.Equal(t, []netip.Addr{first}, asked)
	leaseOf(t, p, message(discover, macA, bareSystem))
	leaseOf(t, p, message(discover, macC, bareSystem))
	require.Len(t, asked, 1, "not for one that the machine has, nor a reserved one")

	// A stranger has what macB would get: it gets the next one.
	kind, offer := serve(t, p, on(message(discover, macB, bareSystem)))
	require.Equal(t, offered, kind)
	taken := toAddr(offer.YourIPAddr)
	p.offers.drop(string(macB))
	used = map[netip.Addr]bool{taken: true}
	_, offer = serve(t, p, on(message(discover, macB, bareSystem)))
	require.NotEqual(t, taken, toAddr(offer.YourIPAddr))
	l, err := p.store.LeaseByAddr(t.Context(), taken)
	require.NoError(t, err)
	require.True(t, l.Declined, "in quarantine")

	fail = errors.New("no socket")
	kind, _ = serve(t, p, on(message(discover, net.HardwareAddr{2, 0, 0, 0, 9, 9}, bareSystem)))
	require.Equal(t, offered, kind, "what cannot be found out keeps nobody waiting")
}

// A machine that makes up hardware addresses does not get all addresses, and
// what it was offered comes back soon.
func TestPoolFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(func(p *Pool) {
			p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.199")}}
			p.MaxNewPerPort, p.MaxNewPerLink = 3, 50
		})
		flood := func(n int, change ...func(*dhcpv4.DHCPv4)) (offers int) {
			for i := range n {
				kind, _ := serve(t, p, on(message(discover, net.HardwareAddr{6, 0, 0, 0, byte(i >> 8), byte(i)}, bareSystem, change...)))
				if kind == offered {
					offers++
				}
			}
			return offers
		}
		require.Equal(t, 3, flood(1000, option(82, 1, 1, '1')))
		require.Equal(t, 6, flood(1000, option(82, 1, 1, '2')), "another port, and the machines that have an offer already")
	})
	synctest.Test(t, func(t *testing.T) {
		p := testPool(func(p *Pool) { p.MaxNewPerLink = -1 })
		known := dora(t, p, macA, bareSystem)
		require.NoError(t, p.store.Release(t.Context(), known, string(macA)))
		for i := range 100 {
			serve(t, p, on(message(discover, net.HardwareAddr{6, 0, 0, 0, 0, byte(i)}, bareSystem)))
		}
		kind, reply := serve(t, p, on(message(discover, macA, bareSystem)))
		require.Equal(t, offered, kind, "a machine that was here before goes first")
		require.Equal(t, known, toAddr(reply.YourIPAddr))
		kind, _ = serve(t, p, on(message(discover, macB, bareSystem)))
		require.Equal(t, silence, kind)
		time.Sleep(patience)
		kind, _ = serve(t, p, on(message(discover, macB, bareSystem)))
		require.Equal(t, offered, kind, "an offer that nobody took is given to the next after three seconds")
	})
}

func TestSharedNetwork(t *testing.T) {
	a := testPool(func(p *Pool) { p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.100")}} })
	b := testPool(func(p *Pool) {
		p.Prefix, p.Router, p.ServerID = netip.MustParsePrefix("10.1.0.0/24"), ip("10.1.0.254"), ip("10.0.0.1")
		p.Ranges = []Range{{ip("10.1.0.100"), ip("10.1.0.101")}}
		p.Reservations = []Reservation{{HardwareAddr: macC, Addr: ip("10.1.0.9")}}
	})
	n := &SharedNetwork{Pools: []*Pool{a, b}}
	require.Equal(t, ip("10.1.0.9"), dora(t, n, macC, bareSystem), "reserved in the second")
	require.Equal(t, ip("10.0.0.100"), dora(t, n, macA, bareSystem))
	second := dora(t, n, macB, bareSystem)
	require.True(t, b.Prefix.Contains(second), "the first is full")
	kind, ack := serve(t, n, on(message(request, macB, bareSystem, requested(second.String()))))
	require.Equal(t, acked, kind)
	require.Equal(t, "10.1.0.254", ack.Router()[0].String())
	kind, _ = serve(t, n, on(message(request, macB, bareSystem, requested("192.168.0.1"))))
	require.Equal(t, naked, kind, "in neither")
	kind, _ = serve(t, n, on(message(discover, macB, bareSystem, relay("10.1.0.1"))))
	require.Equal(t, offered, kind)
	kind, _ = serve(t, n, on(message(discover, macB, bareSystem, relay("10.2.0.1"))))
	require.Equal(t, silence, kind)

	store := new(MemoryStore)
	one, two := Pool{Prefix: a.Prefix, ServerID: a.ServerID, Ranges: []Range{{ip("10.0.0.100"), ip("10.0.0.109")}}, Store: store},
		Pool{Prefix: b.Prefix, ServerID: a.ServerID, Ranges: []Range{{ip("10.1.0.100"), ip("10.1.0.109")}}, Store: store}
	require.NoError(t, store.Commit(t.Context(), Lease{Addr: ip("10.0.0.101"), HardwareAddr: macA, Expires: time.Now().Add(-time.Hour)}))
	require.NoError(t, store.Commit(t.Context(), Lease{Addr: ip("10.1.0.101"), HardwareAddr: macA, Expires: time.Now().Add(time.Hour)}))
	require.Equal(t, ip("10.1.0.101"), dora(t, &SharedNetwork{Pools: []*Pool{&one, &two}}, macA, bareSystem), "it has that, and had the other")

	require.Error(t, (&SharedNetwork{}).Validate())
	require.Error(t, (&SharedNetwork{Pools: []*Pool{a, testPool()}}).Validate())
}

func TestMatch(t *testing.T) {
	r := on(message(discover, macA, BIOSFirmware(), relay("10.7.0.1"), option(77, 4, 'i', 'P', 'X', 'E', 1, 'x'),
		option(82, 1, 2, 'p', '1', 2, 1, 0, 5, 4, 10, 6, 0, 0))) // the link is another than the relay's
	for _, test := range []struct {
		m    Match
		want bool
	}{
		{Match{}, true},
		{Match{UserClasses: []string{"y", "x"}}, true},
		{Match{UserClasses: []string{"y"}}, false},
		{Match{VendorClasses: []string{"PXEClient:Arch:00000"}}, true},
		{Match{VendorClasses: []string{"HTTPClient"}}, false},
		{Match{UUIDs: []string{"12345678-9ABC-DEF0-0102-030405060708"}}, true},
		{Match{UUIDs: []string{"22345678-9abc-def0-0102-030405060708"}}, false},
		{Match{Relays: []netip.Prefix{netip.MustParsePrefix("10.7.0.0/16")}}, true},
		{Match{Relays: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16")}}, false},
		{Match{CircuitIDs: []string{"p1"}, RemoteIDs: []string{"\x00"}}, true},
		{Match{CircuitIDs: []string{"p1"}, RemoteIDs: []string{"\x01"}}, false},
		{Match{Relays: []netip.Prefix{netip.MustParsePrefix("10.6.0.0/16")}}, false},
		{Match{Archs: []iana.Arch{0}, Relays: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16")}}, false},
	} {
		require.Equal(t, test.want, test.m.Matches(r), "%v", &test.m)
	}
	require.Equal(t, "everything", (&Match{}).String())
	require.Equal(t, "arch=0,7 circuit-id=0x00", (&Match{Archs: []iana.Arch{0, 7}, CircuitIDs: []string{"\x00"}}).String())
	require.Equal(t, []string{"iPXE", "x"}, r.UserClasses())
	require.Equal(t, []string{"iPXE"}, on(message(discover, macA, IPXEFirmware(0))).UserClasses())
}

// Explain tells and changes nothing.
func TestExplain(t *testing.T) {
	p := testPool(func(p *Pool) {
		p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.100")}}
		p.Classes = []Class{{Name: "bios", Match: Match{Archs: []iana.Arch{0}}}}
	})
	policy := &BootPolicy{Next: p, Boot: BootRules{{Name: "legacy", Match: Match{Archs: []iana.Arch{0}}, Boot: Boot{File: "pxelinux.0"}}}.Boot}
	for range 2 {
		e := Explain(t.Context(), policy, on(message(discover, macA, BIOSFirmware())))
		require.NoError(t, e.Err)
		require.Equal(t, "10.0.0.100", e.Reply.YourIPAddr.String())
		require.Equal(t, []string{
			`DISCOVER of 02:00:00:00:00:0a: platform "pxe", architecture 0 (Intel x86PC)`,
			`10.0.0.100 was never used`,
			`class "bios" (arch=0)`,
			`boot rule 1 legacy (arch=0) gives "pxelinux.0"`,
			`reply OFFER to 255.255.255.255:68`,
		}, e.Steps)
	}
	require.Equal(t, ip("10.0.0.100"), dora(t, p, macB, bareSystem), "nothing was held")
	e := Explain(t.Context(), policy, on(message(request, macA, bareSystem, requested("10.0.0.100"))))
	require.Contains(t, e.Steps, "the machine cannot have 10.0.0.100")
	e = Explain(t.Context(), policy, on(message(discover, macA, bareSystem, relay("10.3.0.1"))))
	require.Nil(t, e.Reply)
	require.Contains(t, e.Steps, "no reply: nobody took the request")
	bare := HandlerFunc(func(context.Context, *Request) (*dhcpv4.DHCPv4, error) { return new(dhcpv4.DHCPv4), nil })
	e = Explain(t.Context(), bare, on(message(discover, macA, IPXEFirmware(0))))
	require.Equal(t, macA, e.Reply.ClientHWAddr, "as it would be sent")
	require.Contains(t, e.Reply.Options, uint8(61))
}

// What is repeated, by a machine or by somebody who recorded it, is answered as
// before and changes nothing; an old REQUEST takes no address from its owner.
func TestPoolReplays(t *testing.T) {
	p := testPool()
	addr := dora(t, p, macA, bareSystem)
	first, want := message(discover, macA, bareSystem), message(request, macA, bareSystem, requested(addr.String()), serverID("10.0.0.1"))
	for range 50 {
		kind, reply := serve(t, p, on(first))
		require.Equal(t, offered, kind)
		require.Equal(t, addr, toAddr(reply.YourIPAddr))
		kind, reply = serve(t, p, on(want))
		require.Equal(t, acked, kind)
		require.Equal(t, addr, toAddr(reply.YourIPAddr))
	}
	n := 0
	for _, err := range p.store.Leases(t.Context()) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, 1, n)

	require.NoError(t, p.store.Release(t.Context(), addr, string(macA)))
	other := message(request, macB, bareSystem, requested(addr.String()))
	kind, _ := serve(t, p, on(other))
	require.Equal(t, acked, kind)
	kind, _ = serve(t, p, on(want))
	require.Equal(t, naked, kind, "it is another's by now")
	l, err := p.LeaseByAddr(t.Context(), addr)
	require.NoError(t, err)
	require.Equal(t, macB, l.HardwareAddr)
}
