package takeover

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

const dnsmasqMenu = `dhcp-range=10.20.0.100,10.20.0.150,255.255.255.0,1h
dhcp-boot=http://10.20.0.2/boot.ipxe
pxe-prompt="Pick one",7
pxe-service=x86PC,"Install",install
pxe-service=x86PC,"Rescue",rescue.kpxe,10.20.0.9
pxe-service=x86PC,"Others",3,10.20.0.8
pxe-service=x86PC,"The disk",0
pxe-service=X86-64_EFI,"one",one.efi
pxe-service=11,"a",aa.efi
pxe-service=11,"b",bb
pxe-service=6,"far",77
pxe-service=2,"local"
`

// choose asks the server for the file of a menu's entry, as a PXE client does.
func choose(t *testing.T, c *Config, client string, server, layer uint16, change ...func(*dhcp.Request)) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(station), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithClientIP(net.ParseIP(client)),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}),
		dhcpv4.WithGeneric(dhcpv4.OptionVendorSpecificInformation, dhcp.PXEBootItem(server, layer)))
	require.NoError(t, err)
	r := &dhcp.Request{DHCPv4: m, Peer: netip.MustParseAddrPort(client + ":68"), Local: netip.MustParseAddrPort("10.20.0.2:4011")}
	for _, ch := range change {
		ch(r)
	}
	reply, err := c.ServeDHCP(t.Context(), r)
	require.NoError(t, err)
	return reply
}

// The values of option 43, and what comes on port 4011, are those of dnsmasq
// 2.90 for the same file.
func TestDnsmasqMenu(t *testing.T) {
	c, err := Dnsmasq(t.Context(), "d", []byte(dnsmasqMenu), options())
	require.NoError(t, err)
	require.Empty(t, c.Notes)
	c.Networks[0].Pools[0].InUse = nil
	vendor := func(arch iana.Arch) string {
		f := dhcp.UEFIFirmware(arch)
		if arch < 6 {
			f = dhcp.BIOSFirmware()
			f.Archs = []iana.Arch{arch}
		}
		reply := ask(t, c, "10.20.0.1", station, f)
		require.Equal(t, "PXEClient", reply.ClassIdentifier())
		return hex.EncodeToString(reply.Options[43])
	}
	require.Equal(t, "06010308158000010a1400028001010a1400020003010a1400080927800007496e7374616c6c8001065265736375650003064f7468657273000008546865206469736b0a09075069636b206f6e65ff", vendor(0))
	require.Equal(t, "060103080e8003010a1400028004010a140002090880030161800401620a09075069636b206f6e65ff", vendor(11))
	require.Equal(t, "0601020906004d036661720a09075069636b206f6e65ff", vendor(6), "nobody says where it is")
	require.Equal(t, "06010309080000056c6f63616c0a09075069636b206f6e65ff", vendor(2))
	require.Equal(t, "060108ff", vendor(7), "the only file for UEFI")
	require.Equal(t, "one.efi", ask(t, c, "10.20.0.1", station, dhcp.UEFIFirmware(7)).BootFileName)
	require.Equal(t, "http://10.20.0.2/boot.ipxe", ask(t, c, "10.20.0.1", station, dhcp.IPXEFirmware(0)).BootFileName)

	for _, test := range []struct {
		server, layer uint16
		next, file    string
	}{
		{0x8000, 0, "10.20.0.2", "install.0"}, {0x8000, 2, "10.20.0.2", "install.2"}, {0x8001, 0, "10.20.0.9", "rescue.kpxe"},
		{0x8002, 0, "10.20.0.2", "one.efi"}, {0x8004, 0, "10.20.0.2", "bb.0"},
	} {
		reply := choose(t, c, "10.20.0.101", test.server, test.layer)
		require.Equal(t, dhcpv4.MessageTypeAck, reply.MessageType())
		require.Equal(t, test.file, reply.BootFileName)
		require.Equal(t, test.next, reply.ServerIPAddr.String())
		require.Equal(t, "10.20.0.101", reply.YourIPAddr.String())
		require.Equal(t, "10.20.0.2", reply.ServerIdentifier().String())
		require.Equal(t, "PXEClient", reply.ClassIdentifier())
		require.Equal(t, dhcp.PXEBootItem(test.server, test.layer), reply.Options[43])
	}
	for _, kind := range []uint16{0, 3, 77, 0x8005, 0x9999} {
		require.Nil(t, choose(t, c, "10.20.0.101", kind, 0), "%d is no service with a file", kind)
	}
	require.Nil(t, choose(t, c, "10.20.0.101", 0x8000, 0x8000), "no signatures")
	require.Nil(t, choose(t, c, "10.99.0.101", 0x8000, 0), "from elsewhere")
	for _, change := range []func(r *dhcp.Request){
		func(r *dhcp.Request) { delete(r.Options, 43) },
		func(r *dhcp.Request) { delete(r.Options, 60) },
		func(r *dhcp.Request) { r.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeDiscover)) },
	} {
		require.Nil(t, choose(t, c, "10.20.0.101", 0x8000, 0, change))
	}
	_, err = c.Networks[0].Pools[0].LeaseByAddr(t.Context(), netip.MustParseAddr("10.20.0.101"))
	require.ErrorIs(t, err, fs.ErrNotExist, "nobody gets an address there")

	require.True(t, c.BootServer)
	require.ErrorContains(t, c.Check(t.Context(), false), "Server.ProxyPort")
	require.NoError(t, c.Check(t.Context(), true))
}

