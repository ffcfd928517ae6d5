package dhcp

import (
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	serverPort = 67
	clientPort = 68
	proxyPort  = 4011
)

// broadcastAddr is the limited broadcast address.
var broadcastAddr = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// destination decides where a reply goes, after RFC 2131 section 4.1:
//
//  1. a relayed request: to the relay, port 67 (or the port that it has and says
//     so, RFC 8357);
//  2. a request from an address and a port other than 68: back to where it
//     came from. No client in the sense of the RFC sends so; simulations,
//     tests and clients behind address translation do;
//  3. a NAK: broadcast, the client must not use the address it believes in;
//  4. a client that says it has an address (ciaddr): there;
//  5. a client that sends from an address and does not ask for a broadcast
//     answer: back to where it came from;
//  6. a client that has no address yet and does not ask for a broadcast: to
//     the offered address and the client's hardware address hw, which takes a
//     packet socket; without one the socket falls back to the next;
//  7. all others: broadcast.
func destination(r *Request, reply *dhcpv4.DHCPv4) (to netip.AddrPort, hw net.HardwareAddr) {
	if relay := toAddr(r.GatewayIPAddr); relay.IsValid() {
		if port := r.Peer.Port(); r.RelayInfo(relaySourcePort) != nil && port != 0 {
			return netip.AddrPortFrom(relay, port), nil
		}
		return netip.AddrPortFrom(relay, serverPort), nil
	}
	hasSource := r.Peer.Addr().IsValid() && !r.Peer.Addr().IsUnspecified()
	broadcast := netip.AddrPortFrom(broadcastAddr, clientPort)
	switch ciaddr := toAddr(r.ClientIPAddr); {
	case hasSource && r.Peer.Port() != clientPort:
		return r.Peer, nil
	case messageType(reply) == dhcpv4.MessageTypeNak:
		return broadcast, nil
	case ciaddr.IsValid():
		return netip.AddrPortFrom(ciaddr, clientPort), nil
	case hasSource && !r.IsBroadcast():
		return r.Peer, nil
	}
	if yiaddr := toAddr(reply.YourIPAddr); yiaddr.IsValid() && !r.IsBroadcast() && len(r.ClientHWAddr) == 6 {
		return netip.AddrPortFrom(yiaddr, clientPort), r.ClientHWAddr
	}
	return broadcast, nil
}
