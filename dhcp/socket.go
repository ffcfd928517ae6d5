package dhcp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

// source is where a datagram came from.
type source struct {
	peer, local netip.AddrPort
	addr        net.Addr // peer in the conn's own type, for conns that are not UDP
	link        *link    // nil when unknown
	foreign     bool     // not from the interface that is served
}

// link is a network interface with its IPv4 addresses at some moment.
type link struct {
	iface *net.Interface
	addrs []netip.Addr
	// prefixes are the subnets of addrs.
	prefixes map[netip.Addr]netip.Prefix
	until    time.Time
}

// socket reads and writes datagrams with as much knowledge of interfaces as
// the conn allows. It is safe for concurrent use.
type socket struct {
	conn  net.PacketConn
	udp   *net.UDPConn // nil when there is no packet info
	local netip.AddrPort
	names []string // the only interfaces that are served; none for all

	mu    sync.Mutex
	links map[int]*link
	raw   rawSender
}

func newSocket(conn net.PacketConn, interfaces []string) *socket {
	s := &socket{conn: conn, local: addrPort(conn.LocalAddr()), names: interfaces, links: make(map[int]*link)}
	if udp, ok := conn.(*net.UDPConn); ok {
		// Not every system has it; what is left is a conn like any other.
		if ipv4.NewPacketConn(udp).SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true) == nil {
			s.udp = udp
		}
	}
	return s
}

func (s *socket) read(b []byte) (int, source, error) {
	if s.udp == nil {
		n, addr, err := s.conn.ReadFrom(b)
		if err != nil {
			return 0, source{}, err
		}
		from := source{peer: addrPort(addr), local: s.local, addr: addr}
		if len(s.names) == 1 {
			if iface, err := net.InterfaceByName(s.names[0]); err == nil {
				from.link = s.lookup(iface.Index)
			}
		}
		return n, from, nil
	}
	var oob [128]byte
	n, oobn, _, peer, err := s.udp.ReadMsgUDPAddrPort(b, oob[:])
	if err != nil {
		return 0, source{}, err
	}
	from := source{peer: netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()), local: s.local}
	var cm ipv4.ControlMessage
	if cm.Parse(oob[:oobn]) == nil {
		if dst, ok := netip.AddrFromSlice(cm.Dst); ok {
			from.local = netip.AddrPortFrom(dst.Unmap(), s.local.Port())
		}
		from.link = s.lookup(cm.IfIndex)
	}
	from.foreign = len(s.names) > 0 && (from.link == nil || !slices.Contains(s.names, from.link.iface.Name))
	return n, from, nil
}

// write sends data, out of the interface that the request came in by, and
// returns where to.
func (s *socket) write(data []byte, to netip.AddrPort, hw net.HardwareAddr, request source) (netip.AddrPort, error) {
	if hw != nil {
		if s.udp != nil && request.link != nil && s.raw.send(request.link, data, s.local.Port(), to, hw) == nil {
			return to, nil
		}
		to = netip.AddrPortFrom(broadcastAddr, clientPort)
	}
	if s.udp == nil {
		var addr net.Addr = net.UDPAddrFromAddrPort(to)
		if to == request.peer && request.addr != nil {
			addr = request.addr
		}
		_, err := s.conn.WriteTo(data, addr)
		return to, err
	}
	var cm ipv4.ControlMessage
	if to.Addr() == broadcastAddr && request.link != nil {
		// Without it the routing table decides, which may well have
		// another way for 255.255.255.255, or none.
		cm.IfIndex = request.link.iface.Index
	} else if request.link != nil && slices.Contains(request.link.addrs, request.local.Addr()) {
		cm.Src = toIP(request.local.Addr()) // a client may insist on it
	}
	_, _, err := s.udp.WriteMsgUDPAddrPort(data, cm.Marshal(), to)
	return to, err
}

// close gives back what write opened.
func (s *socket) close() { s.raw.close() }

// linkTTL is how long the addresses of an interface are believed.
const linkTTL = 2 * time.Second

// lookup returns the interface of that index, nil if it is gone. Asking the
// kernel for each packet would cost more than the rest of the reply.
func (s *socket) lookup(index int) *link {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.links[index]; l != nil && now.Before(l.until) {
		return l
	}
	iface, err := net.InterfaceByIndex(index)
	if err != nil {
		delete(s.links, index)
		return nil
	}
	l := &link{iface: iface, until: now.Add(linkTTL)}
	l.addrs, l.prefixes = interfacePrefixes(iface)
	s.links[index] = l
	return l
}

// interfaceAddrs returns the interface's IPv4 addresses; never nil.
func interfaceAddrs(iface *net.Interface) []netip.Addr {
	list, _ := interfacePrefixes(iface)
	return list
}

func interfacePrefixes(iface *net.Interface) ([]netip.Addr, map[netip.Addr]netip.Prefix) {
	list, prefixes := []netip.Addr{}, make(map[netip.Addr]netip.Prefix)
	addrs, err := iface.Addrs()
	if err != nil {
		return list, prefixes
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if addr := toAddr(n.IP); addr.Is4() {
				ones, _ := n.Mask.Size()
				list = append(list, addr)
				prefixes[addr] = netip.PrefixFrom(addr, ones).Masked()
			}
		}
	}
	return list, prefixes
}

// addrPort converts an address of a packet conn; what is not UDP is the zero
// value.
func addrPort(a net.Addr) netip.AddrPort {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := udp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// temporary tells read errors that pass from those that will not.
func temporary(err error) bool {
	for _, e := range []error{
		os.ErrDeadlineExceeded, syscall.ENOBUFS, syscall.ENOMEM, syscall.ENETDOWN, syscall.ENETUNREACH,
		syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EINTR, syscall.EAGAIN,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// Listen opens a socket for a [Server], bound to the interface unless that is
// "": for a caller that wants to know that it has the port before it serves.
// addr is as in Server.Addr. Its errors say what to do.
func Listen(addr, iface string) (net.PacketConn, error) {
	if addr == "" {
		addr = fmt.Sprint(":", serverPort)
	}
	var lc net.ListenConfig
	if iface != "" {
		if _, err := net.InterfaceByName(iface); err != nil {
			return nil, fmt.Errorf("dhcp: interface %q: %w: name one that exists (ip link)", iface, err)
		}
	}
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = prepareSocket(fd, iface) }); cerr != nil {
			return cerr
		}
		return err
	}
	conn, err := lc.ListenPacket(context.Background(), "udp4", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("dhcp: %w: another DHCP server runs on this machine: stop it (ss -ulpn shows it) or keep it and do not start this one", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("dhcp: %w: run as root, or with the capabilities CAP_NET_BIND_SERVICE and CAP_NET_RAW", err)
	case err != nil:
		return nil, fmt.Errorf("dhcp: %w", err)
	}
	return conn, nil
}
