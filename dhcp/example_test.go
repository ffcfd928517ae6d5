package dhcp_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcptest"
)

var node01 = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}

// onSubnet is a request as it arrives on an interface with the address
// 198.51.100.1; a Server makes such for each datagram.
func onSubnet(hw net.HardwareAddr, t dhcpv4.MessageType) *dhcp.Request {
	m, err := dhcpv4.NewDiscovery(hw, dhcpv4.WithMessageType(t))
	if err != nil {
		panic(err)
	}
	return &dhcp.Request{DHCPv4: m, Local: netip.MustParseAddrPort("198.51.100.1:67")}
}

// A server on loopback, and a machine that boots from it: nothing of this
// needs root or touches a network.
func Example() {
	addr := netip.MustParseAddr
	pool := &dhcp.Pool{
		Prefix:       netip.MustParsePrefix("127.0.0.0/8"),
		ServerID:     addr("127.0.0.1"),
		Reservations: []dhcp.Reservation{{HardwareAddr: node01, Addr: addr("127.10.0.1"), Hostname: "node-01"}},
	}
	rules := dhcp.BootRules{
		{Match: dhcp.Match{Platforms: []dhcp.Platform{dhcp.PlatformIPXE}}, Boot: dhcp.Boot{File: "http://127.0.0.1/boot.ipxe"}},
		{Match: dhcp.Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: dhcp.Boot{File: "snponly.efi"}},
		{Match: dhcp.Match{Archs: []iana.Arch{iana.INTEL_X86PC}}, Boot: dhcp.Boot{File: "undionly.kpxe"}},
	}
	server := &dhcp.Server{Handler: &dhcp.BootPolicy{Next: pool, Boot: rules.Boot}}
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	done := make(chan error)
	go func() { done <- server.Serve(conn) }()

	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer socket.Close()
	for _, firmware := range []dhcp.Firmware{dhcp.UEFIFirmware(iana.EFI_X86_64), dhcp.IPXEFirmware(iana.EFI_X86_64)} {
		client := &dhcp.Client{Conn: socket, Server: conn.LocalAddr(), HardwareAddr: node01, Firmware: firmware}
		ack, err := client.Exchange(context.Background())
		if err != nil {
			panic(err)
		}
		fmt.Println(ack.Addr.Addr(), ack.Hostname, ack.File)
	}
	fmt.Println(server.Shutdown(context.Background()), <-done)
	// Output:
	// 127.10.0.1 node-01 snponly.efi
	// 127.10.0.1 node-01 http://127.0.0.1/boot.ipxe
	// <nil> dhcp: server closed
}

func ExamplePool() {
	pool := &dhcp.Pool{
		Prefix:   netip.MustParsePrefix("198.51.100.0/24"),
		Ranges:   []dhcp.Range{{First: netip.MustParseAddr("198.51.100.100"), Last: netip.MustParseAddr("198.51.100.199")}},
		ServerID: netip.MustParseAddr("198.51.100.1"),
		Reservations: []dhcp.Reservation{
			{HardwareAddr: node01, Addr: netip.MustParseAddr("198.51.100.11"), Hostname: "node-01"},
		},
	}
	offer, err := pool.ServeDHCP(context.Background(), onSubnet(node01, dhcpv4.MessageTypeDiscover))
	if err != nil {
		panic(err)
	}
	fmt.Println(offer.MessageType(), offer.YourIPAddr, offer.HostName(), offer.IPAddressLeaseTime(0))
	// Output: OFFER 198.51.100.11 node-01 12h0m0s
}

// Who is this peer? What other servers take as a plain function.
func ExamplePool_LeaseByAddr() {
	store := new(dhcp.MemoryStore)
	pool := &dhcp.Pool{Prefix: netip.MustParsePrefix("198.51.100.0/24"), ServerID: dhcptest.Addr(1), Store: store}
	err := store.Commit(context.Background(), dhcp.Lease{Addr: dhcptest.Addr(11), HardwareAddr: node01, Hostname: "node-01"})
	if err != nil {
		panic(err)
	}
	machine := func(ctx context.Context, peer netip.Addr) (string, error) {
		lease, err := pool.LeaseByAddr(ctx, peer)
		return lease.Hostname, err
	}
	fmt.Println(machine(context.Background(), dhcptest.Addr(11)))
	_, err = machine(context.Background(), dhcptest.Addr(12))
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	// Output:
	// node-01 <nil>
	// true
}

func ExamplePool_Validate() {
	pool := &dhcp.Pool{Prefix: netip.MustParsePrefix("198.51.100.1/24"), ServerID: dhcptest.Addr(1)}
	fmt.Println(pool.Validate())
	// Output: dhcp: pool 198.51.100.1/24: field Prefix has host bits set, the subnet is 198.51.100.0/24: invalid argument
}

