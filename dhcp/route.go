package dhcp

import (
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	serverPort = 67
	clientPort = 68
)

// broadcastAddr is the limited broadcast address.
var broadcastAddr = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// destination decides where a reply goes, after RFC 2131 section 4.1:
//
//  1. a relayed request: to the relay, port 67;
//  2. a request from an address and a port other than 68: back to where it
//     came from. No client in the sense of the RFC sends so; simulations,
//     tests and clients behind address translation do;
//  3. a NAK: broadcast, the client must not use the address it believes in;
//  4. a client that says it has an address (ciaddr): there;
//  5. a client that sends from an address and does not ask for a broadcast
//     answer: back to where it came from;
//  6. all others: broadcast. RFC 2131 would have the message sent to the
//     hardware address and the offered address when the broadcast flag is
//     clear; every client takes a broadcast too.
func destination(r *Request, reply *dhcpv4.DHCPv4) netip.AddrPort {
	if relay := toAddr(r.GatewayIPAddr); relay.IsValid() {
		return netip.AddrPortFrom(relay, serverPort)
	}
	hasSource := r.Peer.Addr().IsValid() && !r.Peer.Addr().IsUnspecified()
	broadcast := netip.AddrPortFrom(broadcastAddr, clientPort)
	switch ciaddr := toAddr(r.ClientIPAddr); {
	case hasSource && r.Peer.Port() != clientPort:
		return r.Peer
	case reply.MessageType() == dhcpv4.MessageTypeNak:
		return broadcast
	case ciaddr.IsValid():
		return netip.AddrPortFrom(ciaddr, clientPort)
	case hasSource && !r.IsBroadcast():
		return r.Peer
	}
	return broadcast
}
