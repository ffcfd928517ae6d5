package dhcp6

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv6"
)

// client is a request with what the pool reads out of it.
type client struct {
	*Request
	hw    net.HardwareAddr
	id    string // Lease.ID: owner, where that is not hw
	owner string
	res   Reservation // zero for a machine without one
	runs  netip.Addr  // what it renews
}

// client reads the request. ok is false for one that the pool does not serve.
func (p *Pool) client(r *Request) (c *client, ok bool) {
	c = &client{Request: r, hw: r.HardwareAddr()}
	duid := r.DUID()
	switch {
	case c.hw != nil:
		c.owner = string(c.hw)
	case duid != nil:
		// Longer than any hardware address: the two never mix.
		c.id = "duid=" + string(duid) + strings.Repeat("\x00", max(0, 12-len(duid)))
		c.owner = c.id
	default:
		return c, false
	}
	for _, key := range []string{"mac=" + string(c.hw), "duid=" + string(duid), "uuid=" + r.UUID()} {
		if i, ok := p.known[key]; ok {
			c.res = p.Reservations[i]
			return c, true
		}
	}
	if p.KnownOnly {
		r.Note("prefix %v serves known machines only, and this one has no reservation", p.Prefix)
		return c, false
	}
	return c, true
}

// valid tells what RFC 8415 section 16 would have discarded.
func valid(r *Request, serverID dhcpv6.DUID) error {
	own := false
	if id := r.Options.ServerID(); id != nil {
		if !bytes.Equal(id.ToBytes(), serverID.ToBytes()) {
			return errors.New("it is for another server")
		}
		own = true
	}
	if r.DUID() == nil && r.MessageType != dhcpv6.MessageTypeInformationRequest {
		return errors.New("it has no client identifier")
	}
	switch r.MessageType {
	case dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeConfirm, dhcpv6.MessageTypeRebind:
		if own {
			return errors.New("it names a server")
		}
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		if !own {
			return errors.New("it names no server")
		}
	case dhcpv6.MessageTypeInformationRequest:
		if r.Options.GetOne(dhcpv6.OptionIANA) != nil || r.Options.GetOne(dhcpv6.OptionIATA) != nil || r.Options.GetOne(dhcpv6.OptionIAPD) != nil {
			return errors.New("it asks for addresses")
		}
	default:
		return fmt.Errorf("a server does not answer %v", r.MessageType)
	}
	return nil
}

// unicast reports whether the client has sent to an address of the server's,
// which it may only where the server has said so (RFC 8415 section 18.4), and
// this one never does. Loopback is for tests and tools.
func (r *Request) unicast() bool {
	a := r.Local.Addr()
	return len(r.Relays) == 0 && a.IsValid() && !a.IsMulticast() && !a.IsLoopback() && !a.IsUnspecified()
}
