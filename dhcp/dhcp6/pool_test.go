package dhcp6

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// ROM, iPXE and system send other DUIDs, and have one address.
func TestOneMachineOneAddress(t *testing.T) {
	p := testPool()
	addr := lease(t, p, macA, uefi)
	require.Equal(t, addr, lease(t, p, macA, IPXEFirmware(iana.EFI_X86_64)))
	require.Equal(t, addr, lease(t, p, macA, system))
	require.Equal(t, addr, lease(t, p, macA, system, withDUID(&dhcpv6.DUIDEN{EnterpriseNumber: 43793, EnterpriseIdentifier: []byte("12345678")})))
	require.NotEqual(t, addr, lease(t, p, macB, uefi), "the same DUID on another card")

	l, err := p.LeaseByAddr(t.Context(), ip(addr))
	require.NoError(t, err)
	require.Equal(t, macA, l.HardwareAddr)
	require.Equal(t, "11223344-0506-0708-090a-0b0c0d0e0f10", l.UUID, "what the firmware told outlives the system's requests")
	require.Equal(t, iana.Archs{iana.EFI_X86_64}, l.Archs)
	_, err = p.LeaseByAddr(t.Context(), ip("fd00::1"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// Where the hardware address comes from.
func TestHardwareAddr(t *testing.T) {
	llt := &dhcpv6.DUIDLLT{HWType: iana.HWTypeEthernet, Time: 7, LinkLayerAddr: macB}
	private := func(r *Request) *Request { // a link-local address that tells nothing
		r.Peer = netip.MustParseAddrPort("[fe80::1234:5678:9abc:def0]:546")
		return r
	}
	require.Equal(t, macA, message(solicit, macA, uefi).HardwareAddr(), "link-local address")
	require.Equal(t, macA, message(solicit, macA, uefi, withDUID(llt)).HardwareAddr(), "the card before the DUID")
	require.Equal(t, macB, private(message(solicit, macA, uefi, withDUID(llt))).HardwareAddr(), "LLT")
	require.Equal(t, macA, private(message(solicit, macA, system)).HardwareAddr(), "LL")
	require.Nil(t, private(message(solicit, macA, uefi)).HardwareAddr(), "UUID")
	require.Nil(t, private(message(solicit, macA, uefi, withDUID(&dhcpv6.DUIDLL{LinkLayerAddr: make([]byte, 6)}))).HardwareAddr())
	r := relayed(private(message(solicit, macA, system)), "fd00::9", dhcpv6.OptClientLinkLayerAddress(iana.HWTypeEthernet, macB))
	require.Equal(t, macB, r.HardwareAddr(), "the relay before all")
	require.Equal(t, macA, relayed(message(solicit, macA, uefi), "fd00::9").HardwareAddr(), "the client's address, not the relay's")

	// Without one it is the DUID.
	p := testPool()
	first := ask(t, p, private(message(request, macA, uefi, to(self), withIA())))
	a, _ := granted(first)
	b, _ := granted(ask(t, p, private(message(request, macB, uefi, to(self), withIA()))))
	require.Equal(t, a, b)
	require.Len(t, a, 1)
}

func TestReservations(t *testing.T) {
	p := testPool(func(p *Pool) {
		p.KnownOnly = true
		p.Reservations = []Reservation{
			{HardwareAddr: macA, Addr: ip("fd00::a"), Hostname: "a", Options: dhcpv6.Options{dhcpv6.OptDNS(net.ParseIP("fd00::53"))}},
			{UUID: "11223344-0506-0708-090A-0B0C0D0E0F10", Addr: ip("fd00::110"), Hostname: "b"},
		}
		p.DNS = []netip.Addr{ip("fd00::54")}
	})
	require.Equal(t, "fd00::a", lease(t, p, macA, uefi), "the hardware address counts first")
	require.Equal(t, "fd00::110", lease(t, p, macB, uefi))
	reply := ask(t, p, message(information, macA, system))
	require.Equal(t, "fd00::53", reply.Options.DNS()[0].String())
	require.Nil(t, ask(t, p, message(solicit, macB, system, withIA())), "unknown")
	require.Nil(t, ask(t, p, message(information, macB, system)), "unknown")

	// A reserved address is for nobody else, whatever they ask for.
	p.KnownOnly = false
	reply = ask(t, p, message(request, macB, system, to(self), withIA("fd00::a")))
	addrs, _ := granted(reply)
	require.Len(t, addrs, 1)
	require.NotEqual(t, "fd00::a", addrs[0])
	p = testPool(func(p *Pool) { p.Reservations = []Reservation{{HardwareAddr: macA, Addr: ip("fd00::110")}} })
	got, _ := granted(ask(t, p, message(request, macB, system, to(self), withIA("fd00::110"))))
	require.NotContains(t, got, "fd00::110", "though it is in a range, and free")
	require.Zero(t, reply.Options.OneIANA().Options.Addresses()[1].ValidLifetime, "what it has not is taken away")
}

func TestMessages(t *testing.T) {
	p := testPool(func(p *Pool) { p.Preference = 7 })
	mine := lease(t, p, macA, uefi)
	one := func(r *Request, codes ...iana.StatusCode) []string {
		t.Helper()
		reply := ask(t, p, r)
		require.NotNil(t, reply)
		addrs, got := granted(reply)
		if s := reply.Options.Status(); s != nil {
			got = append(got, s.StatusCode)
		}
		require.Equal(t, codes, got)
		return addrs
	}
	require.EqualValues(t, 7, ask(t, p, message(solicit, macB, uefi, withIA())).Options.Preference())
	require.Equal(t, []string{mine}, one(message(renew, macA, uefi, to(self), withIA(mine))))
	require.Equal(t, []string{mine}, one(message(rebind, macA, uefi, withIA(mine))))
	one(message(confirm, macA, uefi, withIA(mine)), iana.StatusSuccess)
	one(message(confirm, macA, uefi, withIA("fd01::1")), iana.StatusNotOnLink)
	require.Nil(t, ask(t, p, message(confirm, macA, uefi, withIA())), "nothing to confirm")

	// One address for a machine; no prefixes, no temporary addresses.
	reply := ask(t, p, message(solicit, macA, uefi, withIA(), withIA(), func(m *dhcpv6.Message) {
		m.AddOption(&dhcpv6.OptIAPD{IaId: [4]byte{9}})
		m.AddOption(&dhcpv6.OptIATA{IaId: [4]byte{8}})
	}))
	addrs, codes := granted(reply)
	require.Equal(t, []string{mine}, addrs)
	require.Equal(t, []iana.StatusCode{iana.StatusNoAddrsAvail}, codes)
	require.Equal(t, iana.StatusNoPrefixAvail, reply.Options.OneIAPD().Options.Status().StatusCode)
	require.Equal(t, iana.StatusNoAddrsAvail, reply.Options.OneIATA().Options.Status().StatusCode)
	ia := reply.Options.OneIANA()
	require.Equal(t, []time.Duration{6 * time.Hour, 9*time.Hour + 36*time.Minute}, []time.Duration{ia.T1, ia.T2})

	// Not for this server, or not as RFC 8415 section 16 wants it.
	for _, r := range []*Request{
		message(request, macA, uefi, to(other), withIA(mine)), message(request, macA, uefi, withIA(mine)), message(renew, macA, uefi, to(other), withIA(mine)),
		message(release, macA, uefi, withIA(mine)), message(decline, macA, uefi, to(other), withIA(mine)), message(rebind, macA, uefi, to(self), withIA(mine)),
		message(solicit, macA, uefi, to(self), withIA()), message(information, macA, uefi, to(other)), message(information, macA, uefi, withIA()),
		message(solicit, macA, uefi, withIA(), func(m *dhcpv6.Message) { m.Options.Del(dhcpv6.OptionClientID) }),
		message(dhcpv6.MessageTypeReconfigure, macA, uefi, to(self)),
	} {
		require.Nil(t, ask(t, p, r), "%v", r.Message)
	}

	// Unicast without leave.
	r := message(renew, macA, uefi, to(self), withIA(mine))
	r.Local = netip.MustParseAddrPort("[fd00::1]:547")
	one(r, iana.StatusUseMulticast)
	r = message(solicit, macA, uefi, withIA())
	r.Local = netip.MustParseAddrPort("[fd00::1]:547")
	require.Nil(t, ask(t, p, r))

	// Giving back what is another's has no effect.
	one(message(release, macB, uefi, to(self), withIA(mine)), iana.StatusNoBinding, iana.StatusSuccess)
	one(message(decline, macB, uefi, to(self), withIA(mine)), iana.StatusNoBinding, iana.StatusSuccess)
	one(message(decline, macB, uefi, to(self), withIA("fd00::150")), iana.StatusNoBinding, iana.StatusSuccess)
	_, err := p.LeaseByAddr(t.Context(), ip(mine))
	require.NoError(t, err)
	one(message(release, macA, uefi, to(self), withIA(mine)), iana.StatusSuccess)
	_, err = p.LeaseByAddr(t.Context(), ip(mine))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, mine, lease(t, p, macA, uefi), "it is there again")
}

// What a request has logged once is not used up by an explanation, nor is a pool
// taken for full by it.
func TestExplainLogsNothing(t *testing.T) {
	var log bytes.Buffer
	p := testPool(func(p *Pool) {
		p.Logger = slog.New(slog.NewTextHandler(&log, nil))
		p.Ranges = []dhcp.Range{{First: ip("fd00::1"), Last: ip("fd00::200")}}
		p.Reservations = []Reservation{{HardwareAddr: macB, Addr: ip("fd00::1")}}
	})
	require.NoError(t, p.Validate())
	var last dhcp.Lease
	for i := range uint64(0x200) {
		last = dhcp.Lease{Addr: p.nth(i), HardwareAddr: net.HardwareAddr{6, 0, 0, 0, byte(i >> 8), byte(i)}, Expires: time.Now().Add(time.Hour)}
		require.NoError(t, p.store.Commit(t.Context(), last))
	}
	for _, mac := range []net.HardwareAddr{macA, macB} {
		_, codes := granted(Explain(t.Context(), p, message(solicit, mac, uefi, withIA())).Reply)
		require.Equal(t, []iana.StatusCode{iana.StatusNoAddrsAvail}, codes)
	}
	require.Empty(t, log.String())
	ask(t, p, message(solicit, macB, uefi, withIA()))
	require.Contains(t, log.String(), "a reserved address is leased")
	require.NoError(t, p.store.Release(t.Context(), last.Addr, string(last.HardwareAddr)))
	addrs, _ := granted(ask(t, p, message(solicit, macA, uefi, withIA())))
	require.Equal(t, []string{last.Addr.String()}, addrs, "all of the range is searched")
}

func TestRapidCommit(t *testing.T) {
	p := testPool(func(p *Pool) { p.RapidCommit = true })
	reply := ask(t, p, message(solicit, macA, uefi, withIA(), rapid))
	require.Equal(t, dhcpv6.MessageTypeReply, reply.MessageType)
	require.NotNil(t, reply.GetOneOption(dhcpv6.OptionRapidCommit))
	addrs, _ := granted(reply)
	_, err := p.LeaseByAddr(t.Context(), ip(addrs[0]))
	require.NoError(t, err)
	require.Equal(t, dhcpv6.MessageTypeAdvertise, ask(t, p, message(solicit, macB, uefi, withIA())).MessageType)
	require.Equal(t, dhcpv6.MessageTypeAdvertise, ask(t, testPool(), message(solicit, macB, uefi, withIA(), rapid)).MessageType)
}

// An address that somebody else has is left alone for a time; a lease ends.
func TestDeclineAndExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		p := testPool(func(p *Pool) {
			p.LeaseTime = time.Hour
			p.Ranges = []dhcp.Range{{First: ip("fd00::100"), Last: ip("fd00::101")}}
			p.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		})
		mine := lease(t, p, macA, uefi)
		_, theirs := granted(ask(t, p, message(decline, macB, uefi, to(self), withIA(mine))))
		require.Equal(t, []iana.StatusCode{iana.StatusNoBinding}, theirs)
		require.Empty(t, logged.String(), "not its address: not believed")
		ask(t, p, message(decline, macA, uefi, to(self), withIA(mine)))
		again := lease(t, p, macA, uefi)
		require.NotEqual(t, mine, again)
		_, codes := granted(ask(t, p, message(request, macB, uefi, to(self), withIA(mine))))
		require.Equal(t, []iana.StatusCode{iana.StatusNoAddrsAvail}, codes)
		// A renewal of what the server cannot give, and a rebinding.
		_, codes = granted(ask(t, p, message(renew, macB, uefi, to(self), withIA(mine))))
		require.Equal(t, []iana.StatusCode{iana.StatusNoBinding}, codes)
		ia := ask(t, p, message(rebind, macB, uefi, withIA(mine))).Options.OneIANA()
		require.Nil(t, ia.Options.Status())
		require.Zero(t, ia.Options.OneAddress().ValidLifetime)

		time.Sleep(11 * time.Minute)
		require.Equal(t, mine, lease(t, p, macB, uefi))
		time.Sleep(time.Hour)
		_, err := p.LeaseByAddr(t.Context(), ip(mine))
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.Equal(t, again, lease(t, p, macA, uefi), "an expired lease is remembered")
	})
}

