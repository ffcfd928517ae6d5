package dhcp6

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"
)

// maxRelays bounds how often a message may be wrapped: RFC 8415 section 7.6
// has 8 hops, RFC 3315 had 32.
const maxRelays = 32

var errNotRequest = errors.New("dhcp6: not a client's message")

// decode reads a datagram: a client's message, and the relays around it, the
// one next to the client first.
func decode(data []byte) (*dhcpv6.Message, []*dhcpv6.RelayMessage, error) {
	d, err := dhcpv6.FromBytes(data)
	if err != nil {
		return nil, nil, fmt.Errorf("dhcp6: %w", err)
	}
	var relays []*dhcpv6.RelayMessage
	for {
		switch m := d.(type) {
		case *dhcpv6.Message:
			switch m.MessageType {
			case dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeConfirm, dhcpv6.MessageTypeRenew,
				dhcpv6.MessageTypeRebind, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline, dhcpv6.MessageTypeInformationRequest:
				return m, relays, nil
			}
			return nil, nil, errNotRequest
		case *dhcpv6.RelayMessage:
			if m.MessageType != dhcpv6.MessageTypeRelayForward || len(relays) == maxRelays {
				return nil, nil, errNotRequest
			}
			relays = append([]*dhcpv6.RelayMessage{m}, relays...)
			d = m.Options.RelayMessage()
		default:
			return nil, nil, errNotRequest
		}
	}
}

// encode wraps the reply for each of the request's relays, which find the
// client's port by the interface-id that they sent (section 19.3), or have
// asked for an option back otherwise (RFC 4994, of which this is the port of
// RFC 8357).
func encode(r *Request, reply *dhcpv6.Message) []byte {
	var d dhcpv6.DHCPv6 = reply
	for _, relay := range r.Relays {
		out := &dhcpv6.RelayMessage{
			MessageType: dhcpv6.MessageTypeRelayReply, HopCount: relay.HopCount, LinkAddr: relay.LinkAddr, PeerAddr: relay.PeerAddr,
		}
		for _, code := range []dhcpv6.OptionCode{dhcpv6.OptionInterfaceID, dhcpv6.OptionRelayPort} {
			if o := relay.GetOneOption(code); o != nil {
				out.AddOption(o)
			}
		}
		out.AddOption(dhcpv6.OptRelayMessage(d))
		d = out
	}
	return d.ToBytes()
}

// destination is where the reply is sent. From a server's port it goes to the
// port that clients, or relays, listen on (sections 7.2 and 19.3), if the relay
// does not say that it has another (RFC 8357); from any other port, of a test
// or a tool, to where the request came from.
func destination(r *Request, own uint16) netip.AddrPort {
	to := r.Peer
	if own != serverPort {
		return to
	}
	if n := len(r.Relays); n == 0 {
		return netip.AddrPortFrom(to.Addr(), clientPort)
	} else if r.Relays[n-1].Options.RelayPort() != nil {
		return to
	}
	return netip.AddrPortFrom(to.Addr(), serverPort)
}
