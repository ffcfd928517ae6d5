package dhcp6

import (
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

// What one message can ask for is bounded: associations, addresses in them,
// relays around it, the length of an identifier.
func TestBounds(t *testing.T) {
	p := testPool()
	mine := lease(t, p, macA, uefi)
	var many []func(*dhcpv6.Message)
	for range 3 * maxIAs {
		many = append(many, withIA(), func(m *dhcpv6.Message) {
			m.AddOption(&dhcpv6.OptIAPD{})
			m.AddOption(&dhcpv6.OptIATA{})
		})
	}
	reply := ask(t, p, message(solicit, macA, uefi, many...))
	require.Len(t, reply.Options.IANA(), maxIAs)
	require.Len(t, reply.Options.IAPD(), maxIAs)
	require.Len(t, reply.Options.IATA(), maxIAs)

	// Of addresses that it must not have as many are taken away.
	addrs := []string{mine}
	for n := range byte(3 * maxIAs) {
		addrs = append(addrs, netip.AddrFrom16([16]byte{0xfd, 1, 15: n + 1}).String())
	}
	reply = ask(t, p, message(renew, macA, uefi, to(self), withIA(addrs...)))
	require.Len(t, reply.Options.OneIANA().Options.Addresses(), maxIAs, "one of them its own")

	// Associations behind the bound are not looked at.
	var release []func(*dhcpv6.Message)
	for range maxIAs {
		release = append(release, withIA("fd00::1ff"))
	}
	reply = ask(t, p, message(dhcpv6.MessageTypeRelease, macA, uefi, append(release, withIA(mine), to(self))...))
	require.Len(t, reply.Options.IANA(), maxIAs)
	require.Equal(t, iana.StatusNoBinding, reply.Options.OneIANA().Options.Status().StatusCode)
	_, err := p.LeaseByAddr(t.Context(), ip(mine))
	require.NoError(t, err)

	r := message(solicit, macA, uefi, withIA())
	var d dhcpv6.DHCPv6 = r.Message
	for n := range maxRelays + 1 {
		d = &dhcpv6.RelayMessage{
			MessageType: dhcpv6.MessageTypeRelayForward, LinkAddr: ip("fd00::1").AsSlice(), PeerAddr: ip("fe80::1").AsSlice(),
			Options: dhcpv6.RelayOptions{Options: dhcpv6.Options{dhcpv6.OptRelayMessage(d)}},
		}
		_, relays, err := decode(d.ToBytes())
		if n < maxRelays {
			require.NoError(t, err)
			require.Len(t, relays, n+1)
		} else {
			require.ErrorIs(t, err, errNotRequest)
		}
	}

	for _, test := range []struct {
		length int
		known  bool
	}{{1, true}, {maxDUID - 2, true}, {maxDUID - 1, false}, {1000, false}} {
		id := &dhcpv6.DUIDOpaque{Type: 9, Data: make([]byte, test.length)}
		r := message(solicit, macA, Firmware{}, withDUID(id))
		require.Equal(t, test.known, r.DUID() != nil, "%d bytes", test.length)
	}
}
