package dhcp_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// A server and a simulated UEFI machine over loopback: any other port than 68
// is answered where it asks from, without root.
func ExampleServer() {
	conn, err := dhcp.Listen("127.0.0.1:0", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	rules := dhcp.BootRules{{Match: dhcp.Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: dhcp.Boot{File: "snponly.efi"}}}
	server := &dhcp.Server{Handler: &dhcp.BootPolicy{
		Next: &dhcp.Pool{
			Prefix: netip.MustParsePrefix("127.0.0.0/8"), ServerID: netip.MustParseAddr("127.0.0.1"),
			Reservations: []dhcp.Reservation{{
				HardwareAddr: net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}, Addr: netip.MustParseAddr("127.0.0.11"), Hostname: "node01",
			}},
		},
		Boot: rules.Boot,
	}}
	go func() { _ = server.Serve(conn) }()
	defer server.Close()

	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer socket.Close()
	machine := dhcp.Client{
		Conn: socket, Server: conn.LocalAddr(), HardwareAddr: net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1},
		Firmware: dhcp.UEFIFirmware(iana.EFI_X86_64),
	}
	ack, err := machine.Exchange(context.Background())
	fmt.Println(ack.Addr, ack.Hostname, ack.File, err)
	// Output: 127.0.0.11/8 node01 snponly.efi <nil>
}

// A handler of one's own: a machine that is being retired gets no answer.
func ExampleHandlerFunc() {
	retired := dhcp.HandlerFunc(func(_ context.Context, r *dhcp.Request) (*dhcpv4.DHCPv4, error) {
		if r.ClientHWAddr.String() == "52:54:00:00:00:09" {
			return nil, dhcp.ErrDrop // silence, and nobody else is asked
		}
		return nil, nil // not mine
	})
	m, _ := dhcpv4.NewDiscovery(net.HardwareAddr{0x52, 0x54, 0, 0, 0, 9})
	_, err := retired.ServeDHCP(context.Background(), &dhcp.Request{DHCPv4: m})
	fmt.Println(err)
	// Output: dhcp: request dropped
}
