package dhcp6

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv6"
)

// RFC 8415 sections 7.1 and 7.2.
const (
	clientPort = 546
	serverPort = 547
)

var (
	allServersAndRelays = netip.MustParseAddr("ff02::1:2")
	allServers          = netip.MustParseAddr("ff05::1:3") // where relays may send
)

// source is where a datagram came from.
type source struct {
	peer, local netip.AddrPort
	addr        net.Addr // peer in the conn's own type, for conns that are not UDP
	iface       *net.Interface
	addrs       []netip.Addr // of iface
	foreign     bool         // not from an interface that is served
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
}

// link is a network interface with its addresses at some moment.
type link struct {
	iface *net.Interface
	addrs []netip.Addr
	until time.Time
}

func newSocket(conn net.PacketConn, names []string) *socket {
	s := &socket{conn: conn, names: names, links: make(map[int]*link)}
	if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		s.local = a.AddrPort()
	}
	if udp, ok := conn.(*net.UDPConn); ok {
		// Not every system has it; what is left is a conn like any other.
		if ipv6.NewPacketConn(udp).SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst, true) == nil {
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
		from := source{local: s.local, addr: addr}
		if a, ok := addr.(*net.UDPAddr); ok {
			from.peer = a.AddrPort()
		}
		if len(s.names) == 1 {
			if iface, err := net.InterfaceByName(s.names[0]); err == nil {
				s.lookup(iface.Index, &from)
			}
		}
		return n, from, nil
	}
	var oob [128]byte
	n, oobn, _, peer, err := s.udp.ReadMsgUDPAddrPort(b, oob[:])
	if err != nil {
		return 0, source{}, err
	}
	from := source{peer: peer, local: s.local}
	var cm ipv6.ControlMessage
	if cm.Parse(oob[:oobn]) == nil {
		if dst, ok := netip.AddrFromSlice(cm.Dst); ok {
			from.local = netip.AddrPortFrom(dst, s.local.Port())
		}
		s.lookup(cm.IfIndex, &from)
	}
	from.foreign = len(s.names) > 0 && (from.iface == nil || !slices.Contains(s.names, from.iface.Name))
	return n, from, nil
}

// write sends data out of the interface that the request came in by.
func (s *socket) write(data []byte, to netip.AddrPort, request source) error {
	if s.udp == nil {
		var addr net.Addr = net.UDPAddrFromAddrPort(to)
		if to == request.peer && request.addr != nil {
			addr = request.addr
		}
		_, err := s.conn.WriteTo(data, addr)
		return err
	}
	var cm ipv6.ControlMessage
	if request.iface != nil {
		if to.Addr().IsLinkLocalUnicast() {
			cm.IfIndex = request.iface.Index
		}
		if slices.Contains(request.addrs, request.local.Addr().WithZone("")) {
			cm.Src = request.local.Addr().AsSlice() // a relay may insist on it
		}
	}
	_, _, err := s.udp.WriteMsgUDPAddrPort(data, cm.Marshal(), to)
	return err
}

// linkTTL is how long the addresses of an interface are believed.
const linkTTL = 2 * time.Second

// lookup fills in the interface of that index, if it is there.
func (s *socket) lookup(index int, from *source) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.links[index]
	if l == nil || now.After(l.until) {
		delete(s.links, index)
		iface, err := net.InterfaceByIndex(index)
		if err != nil {
			return
		}
		l = &link{iface: iface, addrs: interfaceAddrs(iface), until: now.Add(linkTTL)}
		s.links[index] = l
	}
	from.iface, from.addrs = l.iface, l.addrs
}

// interfaceAddrs returns the interface's IPv6 addresses; never nil.
func interfaceAddrs(iface *net.Interface) []netip.Addr {
	list := []netip.Addr{}
	addrs, err := iface.Addrs()
	if err != nil {
		return list
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil {
			list = append(list, toAddr(n.IP))
		}
	}
	return list
}

// Listen opens a socket for a [Server] that hears clients on the named
// interfaces, or without names on all that are up now, and relays that send to
// it. addr is as in Server.Addr. Its errors say what to do.
func Listen(addr string, interfaces ...string) (net.PacketConn, error) {
	if addr == "" {
		addr = fmt.Sprint(":", serverPort)
	}
	var list []*net.Interface
	for _, name := range interfaces {
		iface, err := net.InterfaceByName(name)
		if err != nil {
			return nil, fmt.Errorf("dhcp6: interface %q: %w: name one that exists (ip link)", name, err)
		}
		list = append(list, iface)
	}
	if len(interfaces) == 0 {
		all, err := net.Interfaces()
		if err != nil {
			return nil, fmt.Errorf("dhcp6: %w", err)
		}
		for i := range all {
			if all[i].Flags&(net.FlagUp|net.FlagMulticast|net.FlagLoopback) == net.FlagUp|net.FlagMulticast {
				list = append(list, &all[i])
			}
		}
	}
	conn, err := net.ListenPacket("udp6", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("dhcp6: %w: another DHCPv6 server runs on this machine: stop it (ss -ulpn shows it) or keep it and do not start this one", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("dhcp6: %w: run as root, or with the capability CAP_NET_BIND_SERVICE", err)
	case err != nil:
		return nil, fmt.Errorf("dhcp6: %w", err)
	}
	packets := ipv6.NewPacketConn(conn)
	for _, iface := range list {
		for _, group := range []netip.Addr{allServersAndRelays, allServers} {
			if err := packets.JoinGroup(iface, &net.UDPAddr{IP: group.AsSlice()}); err != nil && len(interfaces) > 0 {
				conn.Close()
				return nil, fmt.Errorf("dhcp6: interface %q: join %v: %w: does it have IPv6 (ip -6 addr)?", iface.Name, group, err)
			}
		}
	}
	return conn, nil
}

// temporary tells read errors that pass from those that will not.
func temporary(err error) bool {
	for _, e := range []error{
		syscall.ENOBUFS, syscall.ENOMEM, syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTUNREACH,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EINTR, syscall.EAGAIN,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