// Every address of a range is given, each once, and then none.
func TestEveryAddress(t *testing.T) {
	p := testPool(func(p *Pool) {
		p.Ranges = []dhcp.Range{{First: ip("fd00::ffff:ffff:ffff:fff0"), Last: ip("fd00::ffff:ffff:ffff:ffff")}, {First: ip("fd00::"), Last: ip("fd00::f")}}
		p.Exclude = []dhcp.Range{{First: ip("fd00::1"), Last: ip("fd00::2")}}
	})
	seen := map[string]bool{}
	for i := range 29 {
		hw := net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}
		seen[lease(t, p, hw, uefi)] = true
	}
	require.Len(t, seen, 29)
	for _, never := range []string{"fd00::", "fd00::1", "fd00::2"} {
		require.NotContains(t, seen, never)
	}
	_, codes := granted(ask(t, p, message(solicit, macA, uefi, withIA())))
	require.Equal(t, []iana.StatusCode{iana.StatusNoAddrsAvail}, codes)
}

// A whole /64, at random; and what a server that has forgotten its leases
// gives is what it gave before.
func TestWholePrefix(t *testing.T) {
	whole := func(p *Pool) {
		p.Ranges = []dhcp.Range{{First: ip("fd00::"), Last: ip("fd00::ffff:ffff:ffff:ffff")}}
	}
	p, after := testPool(whole), testPool(whole)
	seen := map[string]bool{}
	for range 1000 {
		hw := net.HardwareAddr{2, 0, byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())}
		a := lease(t, p, hw, uefi)
		require.True(t, p.Prefix.Contains(ip(a)))
		seen[a] = true
		require.Equal(t, a, lease(t, after, hw, system))
	}
	require.Greater(t, len(seen), 990)
}

