package dhcp

import (
	"bytes"
	"encoding/hex"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

// golden reads requests that were recorded.
func golden(t *testing.T) map[string]*Request {
	data, err := os.ReadFile("testdata/firmware.txt")
	require.NoError(t, err)
	list := make(map[string]*Request)
	for line := range strings.Lines(string(data)) {
		name, digits, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		packet, err := hex.DecodeString(digits)
		require.NoError(t, err, name)
		m, err := decode(append(packet, 0))
		require.NoError(t, err, name)
		from := testSource()
		list[name] = &Request{DHCPv4: m, Peer: from.peer, Local: from.local, Interface: from.link.iface, addrs: from.link.addrs}
	}
	require.Len(t, list, 12)
	return list
}

// What real firmware sends is known for what it is, and gets its answer.
func TestGolden(t *testing.T) {
	rules := BootRules{
		{Match: Match{Platforms: []Platform{PlatformLinux}}, Boot: Boot{RootPath: "/srv/root"}},
		{Match: Match{Platforms: []Platform{PlatformIPXE}}, Boot: Boot{File: "boot.ipxe"}},
		{Match: Match{Platforms: []Platform{PlatformHTTP}}, Boot: Boot{File: "http://10.0.0.1/snponly.efi"}},
		{Match: Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: Boot{File: "snponly.efi"}},
	}
	pool := testPool(func(p *Pool) { p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.199")}} })
	policy := &BootPolicy{Next: pool, Boot: rules.Boot}
	for name, r := range golden(t) {
		want := map[string]struct {
			platform Platform
			arch     int
			file     string
		}{
			"edk2-http": {PlatformHTTP, 16, "http://10.0.0.1/snponly.efi"}, "edk2-pxe": {PlatformPXE, 7, "snponly.efi"},
			"ipxe-efi": {PlatformIPXE, 7, "boot.ipxe"}, "ipxe-bios": {PlatformIPXE, 0, "boot.ipxe"},
			"klibc-ipconfig": {PlatformLinux, -1, ""}, "udhcpc": {PlatformLinux, -1, ""}, "dhclient-dracut": {PlatformLinux, -1, ""},
		}[name[:strings.LastIndex(name, "-")]]
		require.Equal(t, want.platform, r.Platform(), name)
		arch, ok := r.Arch()
		require.Equal(t, want.arch >= 0, ok, name)
		if ok {
			require.EqualValues(t, want.arch, arch, name)
			require.NotEmpty(t, r.UUID(), name)
		}
		require.Equal(t, net.HardwareAddr{0x52, 0x54, 0}, r.hardwareAddr()[:3], name)
		if r.MessageType() != dhcpv4.MessageTypeDiscover {
			continue
		}
		reply, err := policy.ServeDHCP(t.Context(), r)
		require.NoError(t, err, name)
		packet, left, err := encode(r, reply)
		require.NoError(t, err, name)
		require.Empty(t, left, name)
		got, err := dhcpv4.FromBytes(packet)
		require.NoError(t, err, name)
		require.Equal(t, dhcpv4.MessageTypeOffer, got.MessageType(), name)
		require.Equal(t, want.file, strings.TrimRight(bootFile(got), "\x00"), name)
		if want.platform == PlatformLinux {
			require.Equal(t, "/srv/root", got.RootPath(), name)
		}
	}
}

func bootFile(m *dhcpv4.DHCPv4) string {
	if name := m.BootFileNameOption(); name != "" {
		return name
	}
	return m.BootFileName
}

// What a Client plays is what the firmware really sends: the same options, with
// the same values but for the machine's.
func TestFirmwareIsReal(t *testing.T) {
	all := golden(t)
	for name, f := range map[string]Firmware{
		"edk2-http": HTTPFirmware(iana.EFI_X86_64_HTTP), "edk2-pxe": UEFIFirmware(iana.EFI_X86_64),
		"ipxe-bios": IPXEFirmware(iana.INTEL_X86PC), "ipxe-efi": IPXEFirmware(iana.EFI_X86_64), "klibc-ipconfig": InitramfsFirmware(),
	} {
		r := all[name+"-discover"]
		c := Client{HardwareAddr: r.ClientHWAddr, Firmware: f}
		if id := r.Options.Get(dhcpv4.OptionClientMachineIdentifier); len(id) == 17 {
			c.UUID = [16]byte(id[1:])
		}
		m := c.message(dhcpv4.MessageTypeDiscover)
		require.Equal(t, r.IsBroadcast(), m.IsBroadcast(), name)
		for code, v := range m.Options {
			if !bytes.Equal(v, r.Options[code]) {
				t.Errorf("%s: option %d is %q, the client plays %q", name, code, r.Options[code], v)
			}
		}
		for code, v := range r.Options {
			if m.Options[code] == nil {
				t.Errorf("%s: option %d %q is not played", name, code, v)
			}
		}
	}
}