// Boot decisions by a function, here from an inventory.
func ExampleBootPolicy() {
	pool := &dhcp.Pool{
		Prefix:   netip.MustParsePrefix("198.51.100.0/24"),
		Ranges:   []dhcp.Range{{First: dhcptest.Addr(100), Last: dhcptest.Addr(100)}},
		ServerID: dhcptest.Addr(1),
	}
	inventory := map[string]string{node01.String(): "images/debian/vmlinuz.efi"}
	policy := &dhcp.BootPolicy{
		Next: pool,
		Boot: func(_ context.Context, r *dhcp.Request) (dhcp.Boot, error) {
			file, ok := inventory[r.ClientHWAddr.String()]
			if !ok {
				return dhcp.Boot{}, fs.ErrNotExist
			}
			return dhcp.Boot{File: file}, nil
		},
	}
	r := onSubnet(node01, dhcpv4.MessageTypeDiscover)
	r.UpdateOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003001"))
	r.UpdateOption(dhcpv4.OptClientArch(iana.EFI_X86_64))
	offer, err := policy.ServeDHCP(context.Background(), r)
	if err != nil {
		panic(err)
	}
	fmt.Println(offer.BootFileName, offer.ServerIPAddr, offer.ClassIdentifier())
	// Output: images/debian/vmlinuz.efi 198.51.100.1 PXEClient
}

func ExampleBootRules() {
	rules := dhcp.BootRules{
		{Match: dhcp.Match{HardwareAddrs: []net.HardwareAddr{{0x52, 0x54, 0}}}, Boot: dhcp.Boot{File: "virtual.efi"}},
		{Boot: dhcp.Boot{File: "pxelinux.0"}},
	}
	for _, hw := range []net.HardwareAddr{node01, {2, 0, 0, 0, 0, 9}} {
		boot, err := rules.Boot(context.Background(), onSubnet(hw, dhcpv4.MessageTypeDiscover))
		fmt.Println(boot.File, err)
	}
	// Output:
	// virtual.efi <nil>
	// pxelinux.0 <nil>
}

// A filter in front of a pool, and a pool per subnet behind it.
func ExampleFirst() {
	office := &dhcp.Pool{
		Prefix: netip.MustParsePrefix("192.0.2.0/24"), ServerID: netip.MustParseAddr("192.0.2.1"),
		Ranges: []dhcp.Range{{First: netip.MustParseAddr("192.0.2.50"), Last: netip.MustParseAddr("192.0.2.50")}},
	}
	cluster := &dhcp.Pool{
		Prefix: netip.MustParsePrefix("198.51.100.0/24"), ServerID: dhcptest.Addr(1),
		Ranges: []dhcp.Range{{First: dhcptest.Addr(50), Last: dhcptest.Addr(50)}},
	}
	noPrinters := dhcp.HandlerFunc(func(_ context.Context, r *dhcp.Request) (*dhcpv4.DHCPv4, error) {
		if r.ClassIdentifier() == "printer" {
			return nil, dhcp.ErrDrop
		}
		return nil, nil
	})
	handler := dhcp.First(noPrinters, office, cluster)
	r := onSubnet(node01, dhcpv4.MessageTypeDiscover)
	offer, err := handler.ServeDHCP(context.Background(), r)
	fmt.Println(offer.YourIPAddr, err)
	r.UpdateOption(dhcpv4.OptClassIdentifier("printer"))
	offer, err = handler.ServeDHCP(context.Background(), r)
	fmt.Println(offer == nil, err)
	// Output:
	// 198.51.100.50 <nil>
	// true dhcp: request dropped
}

func ExampleNewReply() {
	handler := dhcp.HandlerFunc(func(_ context.Context, r *dhcp.Request) (*dhcpv4.DHCPv4, error) {
		if r.MessageType() != dhcpv4.MessageTypeInform {
			return nil, nil
		}
		reply := dhcp.NewReply(r, dhcpv4.MessageTypeAck)
		reply.UpdateOption(dhcpv4.OptServerIdentifier(net.IPv4(198, 51, 100, 1)))
		reply.UpdateOption(dhcpv4.OptDomainName("lab.example"))
		return reply, nil
	})
	reply, err := handler.ServeDHCP(context.Background(), onSubnet(node01, dhcpv4.MessageTypeInform))
	fmt.Println(reply.MessageType(), reply.ClientHWAddr, reply.DomainName(), err)
	// Output: ACK 52:54:00:00:00:01 lab.example <nil>
}
