package dhcp6

import (
	"bytes"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

var rules = BootRules{
	{Match: Match{Platforms: []dhcp.Platform{dhcp.PlatformIPXE}}, Boot: Boot{URL: "http://[fd00::1]/boot.ipxe", Params: []string{"a=1", "b c"}}},
	{Match: Match{Platforms: []dhcp.Platform{dhcp.PlatformHTTP}}, Boot: Boot{URL: "http://[fd00::1]/snponly.efi"}},
	{Name: "PXE", Match: Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: Boot{URL: "tftp://[fd00::1]/snponly.efi"}},
}

func TestBootPolicy(t *testing.T) {
	var log bytes.Buffer
	p := &BootPolicy{Next: testPool(), Boot: rules.Boot, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	require.NoError(t, p.Check(t.Context()))
	for _, kind := range []dhcpv6.MessageType{solicit, information} {
		m := ask(t, p, message(kind, macA, IPXEFirmware(iana.EFI_X86_64)))
		require.Equal(t, "http://[fd00::1]/boot.ipxe", m.Options.BootFileURL())
		require.Equal(t, []string{"a=1", "b c"}, m.Options.BootFileParam())
		require.Nil(t, m.Options.VendorClasses())
		m = ask(t, p, message(kind, macA, HTTPFirmware(iana.EFI_X86_64_HTTP)))
		require.Equal(t, "http://[fd00::1]/snponly.efi", m.Options.BootFileURL())
		require.Equal(t, "HTTPClient", string(m.Options.VendorClass(343)[0]))
		for _, arch := range []iana.Arch{iana.EFI_X86_64, iana.EFI_BC} {
			require.Equal(t, "tftp://[fd00::1]/snponly.efi", ask(t, p, message(kind, macA, UEFIFirmware(arch))).Options.BootFileURL())
		}
		require.Empty(t, ask(t, p, message(kind, macA, system)).Options.BootFileURL())
	}
	require.Empty(t, log.String())
	for range 2 {
		require.Empty(t, ask(t, p, message(solicit, macA, UEFIFirmware(iana.EFI_RISCV64))).Options.BootFileURL())
	}
	require.Equal(t, 1, strings.Count(log.String(), "no boot file for this client"), log.String())

	// What firmware cannot load is not sent.
	bad := &BootPolicy{Next: testPool(), Boot: BootRules{{Boot: Boot{URL: "snponly.efi"}}}.Boot, Logger: p.Logger}
	require.Empty(t, ask(t, bad, message(solicit, macA, uefi)).Options.BootFileURL())
	require.Contains(t, log.String(), "DHCPv6 has no next-server")
}

func TestCheck(t *testing.T) {
	for want, rules := range map[string]BootRules{
		"DHCPv6 has no next-server": {{Boot: Boot{URL: "boot.efi"}}},
		"begins with tftp://":       {{Boot: Boot{URL: "http://[fd00::1]/x.efi"}}},
		"begins with http://":       {{Boot: Boot{URL: "tftp://[fd00::1]/x.efi"}}},
		"once more":                 {{Match: Match{Archs: []iana.Arch{7}}, Boot: Boot{URL: "tftp://[fd00::1]/x.efi"}}},
	} {
		err := (&BootPolicy{Boot: rules.Boot}).Check(t.Context())
		require.ErrorIs(t, err, fs.ErrInvalid)
		require.ErrorContains(t, err, want)
	}
	require.ErrorIs(t, new(BootPolicy).Check(t.Context()), fs.ErrInvalid)
}

func TestMatch(t *testing.T) {
	r := relayed(message(solicit, macA, uefi), "fd01::9", dhcpv6.OptInterfaceID([]byte("port 7")))
	for _, c := range []struct{ yes, no Match }{
		{Match{}, Match{Archs: []iana.Arch{0}}},
		{Match{Archs: []iana.Arch{9}}, Match{Platforms: []dhcp.Platform{dhcp.PlatformHTTP}}},
		{Match{HardwareAddrs: []net.HardwareAddr{macA[:3]}}, Match{HardwareAddrs: []net.HardwareAddr{macB}}},
		{Match{DUIDs: [][]byte{r.DUID()}}, Match{DUIDs: [][]byte{{1, 2, 3}}}},
		{Match{UUIDs: []string{strings.ToUpper(r.UUID())}}, Match{UUIDs: []string{""}}},
		{Match{VendorClasses: []string{"PXEClient:Arch:00007"}}, Match{UserClasses: []string{"iPXE"}}},
		{Match{Links: []netip.Prefix{netip.MustParsePrefix("fd01::/16")}}, Match{Links: []netip.Prefix{netip.MustParsePrefix("fd00::/64")}}},
		{Match{InterfaceIDs: []string{"port 7"}}, Match{InterfaceIDs: []string{"port"}}},
	} {
		require.True(t, c.yes.Matches(r), "%v", &c.yes)
		require.False(t, c.no.Matches(r), "%v", &c.no)
		require.NotEmpty(t, c.no.String())
	}
}

func TestStateless(t *testing.T) {
	s := &Stateless{ServerID: self, DNS: []netip.Addr{ip("fd00::53")}, Domains: []string{"lab.example"}}
	h := &BootPolicy{Next: s, Boot: rules.Boot}
	m := ask(t, h, message(information, macA, uefi))
	require.Equal(t, "tftp://[fd00::1]/snponly.efi", m.Options.BootFileURL())
	require.Equal(t, "fd00::53", m.Options.DNS()[0].String())
	require.Equal(t, []string{"lab.example"}, m.Options.DomainSearchList().Labels)
	require.Nil(t, ask(t, h, message(solicit, macA, uefi, withIA())))
	require.ErrorIs(t, new(Stateless).Validate(), fs.ErrInvalid)
}

// Explain tells why, and changes nothing.
func TestExplain(t *testing.T) {
	pool := testPool()
	p := &BootPolicy{Next: pool, Boot: rules.Boot}
	e := Explain(t.Context(), p, message(request, macA, uefi, to(self), withIA()))
	require.NoError(t, e.Err)
	text := strings.Join(e.Steps, "\n")
	for _, want := range []string{"REQUEST of 52:54:00:01:02:03", "architecture 7", "free", `boot rule 3 PXE (arch=7) gives "tftp://`, "reply REPLY"} {
		require.Contains(t, text, want)
	}
	addrs, _ := granted(e.Reply)
	_, err := pool.LeaseByAddr(t.Context(), ip(addrs[0]))
	require.ErrorIs(t, err, fs.ErrNotExist)
	e = Explain(t.Context(), p, relayed(message(solicit, macA, uefi), "fd09::1"))
	require.Contains(t, strings.Join(e.Steps, "\n"), "not on the link of fd00::/64")
}
