package dhcp6

import (
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// golden reads requests that were recorded.
func golden(t *testing.T) map[string]*dhcpv6.Message {
	data, err := os.ReadFile("testdata/firmware.txt")
	require.NoError(t, err)
	list := make(map[string]*dhcpv6.Message)
	for line := range strings.Lines(string(data)) {
		name, digits, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		packet, err := hex.DecodeString(digits)
		require.NoError(t, err, name)
		m, relays, err := decode(packet)
		require.NoError(t, err, name)
		require.Empty(t, relays)
		list[name] = m
	}
	require.Len(t, list, 10)
	return list
}

// What real firmware sends is known for what it is, and gets its answer.
func TestGolden(t *testing.T) {
	policy := &BootPolicy{Next: testPool(), Boot: rules.Boot}
	for name, m := range golden(t) {
		want := map[string]struct {
			platform dhcp.Platform
			arch     iana.Arch
			url      string
		}{
			"edk2-http": {dhcp.PlatformHTTP, iana.EFI_X86_64_HTTP, rules[1].Boot.URL}, "edk2-pxe": {dhcp.PlatformPXE, iana.EFI_X86_64, rules[2].Boot.URL},
			"ipxe-efi": {dhcp.PlatformIPXE, iana.EFI_X86_64, rules[0].Boot.URL}, "ipxe-bios": {dhcp.PlatformIPXE, iana.INTEL_X86PC, rules[0].Boot.URL},
			"edk2": {}, // its IPv6 stack, before a boot client
		}[name[:strings.LastIndex(name, "-")]]
		r := message(solicit, macA, system)
		r.Message = m
		require.Equal(t, want.platform, r.Platform(), name)
		arch, _ := r.Arch()
		require.Equal(t, want.arch, arch, name)
		require.NotEmpty(t, r.UUID(), name)
		if m.MessageType != solicit && m.MessageType != information {
			continue
		}
		reply, err := policy.ServeDHCP(t.Context(), r)
		require.NoError(t, err, name)
		got, err := dhcpv6.MessageFromBytes(encode(r, reply))
		require.NoError(t, err, name)
		require.Equal(t, want.url, got.Options.BootFileURL(), name)
		addrs, _ := granted(got)
		require.Len(t, addrs, len(m.Options.IANA()), name)
	}
}

// What a Client plays is what the firmware really sends: the same options, with
// the same values but for the machine's.
func TestFirmwareIsReal(t *testing.T) {
	all := golden(t)
	for name, f := range map[string]Firmware{
		"edk2-http-solicit": HTTPFirmware(iana.EFI_X86_64_HTTP), "edk2-pxe-solicit": UEFIFirmware(iana.EFI_X86_64),
		"ipxe-efi-solicit": IPXEFirmware(iana.EFI_X86_64), "ipxe-bios-information": IPXEFirmware(iana.INTEL_X86PC),
	} {
		real := all[name]
		c := Client{HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Firmware: f}
		id, ok := real.Options.ClientID().(*dhcpv6.DUIDUUID)
		require.True(t, ok, name)
		c.UUID = id.UUID
		m := c.message(real.MessageType)
		if real.MessageType == solicit {
			m.AddOption(c.association(netip.Addr{}))
		}
		values := func(m *dhcpv6.Message) (list []string) {
			for _, o := range m.Options.Options {
				switch o.Code() {
				case dhcpv6.OptionElapsedTime, dhcpv6.OptionIANA: // the machine's, and the moment's
					list = append(list, o.Code().String())
				default:
					list = append(list, o.Code().String()+" "+hex.EncodeToString(o.ToBytes()))
				}
			}
			slices.Sort(list)
			return list
		}
		require.Equal(t, values(real), values(m), name)
	}
}