// A machine that makes up others cannot fill the store.
func TestFlood(t *testing.T) {
	p := testPool(func(p *Pool) { p.MaxNewPerLink = 10 })
	known := lease(t, p, macA, uefi)
	got := 0
	for i := range 100 {
		addrs, _ := granted(ask(t, p, message(request, net.HardwareAddr{2, 0, 0, 0, 2, byte(i)}, uefi, to(self), withIA())))
		got += len(addrs)
	}
	require.Equal(t, 9, got)
	require.Equal(t, known, lease(t, p, macA, uefi))
	addrs, _ := granted(ask(t, p, relayed(message(request, macB, uefi, to(self), withIA()), "fd00::9")))
	require.Len(t, addrs, 1, "another link")
}

// Nor by making up relays, of other links of the prefix and at other addresses
// of where it is; relays elsewhere serve their machines meanwhile.
func TestForgedRelays(t *testing.T) {
	p := testPool(func(p *Pool) { p.MaxNewPerLink = 10 })
	got := 0
	for i := range byte(100) {
		r := relayed(message(request, net.HardwareAddr{2, 0, 0, 0, 2, i}, uefi, to(self), withIA()), netip.AddrFrom16([16]byte{0: 0xfd, 14: 7, 15: i}).String())
		r.Peer = netip.AddrPortFrom(netip.AddrFrom16([16]byte{0: 0xfd, 7: 9, 15: i}), serverPort)
		addrs, _ := granted(ask(t, p, r))
		got += len(addrs)
	}
	require.Equal(t, 10, got)
	addrs, _ := granted(ask(t, p, relayed(message(request, macB, uefi, to(self), withIA()), "fd00::9")))
	require.Len(t, addrs, 1)
}

