package tftp

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// listener is a socket on which requests arrive.
type listener struct {
	conn     net.PacketConn
	udp      *net.UDPConn // conn, when it is one
	oob      []byte
	engine   *engine
	requests sync.WaitGroup // those in flight; grows only in readRequests
}

func newListener(conn net.PacketConn) *listener {
	l := &listener{conn: conn}
	if udp, ok := conn.(*net.UDPConn); ok {
		l.udp = udp
		// A dual-stack socket reports IPv4 packets with messages of either
		// family, one bound to IPv4 only with its own; what the system cannot
		// do leaves the local address unknown.
		_ = ipv4.NewPacketConn(udp).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
		_ = ipv6.NewPacketConn(udp).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
		l.oob = make([]byte, 256)
	}
	return l
}

// datagram says where one came from and which way.
type datagram struct {
	peer    netip.AddrPort
	local   netip.Addr // zero when unknown
	ifindex int        // 0 when unknown
}

// read reads one datagram. A zero peer means: not a UDP address.
func (l *listener) read(buf []byte) (int, datagram, error) {
	if l.udp == nil {
		n, addr, err := l.conn.ReadFrom(buf)
		d := datagram{}
		if u, ok := addr.(*net.UDPAddr); ok && err == nil {
			d.peer = unmap(u.AddrPort())
		}
		return n, d, err
	}
	n, oobn, _, peer, err := l.udp.ReadMsgUDPAddrPort(buf, l.oob)
	d := datagram{peer: unmap(peer)}
	if err != nil || oobn == 0 {
		return n, d, err
	}
	var cm4 ipv4.ControlMessage
	var cm6 ipv6.ControlMessage
	if cm6.Parse(l.oob[:oobn]) == nil && cm6.Dst != nil {
		d.local, _ = netip.AddrFromSlice(cm6.Dst)
		d.ifindex = cm6.IfIndex
	} else if cm4.Parse(l.oob[:oobn]) == nil && cm4.Dst != nil {
		d.local, _ = netip.AddrFromSlice(cm4.Dst)
		d.ifindex = cm4.IfIndex
	}
	d.local = d.local.Unmap()
	return n, d, nil
}

func unmap(p netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// route is what the way back to a client looks like.
type route struct {
	maxBlock  int        // what fits into one packet
	local     netip.Addr // the address asked, with its zone; zero when unknown
	elsewhere bool       // the system would answer from another address
	broadcast bool       // the address asked is nobody's own
}

// routeTo looks up the way a datagram came.
func routeTo(d datagram) route {
	p := route{local: d.local}
	mtu := 1500
	if ifi, err := net.InterfaceByIndex(d.ifindex); d.ifindex > 0 && err == nil {
		mtu = ifi.MTU
		if d.local.Is6() && d.local.IsLinkLocalUnicast() {
			p.local = d.local.WithZone(ifi.Name)
		}
	}
	headers := 20 + 8 + 4 // IP, UDP, TFTP
	if d.peer.Addr().Is6() {
		headers = 40 + 8 + 4
	}
	p.maxBlock = max(defaultBlock, min(maxBlock, mtu-headers))
	if p.local.IsValid() {
		p.elsewhere = sourceFor(d.peer) != p.local.WithZone("")
		p.broadcast = p.elsewhere && isBroadcast(d)
	}
	return p
}

// sourceFor returns the address from which the system sends to peer. Nothing
// is sent to find out.
func sourceFor(peer netip.AddrPort) netip.Addr {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(peer))
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
}

// isBroadcast says whether a request went to a subnet's broadcast address.
func isBroadcast(d datagram) bool {
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
