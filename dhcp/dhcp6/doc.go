// Package dhcp6 is a DHCPv6 server (RFC 8415, RFC 5970) for machines that boot
// from the network over IPv6.
//
// # Model
//
// It is package dhcp once more: a [Server] reads requests, asks its [Handler],
// and sends what that returns.
//
//   - [Pool] gives addresses of one link's prefix, mostly a /64, from ranges
//     and reservations, and keeps them in a [dhcp.LeaseStore], which it may
//     share with pools of IPv4.
//   - [Stateless] gives no addresses, only options, to machines that make
//     their addresses themselves or have them from another server.
//   - [BootPolicy] adds the boot file's URL (option 59), its parameters (60)
//     and what else firmware needs, chosen by [BootRules] or any function.
//   - [First] asks several handlers in turn, such as one pool per link.
//
// [Explain] tells what would be decided for a request and why, [Trace] shows
// every request and what became of it, and [Pool.LeaseByAddr] tells other
// servers which machine an address is.
//
// # Who is who
//
// Firmware, iPXE, the initramfs and the system of one machine send different
// DUIDs. A machine is therefore its hardware address first, as with IPv4; see
// [Request.HardwareAddr] for where that comes from. Only a machine of which it
// cannot be told is known by its DUID. A machine has one address on a link,
// whatever number of identity associations it asks for.
//
// # Usage
//
//	pool := &dhcp6.Pool{
//		Prefix:   netip.MustParsePrefix("fd00:67::/64"),
//		Ranges:   []dhcp.Range{{netip.MustParseAddr("fd00:67::1000"), netip.MustParseAddr("fd00:67::ffff")}},
//		ServerID: &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: eth1.HardwareAddr},
//	}
//	rules := dhcp6.BootRules{
//		{Match: dhcp6.Match{Platforms: []dhcp.Platform{dhcp.PlatformIPXE}}, Boot: dhcp6.Boot{URL: "http://[fd00:67::1]/boot.ipxe"}},
//		{Match: dhcp6.Match{Platforms: []dhcp.Platform{dhcp.PlatformHTTP}}, Boot: dhcp6.Boot{URL: "http://[fd00:67::1]/snponly.efi"}},
//		{Match: dhcp6.Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: dhcp6.Boot{URL: "tftp://[fd00:67::1]/snponly.efi"}},
//	}
//	server := &dhcp6.Server{
//		Interfaces: []string{"eth1"},
//		Handler:    &dhcp6.BootPolicy{Next: pool, Boot: rules.Boot},
//	}
//	err := server.ListenAndServe()
//
// # Caveats
//
// DHCPv6 tells a machine neither its router nor the length of its prefix: that
// is for router advertisements (RFC 4861), which this package does not send.
// They also say, by the flags M and O, whether a machine asks for an address,
// for options only, or not at all. radvd or dnsmasq (ra-only) do that.
//
// Temporary addresses (IA_TA), prefix delegation (IA_PD), Reconfigure and
// authentication are refused or ignored as RFC 8415 has it. There is no
// ProxyDHCP for IPv6: beside another server that gives addresses, that server
// has to send the URL, or machines must be told by the flag O alone.
package dhcp6