// A machine that finds every address in use does not take all of them, nor the
// one that is reserved for it.
func TestDeclinesEverything(t *testing.T) {
	p := testPool(func(p *Pool) { p.Reservations = []Reservation{{HardwareAddr: macB, Addr: ip("fd00::b")}} })
	declined := func(hw net.HardwareAddr) (n int) {
		for range 3 * maxDeclines {
			mine := lease(t, p, hw, uefi)
			require.Equal(t, iana.StatusSuccess, ask(t, p, message(decline, hw, uefi, to(self), withIA(mine))).Options.Status().StatusCode)
			if l, err := p.store.LeaseByAddr(t.Context(), ip(mine)); err == nil && l.Declined {
				n++
			}
		}
		return n
	}
	require.Equal(t, maxDeclines, declined(macA))
	require.Zero(t, declined(macB))
	require.Equal(t, maxDeclines, declined(append(macA[:5:5], 9)), "another machine is believed")
}

func TestRelayed(t *testing.T) {
	near, far := testPool(), testPool(func(p *Pool) {
		p.Prefix = netip.MustParsePrefix("fd01::/64")
		p.Ranges = []dhcp.Range{{First: ip("fd01::100"), Last: ip("fd01::1ff")}}
	})
	h := First(near, far)
	inner := relayed(message(solicit, macA, uefi, withIA()), "fd01::9", dhcpv6.OptInterfaceID([]byte("port 7")))
	r := relayed(inner, "fd00::9")
	addrs, _ := granted(ask(t, h, r))
	require.True(t, far.Prefix.Contains(ip(addrs[0])), "the relay next to the client counts")
	require.Equal(t, "fd01::9", r.LinkAddr().String())

	// A relay that knows no address, on our own link.
	addrs, _ = granted(ask(t, h, relayed(message(solicit, macA, uefi, withIA()), "::")))
	require.True(t, near.Prefix.Contains(ip(addrs[0])))
	require.Nil(t, ask(t, h, relayed(message(solicit, macA, uefi, withIA()), "fd02::9")), "a link that is not ours")
}

