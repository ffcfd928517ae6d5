package dhcp

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

// infiniband makes a message as a client on InfiniBand sends it (RFC 4390): its
// address has no room in it.
func infiniband(t dhcpv4.MessageType, port byte, change ...func(*dhcpv4.DHCPv4)) *dhcpv4.DHCPv4 {
	m := message(t, nil, bareSystem, append([]func(*dhcpv4.DHCPv4){
		// RFC 4361: type 255, IAID, and a DUID of the port's GUID.
		option(61, 255, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0xc9, 0, 0, 2, 0xc9, 3, 0, 0, 0x10, port),
	}, change...)...)
	m.HWType, m.ClientHWAddr = iana.HWTypeInfiniband, net.HardwareAddr{}
	m.SetBroadcast()
	return m
}

func TestInfiniBand(t *testing.T) {
	log, lines := logTo(slog.LevelWarn)
	p := testPool(func(p *Pool) {
		p.Logger = log
		p.Reservations = []Reservation{{ClientID: infiniband(discover, 9).Options[61], Addr: ip("10.0.0.9"), Hostname: "ib9"}}
	})
	ask := func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		_, reply := serve(t, p, on(m))
		return reply
	}
	given := map[netip.Addr]bool{}
	for port := range byte(4) {
		for range 2 { // it comes back
			offer := ask(infiniband(discover, port))
			require.NotNil(t, offer)
			addr := toAddr(offer.YourIPAddr)
			r := on(infiniband(dhcpv4.MessageTypeRequest, port, requested(addr.String()), serverID("10.0.0.1")))
			ack, err := p.ServeDHCP(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType())
			given[addr] = true

			data, _, err := encode(r, ack)
			require.NoError(t, err)
			require.Equal(t, []byte{2, byte(iana.HWTypeInfiniband), 0}, data[:3], "no hardware address")
			require.Equal(t, make([]byte, 16), data[28:44])
			require.Equal(t, r.Options[61], ack.Options[61])
			to, hw := destination(r, ack)
			require.Equal(t, "255.255.255.255:68", to.String())
			require.Nil(t, hw)

			l, err := p.LeaseByAddr(t.Context(), addr)
			require.NoError(t, err)
			require.Nil(t, l.HardwareAddr)
			require.Equal(t, r.Options[61], l.ClientID)
		}
	}
	require.Len(t, given, 4, "each has an address of its own")
	require.Equal(t, "10.0.0.9", ask(infiniband(discover, 9)).YourIPAddr.String())

	require.Nil(t, ask(infiniband(discover, 5)))
	require.Contains(t, lines.String(), "client-id ff:00:00:00:00:00:02:00:00:02:c9:00:00:02:c9:03:00:00:10:05", "no address is left for it")
	require.Nil(t, ask(infiniband(discover, 1, func(m *dhcpv4.DHCPv4) { delete(m.Options, 61) })), "nothing tells who it is")
	require.Nil(t, ask(message(discover, make(net.HardwareAddr, 6), Firmware{SendID: true})), "zeroes are not only one's")

	_, err := p.LeaseByHardwareAddr(t.Context(), nil)
	require.ErrorContains(t, err, "no hardware address")
}

// No identifier is taken for the hardware address of another machine, which has
// up to 16 bytes.
func TestIdentifierIsNoHardwareAddr(t *testing.T) {
	p := testPool()
	like := net.HardwareAddr("client-id=abcdef")
	other := infiniband(discover, 0, option(61, []byte("abcdef")...))
	_, first := serve(t, p, on(message(discover, like, bareSystem)))
	_, second := serve(t, p, on(other))
	require.NotEqual(t, first.YourIPAddr, second.YourIPAddr)
}

// Machines without a hardware address are told apart before their messages are
// decoded, so that one does not wait for another.
func TestMachineKey(t *testing.T) {
	key := func(m *dhcpv4.DHCPv4) [16]byte { return machineKey(m.ToBytes()) }
	none := [16]byte{}
	require.Equal(t, [16]byte{2, 0, 0, 0, 0, 0xa}, key(message(discover, macA, Firmware{SendID: true})))
	a, b := key(infiniband(discover, 1)), key(infiniband(discover, 2))
	require.NotEqual(t, a, b)
	require.Equal(t, a, key(infiniband(dhcpv4.MessageTypeRequest, 1, option(1, 1, 2, 3, 4))))
	require.NotEqual(t, none, key(infiniband(discover, 1, option(61, 7, 8))))
	require.Equal(t, none, key(infiniband(discover, 1, func(m *dhcpv4.DHCPv4) { delete(m.Options, 61) })))

	whole := infiniband(discover, 1).ToBytes()
	for n := range whole {
		machineKey(whole[:n])
	}
	for _, tail := range [][]byte{{61}, {61, 255, 1}, {0, 0, 61, 2, 1}, {12, 200}, {255, 61, 1, 1}} {
		machineKey(append(whole[:optionsAt:optionsAt], tail...))
	}
}
