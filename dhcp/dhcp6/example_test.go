package dhcp6_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcp6"
)

var serverID = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}

// exampleRequest is what UEFI's PXE client sends, on a link fd00:67::/64.
func exampleRequest(t dhcpv6.MessageType) *dhcp6.Request {
	m := &dhcpv6.Message{MessageType: t}
	m.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDUUID{UUID: [16]byte{1, 2, 3}}))
	m.AddOption(&dhcpv6.OptVendorClass{EnterpriseNumber: 343, Data: [][]byte{[]byte("PXEClient:Arch:00007:UNDI:003000")}})
	m.AddOption(dhcpv6.OptClientArchType(iana.EFI_X86_64))
	if t == dhcpv6.MessageTypeSolicit {
		m.AddOption(&dhcpv6.OptIANA{IaId: [4]byte{1}})
	}
	return &dhcp6.Request{
		Message: m, Peer: netip.MustParseAddrPort("[fe80::5054:ff:fe01:203]:546"), Local: netip.MustParseAddrPort("[ff02::1:2]:547"),
		Relays: []*dhcpv6.RelayMessage{{LinkAddr: net.ParseIP("fd00:67::1"), PeerAddr: net.ParseIP("fe80::5054:ff:fe01:203")}},
	}
}

// A machine that is known gets its address and what it boots; a machine with
// another kind of firmware would get another file.
func Example() {
	hw, _ := net.ParseMAC("52:54:00:01:02:03")
	pool := &dhcp6.Pool{
		Prefix:       netip.MustParsePrefix("fd00:67::/64"),
		Ranges:       []dhcp.Range{{First: netip.MustParseAddr("fd00:67::1000"), Last: netip.MustParseAddr("fd00:67::ffff")}},
		ServerID:     serverID,
		Reservations: []dhcp6.Reservation{{HardwareAddr: hw, Addr: netip.MustParseAddr("fd00:67::21"), Hostname: "node-01"}},
	}
	rules := dhcp6.BootRules{
		{Match: dhcp6.Match{Platforms: []dhcp.Platform{dhcp.PlatformIPXE}}, Boot: dhcp6.Boot{URL: "http://[fd00:67::1]/boot.ipxe"}},
		{Match: dhcp6.Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: dhcp6.Boot{URL: "tftp://[fd00:67::1]/snponly.efi"}},
	}
	policy := &dhcp6.BootPolicy{Next: pool, Boot: rules.Boot}
	fmt.Println("check:", policy.Check(context.Background()))

	reply, err := policy.ServeDHCP(context.Background(), exampleRequest(dhcpv6.MessageTypeSolicit))
	fmt.Println(reply.MessageType, reply.Options.OneIANA().Options.OneAddress().IPv6Addr, reply.Options.BootFileURL(), err)
	// Output:
	// check: <nil>
	// ADVERTISE fd00:67::21 tftp://[fd00:67::1]/snponly.efi <nil>
}

// Machines that make their addresses themselves ask for options only.
func ExampleStateless() {
	stateless := &dhcp6.Stateless{ServerID: serverID, DNS: []netip.Addr{netip.MustParseAddr("fd00:67::53")}}
	policy := &dhcp6.BootPolicy{Next: stateless, Boot: dhcp6.BootRules{{Boot: dhcp6.Boot{URL: "tftp://[fd00:67::1]/snponly.efi"}}}.Boot}
	reply, err := policy.ServeDHCP(context.Background(), exampleRequest(dhcpv6.MessageTypeInformationRequest))
	fmt.Println(reply.MessageType, reply.Options.DNS(), reply.Options.BootFileURL(), err)
	// Output: REPLY [fd00:67::53] tftp://[fd00:67::1]/snponly.efi <nil>
}

// A pool for each link: the one that the client is on answers.
func ExampleFirst() {
	pool := func(prefix, first, last string) *dhcp6.Pool {
		return &dhcp6.Pool{
			Prefix: netip.MustParsePrefix(prefix), ServerID: serverID,
			Ranges: []dhcp.Range{{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}},
		}
	}
	handler := dhcp6.First(pool("fd00:66::/64", "fd00:66::10", "fd00:66::10"), pool("fd00:67::/64", "fd00:67::10", "fd00:67::10"))
	reply, err := handler.ServeDHCP(context.Background(), exampleRequest(dhcpv6.MessageTypeSolicit))
	fmt.Println(reply.Options.OneIANA().Options.OneAddress().IPv6Addr, err)
	// Output: fd00:67::10 <nil>
}

// A policy is checked when it is loaded.
func ExampleBootPolicy_Check() {
	policy := &dhcp6.BootPolicy{Boot: dhcp6.BootRules{
		{Match: dhcp6.Match{Archs: []iana.Arch{iana.EFI_ARM64}, VendorClasses: []string{"PXEClient"}}, Boot: dhcp6.Boot{URL: "snponly.efi"}},
		{Match: dhcp6.Match{Platforms: []dhcp.Platform{dhcp.PlatformIPXE}}, Boot: dhcp6.Boot{URL: "http://[fd00:67::1]/boot.ipxe"}},
	}.Boot}
	fmt.Println(policy.Check(context.Background()))
	// Output:
	// dhcp6: UEFI PXE, architecture 11: "snponly.efi": give it a URL, such as tftp://[2001:db8::1]/file, DHCPv6 has no next-server
	// iPXE on UEFI, architecture 11: "snponly.efi": give it a URL, such as tftp://[2001:db8::1]/file, DHCPv6 has no next-server: invalid argument
}

// Explain tells what decided.
func ExampleExplain() {
	rules := dhcp6.BootRules{{Name: "x86-64", Match: dhcp6.Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: dhcp6.Boot{URL: "tftp://[fd00:67::1]/snponly.efi"}}}
	policy := &dhcp6.BootPolicy{Next: &dhcp6.Stateless{ServerID: serverID}, Boot: rules.Boot}
	for _, step := range dhcp6.Explain(context.Background(), policy, exampleRequest(dhcpv6.MessageTypeInformationRequest)).Steps {
		fmt.Println(step)
	}
	// Output:
	// INFORMATION-REQUEST of 52:54:00:01:02:03: platform "pxe", architecture 7 (EFI x86-64)
	// boot rule 1 x86-64 (arch=7) gives "tftp://[fd00:67::1]/snponly.efi"
	// reply REPLY
}

// A server on the loopback interface, and a client as firmware is one.
func ExampleServer() {
	conn, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &dhcp6.Server{Handler: &dhcp6.BootPolicy{
		Next: &dhcp6.Stateless{ServerID: serverID},
		Boot: dhcp6.BootRules{{Boot: dhcp6.Boot{URL: "http://[fd00:67::1]/snponly.efi", Params: []string{"console=ttyS0"}}}}.Boot,
	}}
	done := make(chan error, 1)
	go func() { done <- server.Serve(conn) }()

	mine, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mine.Close()
	client := &dhcp6.Client{
		Conn: mine, Server: conn.LocalAddr(), HardwareAddr: net.HardwareAddr{0x52, 0x54, 0, 1, 2, 3},
		Firmware: dhcp6.HTTPFirmware(iana.EFI_X86_64_HTTP),
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	info, err := client.Information(ctx)
	fmt.Println(info.URL, info.Params, err)

	fmt.Println(server.Shutdown(ctx), errors.Is(<-done, dhcp6.ErrServerClosed))
	// Output:
	// http://[fd00:67::1]/snponly.efi [console=ttyS0] <nil>
	// <nil> true
}