func TestValidatePool(t *testing.T) {
	for want, change := range map[string]func(*Pool){
		"no IPv6 prefix":      func(p *Pool) { p.Prefix = netip.MustParsePrefix("10.0.0.0/8") },
		"host bits":           func(p *Pool) { p.Prefix = netip.MustParsePrefix("fd00::1/64") },
		"not of addresses":    func(p *Pool) { p.Prefix = netip.MustParsePrefix("fe80::/64") },
		"ServerID is missing": func(p *Pool) { p.ServerID = nil },
		"ServerID has":        func(p *Pool) { p.ServerID = &dhcpv6.DUIDEN{EnterpriseIdentifier: make([]byte, 200)} },
		"not inside":          func(p *Pool) { p.Ranges[0].Last = ip("fd01::1") },
		"ends before":         func(p *Pool) { p.Ranges[0].Last = ip("fd00::1") },
		"overlap":             func(p *Pool) { p.Ranges = append(p.Ranges, p.Ranges[0]) },
		"is no range":         func(p *Pool) { p.Exclude = []dhcp.Range{{}} },
		"LeaseTime":           func(p *Pool) { p.LeaseTime = time.Millisecond },
		"DeclineTime":         func(p *Pool) { p.DeclineTime = -1 },
		"DNS server":          func(p *Pool) { p.DNS = []netip.Addr{ip("10.0.0.1")} },
		"no domain":           func(p *Pool) { p.Domains = []string{"a..b"} },
		"protocol's own":      func(p *Pool) { p.Options = dhcpv6.Options{dhcpv6.OptPreference(1)} },
		"names no machine":    func(p *Pool) { p.Reservations = []Reservation{{Addr: ip("fd00::a")}} },
		"6 to 16 bytes":       func(p *Pool) { p.Reservations = []Reservation{{HardwareAddr: macA[:3]}} },
		"two reservations":    func(p *Pool) { p.Reservations = []Reservation{{HardwareAddr: macA}, {HardwareAddr: macA}} },
		"no host name":        func(p *Pool) { p.Reservations = []Reservation{{HardwareAddr: macA, Hostname: "a b"}} },
		"for both": func(p *Pool) {
			p.Reservations = []Reservation{{HardwareAddr: macA, Addr: ip("fd00::a")}, {HardwareAddr: macB, Addr: ip("fd00::a")}}
		},
		"not an address": func(p *Pool) { p.Reservations = []Reservation{{HardwareAddr: macA, Addr: ip("fd01::a")}} },
	} {
		p := testPool(change)
		require.ErrorContains(t, p.Validate(), want)
		require.ErrorIs(t, p.Validate(), fs.ErrInvalid)
		_, err := p.ServeDHCP(t.Context(), message(solicit, macA, uefi))
		require.Error(t, err)
	}
	require.NoError(t, testPool(func(p *Pool) { p.LeaseTime, p.Domains = -1, []string{"lab.example"} }).Validate())
}

