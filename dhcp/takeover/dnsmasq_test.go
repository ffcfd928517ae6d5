package takeover

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

const dnsmasqSite = `# a site
port=0
interface=eth0
enable-tftp
dhcp-authoritative
no-ping
domain=lab.example
dhcp-range=set:lab,10.20.0.100,10.20.0.150,255.255.252.0,12h
dhcp-range=10.30.0.100,static,255.255.255.0,infinite
dhcp-range=10.40.0.100,10.40.0.110    # no netmask
dhcp-range=2001:db8::1,ra-only
dhcp-range=10.50.0.0,proxy
dhcp-host=02:00:00:00:00:0a,node-a,10.20.0.10,set:special
dhcp-host=id:bee,10.30.0.11
dhcp-host=02:00:00:00:00:0c,ignore
dhcp-host=02:00:00:00:00:0d,10.99.0.1
dhcp-host=nameonly
dhcp-match=set:efi64,option:client-arch,7
dhcp-match=set:ipxe,175
dhcp-vendorclass=set:thin,thin
dhcp-mac=set:pi,dc:a6:32:*:*:*
dhcp-option=option:router,10.20.0.254
dhcp-option=tag:special,3,10.20.0.253
dhcp-option=option:ntp-server,0.0.0.0
dhcp-option=tag:thin,224,"a text, with a comma"
dhcp-option=vendor:PXEClient,6,2b
dhcp-option=option:nothing,1
dhcp-boot=undionly.kpxe
dhcp-boot=tag:efi64,snponly.efi,boot,10.20.0.9
dhcp-boot=tag:ipxe,http://10.20.0.2/boot.ipxe
dhcp-boot=tag:special,tag:!ipxe,special.0
pxe-service=ARM64_EFI,"Install",grubaa64.efi
dhcp-ignore=tag:pi
conf-dir=/etc/dnsmasq.d
`

