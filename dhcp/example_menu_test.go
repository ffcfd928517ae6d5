package dhcp_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// A menu that PXE ROMs and UEFI show themselves. What the user chose is asked
// for on port 4011, where a [dhcp.Proxy] answers; [dhcp.Server.ProxyPort] opens it.
func ExampleRequest_BootItem() {
	self := netip.MustParseAddr("192.0.2.1")
	files := map[uint16]string{1: "install.efi", 2: "rescue.efi"} // types of boot servers
	menu := &dhcp.PXE{
		Control: dhcp.PXENoBroadcast | dhcp.PXENoMulticast,
		Servers: []dhcp.PXEServer{{Type: 1, Addrs: []netip.Addr{self}}, {Type: 2, Addrs: []netip.Addr{self}}},
		Menu:    []dhcp.PXEItem{{Type: 1, Text: "Install"}, {Type: 2, Text: "Rescue"}, {Type: 0, Text: "Local disk"}},
		Prompt:  &dhcp.PXEPrompt{Seconds: 10, Text: "Press F8 for the menu"},
	}
	pool := &dhcp.Pool{
		Prefix: netip.MustParsePrefix("192.0.2.0/24"), ServerID: self,
		Ranges: []dhcp.Range{{First: netip.MustParseAddr("192.0.2.100"), Last: netip.MustParseAddr("192.0.2.199")}},
	}
	policy := &dhcp.BootPolicy{Next: pool, Boot: func(context.Context, *dhcp.Request) (dhcp.Boot, error) {
		return dhcp.Boot{PXE: menu}, nil
	}}
	chosen := &dhcp.Proxy{ServerID: self, Boot: func(_ context.Context, r *dhcp.Request) (dhcp.Boot, error) {
		server, _, _ := r.BootItem()
		return dhcp.Boot{File: files[server]}, nil // without a file there is no answer
	}}
	handler := dhcp.HandlerFunc(func(ctx context.Context, r *dhcp.Request) (*dhcpv4.DHCPv4, error) {
		if r.Local.Port() == 4011 {
			return chosen.ServeDHCP(ctx, r)
		}
		return policy.ServeDHCP(ctx, r)
	})

	ask, _ := dhcpv4.New(dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 1}), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")), dhcpv4.WithClientIP(net.IP{192, 0, 2, 100}),
		dhcpv4.WithGeneric(dhcpv4.OptionVendorSpecificInformation, dhcp.PXEBootItem(2, 0)))
	reply, err := handler.ServeDHCP(context.Background(), &dhcp.Request{DHCPv4: ask, Local: netip.AddrPortFrom(self, 4011)})
	fmt.Println(reply.BootFileName, err)
	// Output: rescue.efi <nil>
}
