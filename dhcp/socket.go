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

	inBatch  *inBatch  // nil when datagrams are read one by one
	outBatch *outBatch // nil when they are sent so
	out      outbox
}

func newSocket(conn net.PacketConn, interfaces []string) *socket {
	s := &socket{conn: conn, local: addrPort(conn.LocalAddr()), names: interfaces, links: make(map[int]*link)}
	if udp, ok := conn.(*net.UDPConn); ok {
		// Not every system has it; what is left is a conn like any other.
		if ipv4.NewPacketConn(udp).SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true) == nil {
			s.udp, s.inBatch, s.outBatch = udp, newInBatch(udp), newOutBatch(udp)
		}
	}
	return s
}

// receive reads up to len(ds) datagrams, at least one of them. It is called by
// one goroutine.
func (s *socket) receive(ds []*datagram) (n int, err error) {
	if s.inBatch != nil {
		return s.inBatch.read(s, ds)
	}
	d := ds[0]
	d.n, d.from, err = s.read(d.buf[:maxDatagram])
	if err != nil {
		return 0, err
	}
	return 1, nil
}

// read reads one datagram.
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
	var cm ipv4.ControlMessage
	dst, index := netip.Addr{}, 0
	if cm.Parse(oob[:oobn]) == nil {
		dst, _ = netip.AddrFromSlice(cm.Dst)
		index = cm.IfIndex
	}
	return n, s.source(netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()), dst.Unmap(), index), nil
}

// source puts together what is known of a datagram on a UDP socket.
func (s *socket) source(peer netip.AddrPort, dst netip.Addr, index int) source {
	from := source{peer: peer, local: s.local}
	if dst.IsValid() {
		from.local = netip.AddrPortFrom(dst, s.local.Port())
	}
	if index != 0 {
		from.link = s.lookup(index)
	}
	from.foreign = len(s.names) > 0 && (from.link == nil || !slices.Contains(s.names, from.link.iface.Name))
	return from
}

// send sends a reply, together with others that are ready.
func (s *socket) send(o outgoing) { s.out.put(o, s.writeAll) }

// writeEach is writeAll where nothing can be sent together.
func (s *socket) writeEach(list []outgoing) {
	for i := range list {
		o := &list[i]
		if o.hw != nil {
			o.to = netip.AddrPortFrom(broadcastAddr, clientPort)
		}
		o.sent(o.to, s.write(o.data, o.to, o.from))
	}
}

// leaveBy is the interface that a reply must leave by, 0 when the system
// knows, and the address that it must come from, if any.
func (s *socket) leaveBy(to netip.AddrPort, request *source) (ifindex int, src netip.Addr) {
	switch {
	case request.link == nil:
	case to.Addr() == broadcastAddr:
		// Without it the routing table decides, which may well have
		// another way for 255.255.255.255, or none.
		return request.link.iface.Index, netip.Addr{}
	case slices.Contains(request.link.addrs, request.local.Addr()):
		return 0, request.local.Addr() // a client may insist on it
	}
	return 0, netip.Addr{}
}

// write sends one datagram, out of the interface that the request came in by.
func (s *socket) write(data []byte, to netip.AddrPort, request source) error {
	if s.udp == nil {
		var addr net.Addr = net.UDPAddrFromAddrPort(to)
		if to == request.peer && request.addr != nil {
			addr = request.addr
		}
		_, err := s.conn.WriteTo(data, addr)
		return err
	}
	var cm ipv4.ControlMessage
	index, src := s.leaveBy(to, &request)
	cm.IfIndex, cm.Src = index, toIP(src)
	_, _, err := s.udp.WriteMsgUDPAddrPort(data, cm.Marshal(), to)
	return err
}

// close gives back what write opened.
func (s *socket) close() { s.raw.close() }

// batchSize is how many datagrams are read or sent by one call at most.
const batchSize = 32

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
