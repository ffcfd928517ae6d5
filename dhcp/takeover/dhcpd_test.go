package takeover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

var names = map[string]string{"frontdesk3": "10.20.1.3", "boot-1": "10.9.0.9"}

func options() *Options {
	return &Options{
		ServerID: ip("10.20.0.2"), Logger: slog.New(slog.DiscardHandler),
		Resolve: func(_ context.Context, name string) (netip.Addr, error) {
			if a, ok := names[name]; ok {
				return ip(a), nil
			}
			return netip.Addr{}, errors.New("no such host")
		},
	}
}

func read(t *testing.T, text string) *Config {
	t.Helper()
	c, err := DHCPD(t.Context(), "test.conf", []byte(text), options())
	require.NoError(t, err)
	return unprobed(c)
}

// unprobed is without the question whether an address is in use: there is no
// network to ask.
func unprobed(c *Config) *Config {
	for _, n := range c.Networks {
		for _, p := range n.Pools {
			p.InUse = nil
		}
		for _, m := range n.Members {
			for _, p := range m.Pools {
				p.InUse = nil
			}
		}
	}
	return c
}

func sample(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return data
}

// ask sends a DISCOVER through a relay of the given address.
func ask(t *testing.T, h dhcp.Handler, relay string, hw net.HardwareAddr, f dhcp.Firmware, change ...func(*dhcpv4.DHCPv4)) *dhcpv4.DHCPv4 {
	t.Helper()
	var sent *dhcpv4.DHCPv4
	client := dhcp.Client{HardwareAddr: hw, Firmware: f, Conn: captureConn{&sent}, Server: &net.UDPAddr{}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := client.Exchange(ctx)
	require.ErrorIs(t, err, context.Canceled)
	sent.GatewayIPAddr = net.ParseIP(relay).To4()
	for _, ch := range change {
		ch(sent)
	}
	reply, err := h.ServeDHCP(t.Context(), &dhcp.Request{DHCPv4: sent})
	require.NoError(t, err)
	return reply
}

// captureConn keeps what a client sends.
type captureConn struct{ sent **dhcpv4.DHCPv4 }

func (c captureConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	m, err := dhcpv4.FromBytes(b)
	*c.sent = m
	return len(b), err
}
func (captureConn) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, os.ErrDeadlineExceeded }
func (captureConn) Close() error                           { return nil }
func (captureConn) LocalAddr() net.Addr                    { return &net.UDPAddr{} }
func (captureConn) SetDeadline(time.Time) error            { return nil }
func (captureConn) SetReadDeadline(time.Time) error        { return nil }
func (captureConn) SetWriteDeadline(time.Time) error       { return nil }

var station = net.HardwareAddr{0x20, 0xcf, 0x30, 0, 0x11, 0x9e}

func TestSampleHostPerStation(t *testing.T) {
	c, err := DHCPD(t.Context(), "host-per-station.conf", sample(t, "host-per-station.conf"), options())
	require.NoError(t, err)
	require.Len(t, c.Networks, 1)
	for _, n := range c.Notes {
		require.True(t, n.Harmless, "%v", n)
	}
	for _, test := range []struct {
		f    dhcp.Firmware
		file string
	}{
		{dhcp.BIOSFirmware(), "/loaders/undionly.kpxe"},
		{dhcp.GPXEFirmware(), "/images-trusty/i386/pxelinux.0"},
		{dhcp.EtherbootFirmware(), "/images-trusty/i386/nbi.img"},
	} {
		reply := ask(t, c, "10.20.0.1", station, test.f)
		require.Equal(t, test.file, reply.BootFileName)
		require.Equal(t, "10.20.1.3", reply.YourIPAddr.String())
		require.Equal(t, "10.20.0.9", reply.ServerIPAddr.String())
		require.Equal(t, "frontdesk3", reply.HostName())
		require.Equal(t, "10.20.0.1", reply.Router()[0].String())
	}
	require.Nil(t, ask(t, c, "10.20.0.1", net.HardwareAddr{2, 0, 0, 0, 0, 1}, dhcp.BIOSFirmware()), "there is no range")
}

