package dhcp6

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// Request is one message of a client, and how it arrived. Everything in it is
// read-only for handlers and trace hooks, and may be kept.
type Request struct {
	// Message is the client's. Its options are as the client sent them: of
	// any length, with any content.
	*dhcpv6.Message

	// Relays are the relays that it came through, the one next to the client
	// first; none for a client on a link of this server.
	Relays []*dhcpv6.RelayMessage

	// Peer is the source of the datagram, the client or the last relay. Local
	// is where it was sent to, which may be a multicast group. Either is the
	// zero value when the socket cannot tell.
	Peer, Local netip.AddrPort

	// Interface is where the datagram came in, nil when that is unknown (see
	// [Server.Serve]).
	Interface *net.Interface

	addrs []netip.Addr // of Interface, when the server already knew them
	trail *trail       // of Explain; nil otherwise
}

// clientAddr is the address that the client sent its message from.
func (r *Request) clientAddr() netip.Addr {
	if len(r.Relays) > 0 {
		return toAddr(r.Relays[0].PeerAddr)
	}
	return r.Peer.Addr()
}

// HardwareAddr returns the address of the client's network card, from the
// first of these that tells it: the relay next to the client (option 79, RFC
// 6939), the client's link-local address, where it is made of the hardware
// address (RFC 4291 appendix A), the client's DUID of the kinds LLT and LL,
// which may be another card of the same machine. It is nil when none does:
// the firmware's DUID is mostly of the kind UUID, but its link-local address
// is made of the hardware address.
func (r *Request) HardwareAddr() net.HardwareAddr {
	if len(r.Relays) > 0 {
		if _, hw := r.Relays[0].Options.ClientLinkLayerAddress(); usable(hw) {
			return hw
		}
	}
	if a := r.clientAddr(); a.Is6() && a.IsLinkLocalUnicast() {
		if b := a.As16(); b[11] == 0xff && b[12] == 0xfe {
			hw := net.HardwareAddr{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]}
			if usable(hw) {
				return hw
			}
		}
	}
	switch id := r.Options.ClientID().(type) {
	case *dhcpv6.DUIDLLT:
		if usable(id.LinkLayerAddr) {
			return id.LinkLayerAddr
		}
	case *dhcpv6.DUIDLL:
		if usable(id.LinkLayerAddr) {
			return id.LinkLayerAddr
		}
	}
	return nil
}

func usable(hw net.HardwareAddr) bool {
	return len(hw) >= 6 && len(hw) <= 16 && len(bytes.Trim(hw, "\x00")) > 0
}

// maxDUID is RFC 8415 section 11.1's 128 bytes and the type.
const maxDUID = 130

// DUID returns the client's identifier as it is on the wire, nil without a
// usable one.
func (r *Request) DUID() []byte {
	id := r.Options.ClientID()
	if id == nil {
		return nil
	}
	b := id.ToBytes()
	if len(b) < 3 || len(b) > maxDUID {
		return nil
	}
	return b
}

// UUID returns the machine's UUID from its DUID (RFC 6355), as lower case text
// with the bytes in the order of the wire, as [dhcp.Request.UUID] does; "" for
// a DUID of another kind, or one of all zeros or all ones.
func (r *Request) UUID() string {
	id, ok := r.Options.ClientID().(*dhcpv6.DUIDUUID)
	if !ok || bytes.Count(id.UUID[:], []byte{0}) == 16 || bytes.Count(id.UUID[:], []byte{0xff}) == 16 {
		return ""
	}
	h := hex.EncodeToString(id.UUID[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// Arch returns the client's architecture (option 61, RFC 5970 section 3.3),
// the first one if it names several, and whether it told any.
func (r *Request) Arch() (iana.Arch, bool) {
	archs := r.Options.ArchTypes()
	if len(archs) == 0 {
		return 0, false
	}
	return archs[0], true
}

// UserClasses returns the user classes (option 15).
func (r *Request) UserClasses() []string {
	var list []string
	for _, c := range r.Options.UserClasses() {
		list = append(list, string(c))
	}
	return list
}

// VendorClasses returns the vendor classes (option 16) of all makers.
func (r *Request) VendorClasses() []string {
	var list []string
	for _, v := range r.Options.VendorClasses() {
		for _, c := range v.Data {
			list = append(list, string(c))
		}
	}
	return list
}

// Vendor classes of firmware are told by their beginning.
const (
	classPXE  = "PXEClient"
	classHTTP = "HTTPClient"
)

// Platform tells what sent the request, of the platforms that there are with
// IPv6: [dhcp.PlatformIPXE], [dhcp.PlatformHTTP], [dhcp.PlatformPXE],
// [dhcp.PlatformUBoot] and [dhcp.PlatformNone].
func (r *Request) Platform() dhcp.Platform {
	for _, c := range r.UserClasses() {
		if c == "iPXE" {
			return dhcp.PlatformIPXE
		}
	}
	for _, c := range r.VendorClasses() {
		switch {
		case strings.HasPrefix(c, classHTTP):
			return dhcp.PlatformHTTP
		case strings.HasPrefix(c, classPXE):
			return dhcp.PlatformPXE
		case strings.HasPrefix(c, "U-Boot"):
			return dhcp.PlatformUBoot
		}
	}
	if _, ok := r.Arch(); ok {
		return dhcp.PlatformPXE
	}
	return dhcp.PlatformNone
}

// LinkAddr returns the address that tells the client's link: of the relay
// next to the client that says one (RFC 8415 section 13.1). It is the zero
// value for a client on a link of this server.
func (r *Request) LinkAddr() netip.Addr {
	for _, relay := range r.Relays {
		if a := toAddr(relay.LinkAddr); a.IsValid() {
			return a
		}
	}
	return netip.Addr{}
}

// InterfaceID returns what the relay next to the client calls the client's
// port (option 18), nil without one.
func (r *Request) InterfaceID() []byte {
	for _, relay := range r.Relays {
		if id := relay.Options.InterfaceID(); len(id) > 0 {
			return id
		}
	}
	return nil
}

// onLink reports whether the client is on the link with the prefix: its relay
// says so, or the interface that the request came in by (without one, the
// address that it was sent to) has an address there.
func (r *Request) onLink(prefix netip.Prefix) bool {
	if link := r.LinkAddr(); link.IsValid() {
		return prefix.Contains(link)
	}
	if r.Interface == nil {
		return prefix.Contains(r.Local.Addr())
	}
	addrs := r.addrs
	if addrs == nil {
		addrs = interfaceAddrs(r.Interface)
	}
	for _, a := range addrs {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

// toAddr converts an address of a message; unset and :: are the zero Addr.
func toAddr(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
