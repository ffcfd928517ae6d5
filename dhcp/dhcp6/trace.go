package dhcp6

import (
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"
)

// Trace is a set of hooks that a [Server] calls, in the manner of
// net/http/httptrace. Any of them may be nil. They are called concurrently and
// on the path of the request, so they must be quick; what they are given is
// read-only.
type Trace struct {
	// Malformed is called for a datagram that is no request; nothing else is
	// called for it.
	Malformed func(peer netip.AddrPort, err error)

	// Request is called for every request before the handler is asked.
	Request func(r *Request)

	// Reply is called after a reply was sent to the given address.
	Reply func(r *Request, reply *dhcpv6.Message, to netip.AddrPort)

	// NoReply is called when a request got no reply: err is nil when no
	// handler took it, [dhcp.ErrDrop] when one wanted silence, and otherwise
	// why making or sending the reply failed.
	NoReply func(r *Request, err error)
}

func (t *Trace) malformed(peer netip.AddrPort, err error) {
	if t != nil && t.Malformed != nil {
		t.Malformed(peer, err)
	}
}

func (t *Trace) request(r *Request) {
	if t != nil && t.Request != nil {
		t.Request(r)
	}
}

func (t *Trace) reply(r *Request, reply *dhcpv6.Message, to netip.AddrPort) {
	if t != nil && t.Reply != nil {
		t.Reply(r, reply, to)
	}
}

func (t *Trace) noReply(r *Request, err error) {
	if t != nil && t.NoReply != nil {
		t.NoReply(r, err)
	}
}