func TestSampleCluster(t *testing.T) {
	data := sample(t, "cluster.conf")
	_, err := DHCPD(t.Context(), "cluster.conf", data, options())
	var s *SyntaxError
	require.ErrorAs(t, err, &s)
	require.Equal(t, "cluster.conf:2:29: this block is never closed: a } is missing", err.Error())

	c, err := DHCPD(t.Context(), "cluster.conf", append(data, "}\n"...), options())
	require.NoError(t, err)
	require.Empty(t, c.Notes)
	require.Equal(t, "node-network", c.Networks[0].Name)
	p := c.Networks[0].Pools[0]
	p.InUse = nil
	require.EqualValues(t, -1, p.LeaseTime)
	require.False(t, p.NotAuthoritative)
	uefi := ask(t, c, "10.9.0.1", station, dhcp.UEFIFirmware(iana.EFI_X86_64))
	require.Equal(t, "/nodes/amd64/grub/x86_64-efi/core.efi", uefi.BootFileName)
	require.Equal(t, "10.9.0.9", uefi.ServerIPAddr.String())
	require.EqualValues(t, uint32(math.MaxUint32), uefi.IPAddressLeaseTime(0)/time.Second)
	require.Equal(t, "/nodes/amd64/grub/i386-pc/core.0", ask(t, c, "10.9.0.1", station, dhcp.BIOSFirmware()).BootFileName)
}

func TestSampleLibrary(t *testing.T) {
	c := read(t, string(sample(t, "library.conf")))
	require.Equal(t, dhcp.BOOTPReserved, c.Networks[0].Pools[0].BOOTP)
	pinned := ask(t, c, "192.168.2.9", net.HardwareAddr{0, 0x16, 0x3e, 0xaa, 0xbb, 1}, dhcp.BIOSFirmware())
	require.Equal(t, "192.168.2.20", pinned.YourIPAddr.String())
	require.Equal(t, "/pxelinux.0", pinned.BootFileName)
	other := ask(t, c, "192.168.2.9", station, dhcp.BIOSFirmware())
	require.True(t, netip.MustParsePrefix("192.168.2.0/24").Contains(netip.MustParseAddr(other.YourIPAddr.String())))
}

func TestSampleRangeOfRoots(t *testing.T) {
	c := read(t, string(sample(t, "range-of-roots.conf")))
	var serious []string
	for _, n := range c.Notes {
		if !n.Harmless {
			serious = append(serious, n.String())
		}
	}
	require.Equal(t, []string{"test.conf:13:9: get-lease-hostnames: host names are not looked up in the DNS for each lease: give the machines host blocks with their names"}, serious)
	reply := ask(t, c, "192.168.0.1", station, dhcp.BIOSFirmware())
	require.Equal(t, "pxelinux.0", reply.BootFileName)
	require.Equal(t, "192.168.0.10", reply.ServerIPAddr.String())
	require.Equal(t, []byte{0xff, 0xff, 0xb9, 0xb0}, reply.Options[2])
	require.Equal(t, "example.com", reply.DomainName())
	require.Equal(t, 24*time.Hour, reply.IPAddressLeaseTime(0))
	require.Equal(t, 7*24*time.Hour, c.Networks[0].Pools[0].MaxLeaseTime)
}

const site = `
option space PXE;
option site-id code 224 = text;
option boot-count code 225 = unsigned integer 16;
option arch code 93 = unsigned integer 16;
option site-id "global";
ping-check off;
class "thin" { match if substring(option vendor-class-identifier, 0, 4) = "thin"; option site-id "class"; filename "thin.img"; }
class "odd" { match hardware; }
shared-network two {
  option routers 10.1.0.1;
  subnet 10.1.0.0 netmask 255.255.255.0 { range 10.1.0.10; option site-id "one"; filename "one.0"; }
  subnet 10.2.0.0 netmask 255.255.255.0 {
    pool { range 10.2.0.10 10.2.0.20; deny members of "thin"; } range 10.2.0.30 10.2.0.39;
    option routers 10.2.0.1; filename "two.0";
    if option arch = 00:07 or option arch = 00:09 { filename "two.efi"; option boot-count 7; }
    elsif not exists user-class { option boot-count 8; }
    else { server-name "boot"; }
  }
}
group {
  option site-id "group";
  filename "group.0";
  host a { hardware ethernet 02:00:00:00:00:0a; fixed-address 10.2.0.5; option host-name "alpha"; }
  host b { option dhcp-client-identifier "bee"; option site-id "host"; }
  host c { hardware ethernet 02:00:00:00:00:0c; fixed-address nowhere; }
  host d { hardware ethernet 02:00:00:00:00:0d; fixed-address 10.9.9.9; }
  host e { hardware ethernet 02:00:00:00:00:0a; fixed-address 10.2.0.6; }
}
include "more.conf";
`

