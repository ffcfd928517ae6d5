package dhcp

import (
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

func TestPlatform(t *testing.T) {
	with := func(change ...func(*dhcpv4.DHCPv4)) *dhcpv4.DHCPv4 {
		return message(dhcpv4.MessageTypeDiscover, macA, bareSystem, change...)
	}
	pxe := option(60, []byte("PXEClient:Arch:00000:UNDI:002001")...)
	for _, test := range []struct {
		name string
		m    *dhcpv4.DHCPv4
		want Platform
		file bool
	}{
		{"a system", with(), PlatformNone, false},
		{"a system with a vendor class", with(option(60, []byte("udhcp 1.35.0")...), option(55, 1, 3, 6)), PlatformNone, false},
		{"BIOS ROM", message(dhcpv4.MessageTypeDiscover, macA, BIOSFirmware()), PlatformPXE, true},
		{"EDK2", message(dhcpv4.MessageTypeDiscover, macA, UEFIFirmware(7)), PlatformPXE, true},
		{"architecture only", with(option(93, 0, 22)), PlatformPXE, true},
		{"UEFI HTTP", message(dhcpv4.MessageTypeDiscover, macA, HTTPFirmware(16)), PlatformHTTP, true},
		{"iPXE", message(dhcpv4.MessageTypeDiscover, macA, IPXEFirmware(0)), PlatformIPXE, true},
		{"iPXE without features", with(pxe, option(77, []byte("iPXE")...)), PlatformIPXE, true},
		{"iPXE ending in NUL", with(pxe, option(77, []byte("iPXE\x00")...)), PlatformIPXE, true},
		{"iPXE length-coded", with(pxe, option(77, []byte("\x03foo\x04iPXE")...)), PlatformIPXE, true},
		{"iPXE under another class", with(pxe, option(77, []byte("site")...), option(175, 0x18, 1, 1)), PlatformIPXE, true},
		{"gPXE", with(pxe, option(77, []byte("gPXE")...), option(175, 0xb1, 1, 1)), PlatformGPXE, true},
		{"klibc", message(dhcpv4.MessageTypeDiscover, macA, InitramfsFirmware()), PlatformLinux, false},
		{"klibc by its class alone", with(option(60, []byte("Linux ipconfig")...)), PlatformLinux, false},
		{"asks for the root path", with(option(55, 1, 3, 17)), PlatformLinux, false},

		{"user class that lies about its length", with(pxe, option(77, 200, 'i', 'P')), PlatformPXE, true},
		{"user class of empty strings", with(pxe, option(77, 0, 0, 0)), PlatformPXE, true},
		{"empty options", with(option(60), option(77), option(93), option(175), option(55), option(97)), PlatformNone, false},
		{"architecture of one byte", with(option(93, 7)), PlatformNone, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := on(test.m)
			require.Equal(t, test.want, r.Platform())
			require.Equal(t, test.file, r.Platform().WantsFile())
		})
	}
}

func TestArch(t *testing.T) {
	arch := func(v ...byte) (iana.Arch, bool) {
		return on(message(dhcpv4.MessageTypeDiscover, macA, bareSystem, option(93, v...))).Arch()
	}
	a, ok := arch(0, 7)
	require.True(t, ok)
	require.Equal(t, iana.EFI_X86_64, a)
	a, ok = arch(0, 9, 0, 7, 1) // several and an odd byte: the first counts
	require.True(t, ok)
	require.Equal(t, iana.EFI_BC, a)
	_, ok = arch(7)
	require.False(t, ok)
	_, ok = on(message(dhcpv4.MessageTypeDiscover, macA, bareSystem)).Arch()
	require.False(t, ok)
}

func TestUUID(t *testing.T) {
	of := func(v ...byte) string {
		return on(message(dhcpv4.MessageTypeDiscover, macA, bareSystem, option(97, v...))).UUID()
	}
	all := func(b byte) []byte {
		v := make([]byte, 17)
		for i := range 16 {
			v[i+1] = b
		}
		return v
	}
	require.Equal(t, uuidText, of(append([]byte{0}, uuid[:]...)...))
	require.Equal(t, "fefefefe-fefe-fefe-fefe-fefefefefefe", of(all(0xfe)...))
	require.Empty(t, of(all(0)...))
	require.Empty(t, of(all(0xff)...))
	require.Empty(t, of(append([]byte{1}, uuid[:]...)...), "type 1 is not defined")
	require.Empty(t, of(uuid[:]...), "without a type")
	require.Empty(t, of(append([]byte{0}, append(uuid[:], 0)...)...), "a byte too long")
	require.Empty(t, of())
}

func TestOnLink(t *testing.T) {
	subnet := netip.MustParsePrefix("10.0.0.0/24")
	r := on(message(dhcpv4.MessageTypeDiscover, macA, bareSystem))
	require.True(t, r.onLink(subnet))
	r.GatewayIPAddr = net.IPv4(10, 0, 9, 1)
	require.False(t, r.onLink(subnet), "the relay counts, not the interface")
	r.GatewayIPAddr = net.IPv4(10, 0, 0, 77)
	r.addrs = []netip.Addr{ip("192.0.2.1")}
	require.True(t, r.onLink(subnet))

	r.GatewayIPAddr = nil
	require.False(t, r.onLink(subnet))
	r.Interface = nil
	require.False(t, r.onLink(subnet))
	r.Local = netip.MustParseAddrPort("10.0.0.1:67")
	require.True(t, r.onLink(subnet))
	r.Local = netip.AddrPort{}
	require.False(t, r.onLink(subnet))

	lo, err := net.InterfaceByName("lo")
	if err == nil {
		r.Interface, r.addrs = lo, nil // a request that did not come from a Server
		require.True(t, r.onLink(netip.MustParsePrefix("127.0.0.0/8")))
		require.False(t, r.onLink(subnet))
	}
}