func TestDnsmasqServices(t *testing.T) {
	const site = "dhcp-range=10.20.0.100,10.20.0.150,255.255.255.0\nno-ping\n"
	bios := dhcp.BIOSFirmware()
	read := func(lines string) *Config {
		c, err := Dnsmasq(t.Context(), "d", []byte(site+lines), options())
		require.NoError(t, err)
		return c
	}
	notes := func(lines string) (list []string) {
		for _, n := range read(lines).Notes {
			if !n.Harmless {
				list = append(list, n.String())
			}
		}
		return list
	}
	vendor := func(c *Config, f dhcp.Firmware) *dhcp.PXE {
		p, _, err := dhcp.ParsePXE(ask(t, c, "10.20.0.1", station, f).Options[43])
		require.NoError(t, err)
		return p
	}
	one := read(`pxe-service=0,"Linux",pxelinux`)
	require.Equal(t, "pxelinux.0", ask(t, one, "10.20.0.1", station, bios).BootFileName)
	require.Equal(t, &dhcp.PXE{Control: dhcp.PXEDirect}, vendor(one, bios), "nothing to choose")
	require.False(t, one.BootServer)
	require.NoError(t, one.Check(t.Context(), false))
	require.True(t, read("pxe-service=0,L,l\npxe-prompt=Now").BootServer, "a prompt is shown all the same")
	require.Equal(t, &dhcp.PXEPrompt{Seconds: 255, Text: "Now"}, vendor(read("pxe-service=0,L,l\npxe-prompt=Now"), bios).Prompt)
	require.Equal(t, &dhcp.PXEPrompt{Seconds: 255, Text: "PXE"}, vendor(read("pxe-service=0,L,l\npxe-service=0,M,0"), bios).Prompt)
	require.Equal(t, &dhcp.PXEPrompt{Text: "PXE"}, vendor(read("pxe-service=0,M,0"), bios).Prompt, "one alone is taken at once")

	tagged := read("dhcp-mac=set:mine,02:00:00:*:*:*\npxe-service=tag:mine,0,A,a\npxe-service=tag:!mine,0,B,b\npxe-service=tag:#mine,7,B,c.efi\npxe-prompt=tag:none,P,1")
	require.Equal(t, "a.0", ask(t, tagged, "10.20.0.1", net.HardwareAddr{2, 0, 0, 1, 2, 3}, bios).BootFileName)
	require.Equal(t, "b.0", ask(t, tagged, "10.20.0.1", net.HardwareAddr{2, 1, 0, 1, 2, 3}, bios).BootFileName)

	require.Equal(t, "c.efi", ask(t, tagged, "10.20.0.1", net.HardwareAddr{2, 1, 0, 1, 2, 3}, dhcp.UEFIFirmware(7)).BootFileName)
	require.Empty(t, ask(t, tagged, "10.20.0.1", net.HardwareAddr{2, 0, 0, 1, 2, 3}, dhcp.UEFIFirmware(7)).BootFileName)

	pi := ask(t, read(`pxe-service=0,"Raspberry Pi Boot"`), "10.20.0.1", net.HardwareAddr{0xdc, 0xa6, 0x32, 1, 2, 3}, dhcp.RaspberryPiFirmware())
	require.Equal(t, "10.20.0.2", pi.ServerIPAddr.String())
	require.Contains(t, string(pi.Options[43]), "Raspberry Pi Boot")

	require.Equal(t, []string{
		"d:3:1: pxe-service has the form pxe-service=ARCHITECTURE,TEXT,FILE or TYPE,SERVER",
		"d:4:1: the architecture \"z80\" of a pxe-service is not known: write its number",
		"d:5:1: \"soon\" is no number of seconds up to 255",
		"d:6:1: pxe-prompt has the form pxe-prompt=TEXT,SECONDS, with 100 bytes of text at most",
		"d:7:1: the server \"::1\" cannot be found: ::1 is no IPv4 address; this server is named instead",
		"d:8:1: the server \"::1\" cannot be found: ::1 is no IPv4 address; machines look for it themselves",
	}, notes("pxe-service=0\npxe-service=z80,A,a\npxe-prompt=A,soon\npxe-prompt=A,1,2\npxe-service=0,A,a,::1\npxe-service=0,A,7,::1\n"))
	const tooLong = "the menu of architecture 0 is longer than 255 bytes: this entry is not taken over"
	long := strings.Repeat(fmt.Sprintf("pxe-service=0,%s,f\n", strings.Repeat("x", 40)), 6)
	require.Equal(t, []string{"d:7:1: " + tooLong, "d:8:1: " + tooLong}, notes(long))
	prompt := "pxe-prompt=" + strings.Repeat("y", 100) + "\n"
	require.Len(t, notes(long+prompt), 4, "a long prompt takes room too")
}