func TestDHCPD(t *testing.T) {
	c := read(t, site)
	require.Equal(t, []string{
		`test.conf:2:1: option spaces are not taken over`,
		`test.conf:26:63: the fixed address "nowhere" cannot be found: no such host; the host gets an address of the pool`,
		`test.conf:27:3: host d is not taken over: it has no hardware address or client identifier, or its fixed address is in no subnet`,
		`test.conf:28:3: host e has the machine or the address of an earlier host and is not taken over`,
		`test.conf:30:1: include "more.conf" is not read`,
	}, notes(c))
	bios, uefi := dhcp.BIOSFirmware(), dhcp.UEFIFirmware(iana.EFI_X86_64)

	a := ask(t, c, "10.1.0.1", net.HardwareAddr{2, 0, 0, 0, 0, 0xa}, bios)
	require.Equal(t, "10.2.0.5", a.YourIPAddr.String(), "in the other subnet of the link")
	require.Equal(t, "alpha", a.HostName())
	require.Equal(t, "group.0", a.BootFileName, "a host's group goes before its subnet")
	require.Equal(t, "group", string(a.Options[224]))
	require.Equal(t, "10.2.0.1", a.Router()[0].String())
	require.Equal(t, "\x00\x08", string(a.Options[225]), "elsif")

	first := ask(t, c, "10.1.0.1", net.HardwareAddr{2, 0, 0, 0, 1, 1}, bios)
	require.Equal(t, "10.1.0.10", first.YourIPAddr.String())
	require.Equal(t, "one.0", first.BootFileName)
	require.Equal(t, "one", string(first.Options[224]))
	require.Equal(t, "10.1.0.1", first.Router()[0].String())

	second := ask(t, c, "10.1.0.1", net.HardwareAddr{2, 0, 0, 0, 1, 2}, uefi)
	require.Equal(t, "two.efi", second.BootFileName)
	require.Equal(t, "\x00\x07", string(second.Options[225]))
	require.Equal(t, "global", string(second.Options[224]))

	third := ask(t, c, "10.2.0.1", net.HardwareAddr{2, 0, 0, 0, 1, 3}, dhcp.IPXEFirmware(0))
	require.Equal(t, "boot", third.ServerHostName, "else")
	require.Equal(t, "two.0", third.BootFileName)

	bee := ask(t, c, "10.2.0.1", net.HardwareAddr{2, 0, 0, 0, 1, 4}, bios, func(m *dhcpv4.DHCPv4) { m.Options[61] = []byte("bee") })
	require.Equal(t, "host", string(bee.Options[224]))

	thin := ask(t, c, "10.2.0.1", net.HardwareAddr{2, 0, 0, 0, 1, 5}, dhcp.Firmware{VendorClass: "thin-7", Archs: []iana.Arch{0}})
	require.Equal(t, "thin.img", thin.BootFileName)
}

func notes(c *Config) (list []string) {
	for _, n := range c.Notes {
		list = append(list, n.String())
	}
	return list
}

