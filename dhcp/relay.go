package dhcp

import (
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Sub-options of the relay agent information (option 82).
const (
	relayCircuitID     = 1  // RFC 3046
	relayRemoteID      = 2  // RFC 3046
	relayLinkSelection = 5  // RFC 3527
	relayServerID      = 11 // RFC 5107
	relaySourcePort    = 19 // RFC 8357
)

// RelayInfo returns a sub-option of the relay agent information (option 82,
// RFC 3046), such as 1 for the circuit and 2 for the remote ID, or nil. A list
// that lies about its lengths counts as far as it can be read.
func (r *Request) RelayInfo(code uint8) []byte {
	data := r.Options.Get(dhcpv4.OptionRelayAgentInformation)
	for len(data) >= 2 {
		n := int(data[1])
		if n > len(data)-2 {
			return nil
		}
		if data[0] == code {
			return data[2 : 2+n]
		}
		data = data[2+n:]
	}
	return nil
}

// linkAddr returns an address of the client's subnet as the relay told it: the
// link selection (RFC 3527), else the subnet selection (option 118, RFC 3011),
// else giaddr. It is the zero Addr for a request that came without a relay; of
// such clients none may choose its subnet.
func (r *Request) linkAddr() netip.Addr {
	relay := toAddr(r.GatewayIPAddr)
	if !relay.IsValid() {
		return relay
	}
	for _, v := range [][]byte{r.RelayInfo(relayLinkSelection), r.Options.Get(dhcpv4.OptionSubnetSelection)} {
		if a := toAddr(v); a.Is4() {
			return a
		}
	}
	return relay
}

// serverIDOr returns the address that the relay wants the client to take for
// the server's (RFC 5107), so that renewals pass through it too; else own.
func (r *Request) serverIDOr(own netip.Addr) netip.Addr {
	if toAddr(r.GatewayIPAddr).IsValid() {
		if a := toAddr(r.RelayInfo(relayServerID)); a.Is4() {
			return a
		}
	}
	return own
}

// source names where the request came from, for limits: port is the relay's or
// switch's port, "" without option 82; link the relay or interface. A relay is
// where its datagrams come from, since giaddr can be made up.
func (r *Request) source() (port, link string) {
	if relay := toAddr(r.GatewayIPAddr); relay.IsValid() {
		if peer := r.Peer.Addr(); peer.IsValid() && !peer.IsUnspecified() {
			relay = peer
		}
		link = relay.String()
	} else if r.Interface != nil {
		link = r.Interface.Name
	}
	circuit, remote := r.RelayInfo(relayCircuitID), r.RelayInfo(relayRemoteID)
	if circuit != nil || remote != nil {
		port = link + "\x00" + string(circuit) + "\x00" + string(remote)
	}
	return port, link
}