func TestDnsmasq(t *testing.T) {
	c, err := Dnsmasq(t.Context(), "d", []byte(dnsmasqSite), options())
	require.NoError(t, err)
	var serious []string
	for _, n := range c.Notes {
		if !n.Harmless {
			serious = append(serious, n.String())
		}
	}
	require.Equal(t, []string{
		`d:10:1: the range has no netmask, and no subnet is known that it is in: write the netmask behind it`,
		`d:11:1: ranges for IPv6 are not taken over`,
		`d:12:1: a range for a proxy is not taken over: use dhcp.Proxy beside the other server`,
		`d:16:1: the host is not taken over: no range is in the subnet of 10.99.0.1`,
		`d:17:1: the host has neither hardware address nor client identifier: its name alone is not taken over`,
		`d:26:1: dhcp-option with vendor is not taken over`,
		`d:27:1: dhcp: no option "nothing": use its number: invalid argument`,
		`d:34:1: conf-dir is not taken over`,
	}, serious)
	require.Len(t, c.Networks, 2)
	bios := dhcp.BIOSFirmware()

	plain := ask(t, c, "10.20.0.1", station, bios)
	require.Equal(t, "undionly.kpxe", plain.BootFileName)
	require.Equal(t, 12*time.Hour, plain.IPAddressLeaseTime(0))
	require.Equal(t, "10.20.0.254", plain.Router()[0].String())
	require.Equal(t, "10.20.0.2", net.IP(plain.Options[42]).String(), "0.0.0.0 is the server")
	require.Equal(t, "lab.example", plain.DomainName())
	require.Equal(t, "10.20.0.2", plain.DNS()[0].String())
	require.NotContains(t, plain.Options, uint8(224))

	a := ask(t, c, "10.20.0.1", net.HardwareAddr{2, 0, 0, 0, 0, 0xa}, bios)
	require.Equal(t, "10.20.0.10", a.YourIPAddr.String())
	require.Equal(t, "node-a", a.HostName())
	require.Equal(t, "special.0", a.BootFileName)
	require.Equal(t, "10.20.0.253", a.Router()[0].String(), "a tag goes first")
	require.Equal(t, "http://10.20.0.2/boot.ipxe", ask(t, c, "10.20.0.1", net.HardwareAddr{2, 0, 0, 0, 0, 0xa}, dhcp.IPXEFirmware(0)).BootFileName)

	uefi := ask(t, c, "10.20.0.1", station, dhcp.UEFIFirmware(iana.EFI_X86_64))
	require.Equal(t, "snponly.efi", uefi.BootFileName)
	require.Equal(t, "boot", uefi.ServerHostName)
	require.Equal(t, "10.20.0.9", uefi.ServerIPAddr.String())
	require.Equal(t, "grubaa64.efi", ask(t, c, "10.20.0.1", station, dhcp.UEFIFirmware(iana.EFI_ARM64)).BootFileName)

	thin := ask(t, c, "10.20.0.1", station, dhcp.Firmware{VendorClass: "a thin one"})
	require.Equal(t, "a text, with a comma", string(thin.Options[224]))

	bee := ask(t, c, "10.30.0.1", station, bios, func(m *dhcpv4.DHCPv4) { m.Options[61] = []byte("bee") })
	require.Equal(t, "10.30.0.11", bee.YourIPAddr.String())
	require.EqualValues(t, uint32(math.MaxUint32), bee.IPAddressLeaseTime(0)/time.Second)
	require.Nil(t, ask(t, c, "10.30.0.1", station, bios), "static: known machines only")

	for _, hw := range []net.HardwareAddr{{2, 0, 0, 0, 0, 0xc}, {0xdc, 0xa6, 0x32, 1, 2, 3}} {
		require.Nil(t, ask(t, c, "10.20.0.1", hw, bios), "ignored")
	}

	for text, want := range map[string]time.Duration{"90": 2 * time.Minute, "90m": 90 * time.Minute, "2d": 48 * time.Hour, "1w": 7 * 24 * time.Hour} {
		c, err = Dnsmasq(t.Context(), "d", []byte("dhcp-range=10.20.0.100,10.20.0.110,255.255.255.0,"+text), options())
		require.NoError(t, err)
		require.Equal(t, want, c.Networks[0].Pools[0].LeaseTime, text)
	}

	o := options()
	o.Subnets = []netip.Prefix{netip.MustParsePrefix("10.40.0.0/24")}
	c, err = Dnsmasq(t.Context(), "d", []byte("dhcp-range=10.40.0.100,10.40.0.110"), o)
	require.NoError(t, err)
	require.Equal(t, o.Subnets[0], c.Networks[0].Pools[0].Prefix)
	_, err = Dnsmasq(t.Context(), "d", []byte("\ndhcp-boot=\"x"), o)
	require.EqualError(t, err, "d:2:1: a quote is not closed")
}

func FuzzDnsmasq(f *testing.F) {
	f.Add([]byte(dnsmasqSite))
	f.Add([]byte(dnsmasqMenu))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Dnsmasq(t.Context(), "f", data, options())
		if err != nil {
			return
		}
		for _, n := range c.Networks {
			n.Pools[0].InUse = nil
		}
		m, err := dhcpv4.NewDiscovery(station, dhcpv4.WithRelay(net.IP{10, 20, 0, 1}))
		require.NoError(t, err)
		_, _ = c.ServeDHCP(t.Context(), &dhcp.Request{DHCPv4: m})
	})
}

func ExampleDnsmasq() {
	const conf = `
dhcp-range=198.51.100.100,198.51.100.199,255.255.255.0,1h
dhcp-match=set:efi,option:client-arch,7
dhcp-boot=pxelinux.0
dhcp-boot=tag:efi,grub.efi
dhcp-script=/usr/local/bin/notify
`
	config, err := Dnsmasq(context.Background(), "dnsmasq.conf", []byte(conf), &Options{ServerID: netip.MustParseAddr("198.51.100.1")})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, note := range config.Notes {
		fmt.Println(note)
	}
	fmt.Println(config.Networks[0].Pools[0].Ranges)
	// Output:
	// dnsmasq.conf:6:1: dhcp-script is not taken over
	// [{198.51.100.100 198.51.100.199}]
}
