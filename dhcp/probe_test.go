package dhcp

import (
	"context"
	"encoding/binary"
	"net"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"
)

// offerFrame is what a server at 10.0.0.2 answers, as it is on the wire.
func offerFrame(m *dhcpv4.DHCPv4, change ...func(*dhcpv4.DHCPv4)) []byte {
	reply := NewReply(on(m), offered)
	reply.YourIPAddr = toIP(ip("10.0.0.50"))
	setOption(reply, dhcpv4.OptionServerIdentifier, []byte{10, 0, 0, 2})
	for _, c := range change {
		c(reply)
	}
	f := broadcastFrame(macB, reply.ToBytes())
	copy(f[etherHeader+12:], []byte{10, 0, 0, 2})
	binary.BigEndian.PutUint16(f[etherHeader+ipHeader:], serverPort)
	binary.BigEndian.PutUint16(f[etherHeader+ipHeader+2:], clientPort)
	return f
}

func TestParseOffer(t *testing.T) {
	messages := probeMessages(macA)
	xid := messages[0].TransactionID
	require.NotEqual(t, xid, messages[1].TransactionID)
	require.Equal(t, PlatformNone, on(messages[0]).Platform())
	require.Equal(t, PlatformPXE, on(messages[1]).Platform())

	good := offerFrame(messages[0])
	want := Offer{ServerID: ip("10.0.0.2"), Source: ip("10.0.0.2"), HardwareAddr: macB, Addr: ip("10.0.0.50")}
	for _, frame := range [][]byte{good, append(good[:len(good):len(good)], 0, 0, 0)} { // padded as Ethernet may
		o, ok := parseOffer(frame, messages[1].TransactionID, xid)
		require.True(t, ok)
		require.Equal(t, want, o)
	}
	proxy, ok := parseOffer(offerFrame(messages[0], func(m *dhcpv4.DHCPv4) { m.YourIPAddr = nil }), xid)
	require.True(t, ok)
	require.False(t, proxy.Addr.IsValid())
	require.False(t, proxy.same(want))
	require.True(t, want.same(want))

	_, ok = parseOffer(good, messages[1].TransactionID)
	require.False(t, ok, "of another transaction")
	_, ok = parseOffer(offerFrame(messages[0], option(53, 5)), xid)
	require.False(t, ok, "an ACK")
	for i := range good {
		parseOffer(good[:i], xid) // must not panic
	}
	for size := range byte(9) { // as UDP says
		bad := append([]byte(nil), good...)
		bad[38], bad[39] = 0, size
		_, ok = parseOffer(bad, xid)
		require.False(t, ok, "%d bytes", size)
	}
	for name, offset := range map[string]int{"type": 12, "IP version": 14, "protocol": 23, "port": 36, "length": 38} {
		bad := append([]byte(nil), good...)
		bad[offset] ^= 0xf5
		_, ok = parseOffer(bad, xid)
		require.False(t, ok, name)
	}
}

// Another implementation can read the headers.
func TestBroadcastFrame(t *testing.T) {
	f := broadcastFrame(macA, []byte("hello"))
	h, err := ipv4.ParseHeader(f[etherHeader:])
	require.NoError(t, err)
	require.Equal(t, net.IPv4bcast.To4(), h.Dst.To4())
	require.Equal(t, len(f)-etherHeader, h.TotalLen)
	require.Equal(t, protoUDP, h.Protocol)
	require.Zero(t, checksum(f[etherHeader:][:ipHeader]), "the sum over a header with its checksum")
	require.Equal(t, "hello", string(f[etherHeader+ipHeader+udpHeader:]))
	// RFC 1071 section 3.
	require.Equal(t, ^uint16(0xddf2), checksum([]byte{0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7}))
}

func TestProbeRefuses(t *testing.T) {
	_, err := Probe(context.Background(), "no-such-if0")
	require.ErrorContains(t, err, "no-such-if0")
	_, err = Probe(context.Background(), "lo")
	require.ErrorContains(t, err, `"lo"`)
}