func TestExpressions(t *testing.T) {
	for expr, want := range map[string]bool{
		`option vendor-class-identifier = "PXEClient:Arch:00000:UNDI:002001"`:          true,
		`substring(option vendor-class-identifier, 10, 4) = "Arch"`:                    true,
		`substring(option vendor-class-identifier, 900, 4) = ""`:                       true,
		`suffix(option vendor-class-identifier, 3) = "001"`:                            true,
		`suffix(option vendor-class-identifier, 300) = option vendor-class-identifier`: true,
		`lcase(substring(option vendor-class-identifier, 0, 3)) = "pxe"`:               true,
		`ucase("a") = "A" and not (1 = 2)`:                                             true,
		`hardware = 01:02:00:00:00:00:0a`:                                              true,
		`substring(hardware, 1, 3) = 02:00:00`:                                         true,
		`option arch = 00:00`:                                                          true,
		`option user-class = "iPXE"`:                                                   false,
		`option user-class = option host-name`:                                         true,
		`option user-class != "iPXE"`:                                                  true,
		`exists user-class or exists vendor-class-identifier`:                          true,
		`exists user-class and exists vendor-class-identifier or "a" = "a"`:            true,
		`binary-to-ascii(16, 8, ":", substring(hardware, 1, 6)) = "2:0:0:0:0:a"`:       true,
		`binary-to-ascii(10, 16, ".", option arch) = "0"`:                              true,
		`concat("a", "b", "c") = "abc"`:                                                true,
		`pick-first-value(option host-name, "none") = "none"`:                          true,
		`option agent.circuit-id = "p7"`:                                               false,
		`"\x41\102\"" = "AB\""`:                                                        true,
	} {
		c := read(t, fmt.Sprintf("subnet 10.1.0.0 netmask 255.255.255.0 { range 10.1.0.10 10.1.0.20; filename \"no\"; if %s { filename \"yes\"; } }", expr))
		require.Empty(t, c.Notes, expr)
		got := ask(t, c, "10.1.0.1", net.HardwareAddr{2, 0, 0, 0, 0, 0xa}, dhcp.BIOSFirmware()).BootFileName
		require.Equal(t, want, got == "yes", expr)
	}
	for _, bad := range []string{`known`, `option nothing = 1`, `"a" ~= "b"`, `"a"`, `substring("a", x, 1) = "a"`, `substring("a", 1) = "a"`, `(1 = 1`, `1 = 1 2`, `foo(1) = 2`, `binary-to-ascii(99, 8, "", "a") = "a"`, ``} {
		c := read(t, fmt.Sprintf("subnet 10.1.0.0 netmask 255.255.255.0 { if %s { filename \"yes\"; } }", bad))
		require.Len(t, c.Notes, 1, bad)
		require.False(t, c.Notes[0].Harmless)
		require.Equal(t, 1, c.Notes[0].Line)
		require.Greater(t, c.Notes[0].Col, 40, bad)
	}
}

func TestSyntaxErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a b c":                                  `x:1:6: the statement that begins with "a" in line 1 has no ;`,
		"a {\n b; }\n}":                          `x:3:1: a } that closes nothing`,
		"a {\n b }":                              `x:2:4: the statement that begins with "b" in line 2 has no ;`,
		"a \"b;\n":                               `x:1:3: the string has no closing quote in its line`,
		"if 1 = 1 { } else b;":                   `x:1:19: else without a block`,
		"subnet x {":                             `x:1:10: this block is never closed: a } is missing`,
		string(bytes.Repeat([]byte("a {"), 100)): `x:1:196: blocks are nested more than 64 deep`,
	} {
		_, err := DHCPD(t.Context(), "x", []byte(text), options())
		require.Error(t, err, text)
		require.Equal(t, want, err.Error())
	}
}

func FuzzDHCPD(f *testing.F) {
	for _, name := range []string{"cluster.conf", "host-per-station.conf", "library.conf", "range-of-roots.conf"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte(site))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DHCPD(t.Context(), "f", data, options())
		if err != nil {
			return
		}
		for _, n := range c.Networks {
			for _, p := range n.Pools {
				p.InUse = nil
			}
		}
		m, err := dhcpv4.NewDiscovery(station, dhcpv4.WithRelay(net.IP{10, 1, 0, 1}))
		require.NoError(t, err)
		_, _ = c.ServeDHCP(t.Context(), &dhcp.Request{DHCPv4: m})
	})
}

func ExampleDHCPD() {
	const conf = `
authoritative;
subnet 198.51.100.0 netmask 255.255.255.0 {
  range 198.51.100.100 198.51.100.199;
  if option architecture = 00:07 { filename "grub.efi"; } else { filename "pxelinux.0"; }
  failover peer "other";
}
`
	config, err := DHCPD(context.Background(), "dhcpd.conf", []byte(conf), &Options{ServerID: netip.MustParseAddr("198.51.100.1")})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, note := range config.Notes {
		fmt.Println(note)
	}
	pool := config.Networks[0].Pools[0]
	fmt.Println(pool.Prefix, pool.Ranges)
	// Output:
	// dhcpd.conf:6:3: "failover" is not taken over
	// 198.51.100.0/24 [{198.51.100.100 198.51.100.199}]
}