// Leases of both protocols are in one file, and there after a restart.
func TestFileStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "leases")
	var mine string
	for range 2 {
		store, err := dhcp.OpenFileStore(file, nil)
		require.NoError(t, err)
		p := testPool(func(p *Pool) { p.Store = store })
		if mine == "" {
			mine = lease(t, p, macA, uefi)
			require.NoError(t, store.Commit(t.Context(), dhcp.Lease{Addr: ip("10.0.0.1"), HardwareAddr: macA, Expires: time.Now().Add(time.Hour)}))
		} else {
			l, err := p.LeaseByAddr(t.Context(), ip(mine))
			require.NoError(t, err)
			require.Equal(t, macA, l.HardwareAddr)
			leases, err := store.LeasesByOwner(t.Context(), string(macA))
			require.NoError(t, err)
			require.Len(t, leases, 2)
			require.Equal(t, mine, lease(t, p, macA, system))
		}
		require.NoError(t, store.Close())
	}
}

func TestForEver(t *testing.T) {
	p := testPool(func(p *Pool) { p.LeaseTime = -1 })
	ia := ask(t, p, message(request, macA, uefi, to(self), withIA())).Options.OneIANA()
	require.Equal(t, "ffffffffffffffff", fmt.Sprintf("%x", ia.ToBytes()[4:12]), "RFC 8415 section 7.7")
	l, err := p.LeaseByAddr(t.Context(), toAddr(ia.Options.OneAddress().IPv6Addr))
	require.NoError(t, err)
	require.True(t, l.Expires.IsZero())
}
