package tftp

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// packetSource reads a conn and finds out, as far as the system tells it,
// which address a datagram was sent to.
type packetSource struct {
	conn net.PacketConn
	udp  *net.UDPConn // conn, when it is one
	oob  []byte
}

func newPacketSource(conn net.PacketConn) *packetSource {
	s := &packetSource{conn: conn}
	if udp, ok := conn.(*net.UDPConn); ok {
		s.udp = udp
		// A dual-stack socket reports IPv4 packets with messages of either
		// family, one bound to IPv4 only with its own; what the system cannot
		// do leaves the local address unknown.
		_ = ipv4.NewPacketConn(udp).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
		_ = ipv6.NewPacketConn(udp).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
		s.oob = make([]byte, 256)
	}
	return s
}

// read reads one datagram. A zero peer means: not a UDP address.
func (s *packetSource) read(buf []byte) (int, datagram, error) {
	if s.udp == nil {
		n, addr, err := s.conn.ReadFrom(buf)
		d := datagram{from: addr}
		if u, ok := addr.(*net.UDPAddr); ok && err == nil {
			d.peer = unmap(u.AddrPort())
		}
		return n, d, err
	}
	n, oobn, _, peer, err := s.udp.ReadMsgUDPAddrPort(buf, s.oob)
	d := datagram{peer: unmap(peer)}
	if err != nil || oobn == 0 {
		return n, d, err
	}
	var cm4 ipv4.ControlMessage
	var cm6 ipv6.ControlMessage
	if cm6.Parse(s.oob[:oobn]) == nil && cm6.Dst != nil {
		d.local, _ = netip.AddrFromSlice(cm6.Dst)
		d.ifindex = cm6.IfIndex
	} else if cm4.Parse(s.oob[:oobn]) == nil && cm4.Dst != nil {
		d.local, _ = netip.AddrFromSlice(cm4.Dst)
		d.ifindex = cm4.IfIndex
	}
	d.local = d.local.Unmap()
	return n, d, nil
}

// writeTo answers a datagram from the address that it was sent to.
func writeTo(conn net.PacketConn, d datagram, b []byte) error {
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		_, err := conn.WriteTo(b, d.from)
		return err
	}
	var oob []byte
	switch {
	case d.local.Is4():
		oob = (&ipv4.ControlMessage{Src: d.local.AsSlice()}).Marshal()
	case d.local.Is6():
		oob = (&ipv6.ControlMessage{Src: d.local.AsSlice(), IfIndex: d.ifindex}).Marshal()
	}
	_, _, err := udp.WriteMsgUDPAddrPort(b, oob, d.peer)
	return err
}

func unmap(p netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// headers is what surrounds a block: IP, UDP, TFTP.
func headers(peer netip.Addr) int {
	if peer.Is6() {
		return 40 + 8 + 4
	}
	return 20 + 8 + 4
}

// fitsInto is the largest block that needs no fragments on the interface on
// which a datagram came; an Ethernet is assumed where that is not known.
func fitsInto(d datagram) int {
	mtu := 1500
	if ifi, err := net.InterfaceByIndex(d.ifindex); d.ifindex > 0 && err == nil {
		mtu = ifi.MTU
	}
	return max(minBlock, min(maxBlock, mtu-headers(d.peer.Addr())))
}

// isBroadcast says whether a request went to everybody, which makes it nobody's
// (RFC 1123 section 4.2.3.5).
func isBroadcast(d datagram) bool {
	if d.local.IsMulticast() || d.local == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return true
	}
	ifi, err := net.InterfaceByIndex(d.ifindex)
	if err != nil || !d.local.Is4() {
		return false
	}
	addrs, _ := ifi.Addrs()
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || n.IP.To4() == nil || !n.Contains(d.local.AsSlice()) {
			continue
		}
		ones, _ := n.Mask.Size()
		last, local := ones <= 30, d.local.As4()
		for i, m := range n.Mask {
			last = last && local[i]|m == 0xff
		}
		if last {
			return true
		}
	}
	return false
}
