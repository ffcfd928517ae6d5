package dhcp

import (
	"net"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"
)

// Machines that are made up take no more by asking for addresses without a
// DISCOVER, as a machine does that starts again, than by DISCOVERs.
func TestPoolFloodOfRequests(t *testing.T) { synctest.Test(t, testPoolFloodOfRequests) }

func testPoolFloodOfRequests(t *testing.T) {
	p := testPool(func(p *Pool) {
		p.Ranges = []Range{{ip("10.0.0.100"), ip("10.0.0.199")}}
		p.MaxNewPerPort, p.MaxNewPerLink = 3, 50
	})
	known := dora(t, p, macA, bareSystem)
	port := option(82, 1, 1, '1')
	flood := func(change func(netip.Addr) func(*dhcpv4.DHCPv4), more ...func(*dhcpv4.DHCPv4)) (got map[dhcpv4.MessageType]int) {
		got = map[dhcpv4.MessageType]int{}
		for i := range byte(99) {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, 100 + i})
			if addr == known {
				continue
			}
			hw := net.HardwareAddr{6, 0, 0, byte(len(more)), 0, i}
			kind, _ := serve(t, p, on(message(request, hw, bareSystem, append(more, change(addr))...)))
			got[kind]++
		}
		return got
	}
	reboot := func(a netip.Addr) func(*dhcpv4.DHCPv4) { return requested(a.String()) }
	rebind := func(a netip.Addr) func(*dhcpv4.DHCPv4) { return ciaddr(a.String()) }
	require.Equal(t, map[dhcpv4.MessageType]int{acked: 3, silence: 95}, flood(reboot, port))
	require.Equal(t, map[dhcpv4.MessageType]int{acked: 46, silence: 49, naked: 3}, flood(reboot), "another port, the same link; what is taken is refused")
	require.Equal(t, map[dhcpv4.MessageType]int{silence: 49, naked: 49}, flood(rebind, port, port))

	// Those that are known lose nothing by it.
	kind, _ := serve(t, p, on(message(request, macA, bareSystem, requested(known.String()), port)))
	require.Equal(t, acked, kind)
	kind, _ = serve(t, p, on(message(request, macA, bareSystem, requested("10.0.0.199"), port)))
	require.Equal(t, acked, kind, "nor do they count")
}
