package tftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// What the kernel cuts into datagrams in one call (UDP_SEGMENT).
	maxSegments = 64
	maxGSO      = 65000
)

// udpLink is a connected socket of its own or, in one-port mode, a client's
// place on the socket of the requests.
type udpLink struct {
	e       *epoll
	p       *poller
	session session
	fd      int
	own     bool
	plain   bool // the kernel does not cut for us
	key     portKey
	msg     unix.Msghdr
	iov     unix.Iovec
	name    unix.RawSockaddrInet6
	oob     [12]uint64 // aligned for Cmsghdr: packet info first, the segment size after it
	info    int        // length of the packet info, in bytes
}

func (e *epoll) dial(d datagram, upload bool) (link, int, *loop, error) {
	u, fits, err := e.newLink(d)
	if err != nil {
		return nil, 0, nil, err
	}
	if upload && !u.own {
		fits = min(fits, batchBytes-4)
	}
	return u, fits, &u.p.loop, nil
}

func (e *epoll) newLink(d datagram) (u *udpLink, fits int, err error) {
	u = &udpLink{e: e, p: e.pollers[int(e.turn.Add(1))%len(e.pollers)], fd: -1, own: !e.onePort}
	// The socket knows the route, and with it the path's MTU.
	fd, mtu, err := connected(d)
	switch {
	case err == nil:
		fits = max(minBlock, min(maxBlock, mtu-headers(d.peer.Addr())))
	case u.own:
		return nil, 0, fmt.Errorf("tftp: answering %v from %v: %w", d.peer, d.local, err)
	default: // e.fd may know the way all the same: it can be of another network namespace
		fits = fitsInto(d)
	}
	if u.own {
		u.fd = fd
	} else {
		if err == nil {
			unix.Close(fd)
		}
		u.setPeer(d)
	}
	h := (*unix.Cmsghdr)(u.control(u.info))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	return u, fits, nil
}

// control is where in the control messages something is, in bytes.
func (u *udpLink) control(at int) unsafe.Pointer { return unsafe.Add(unsafe.Pointer(&u.oob), at) }

// connected makes a socket that speaks with the client only, from the address
// that it asked.
func connected(d datagram) (fd, mtu int, err error) {
	v6 := d.peer.Addr().Is6()
	family, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_MTU
	if v6 {
		family, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, 0, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if d.local.IsValid() && !d.broadcast {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(d.local, 0), d.ifindex)); err != nil {
			return -1, 0, os.NewSyscallError("bind", err)
		}
	}
	if err := unix.Connect(fd, sockaddr(d.peer, d.ifindex)); err != nil {
		return -1, 0, os.NewSyscallError("connect", err)
	}
	if mtu, err = unix.GetsockoptInt(fd, level, option); err != nil {
		mtu, err = 1500, nil
	}
	return fd, mtu, nil
}

func sockaddr(a netip.AddrPort, ifindex int) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if a.Addr().IsLinkLocalUnicast() {
		sa.ZoneId = uint32(ifindex)
	}
	return sa
}

// setPeer makes the messages go to the client, from the address that it asked.
func (u *udpLink) setPeer(d datagram) {
	addr := d.peer.Addr()
	u.key.addr = netip.AddrPortFrom(addr.WithZone(""), d.peer.Port())
	if addr.Is6() && addr.IsLinkLocalUnicast() {
		u.key.scope = uint32(d.ifindex)
	}
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], d.peer.Port())
	if u.e.v4 {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&u.name))
		sa.Family, sa.Port, sa.Addr = unix.AF_INET, *(*uint16)(unsafe.Pointer(&port)), addr.As4()
		u.msg.Namelen = unix.SizeofSockaddrInet4
	} else {
		u.name.Family, u.name.Port, u.name.Addr = unix.AF_INET6, *(*uint16)(unsafe.Pointer(&port)), addr.As16()
		u.name.Scope_id = u.key.scope
		u.msg.Namelen = unix.SizeofSockaddrInet6
	}
	u.msg.Name = (*byte)(unsafe.Pointer(&u.name))
	h, data := (*unix.Cmsghdr)(u.control(0)), u.control(unix.CmsgLen(0))
	switch {
	case d.local.Is4():
		h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		(*unix.Inet4Pktinfo)(data).Spec_dst = d.local.As4()
		u.info = unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	case d.local.Is6():
		h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		pi := (*unix.Inet6Pktinfo)(data)
		pi.Addr, pi.Ifindex = d.local.As16(), u.key.scope
		u.info = unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
}

func (e *epoll) attach(l link, s session) error {
	u := l.(*udpLink)
	u.session = s
	if u.own {
		if err := u.p.watch(u.fd); err != nil {
			return err
		}
		u.p.links[int32(u.fd)] = u
		return nil
	}
	if old := e.ports[u.key]; old != nil { // the client has begun again
		old.session.drop(u.p.now())
	}
	e.ports[u.key] = u
	return nil
}

func (u *udpLink) close() {
	switch {
	case !u.own:
		if u.e.ports[u.key] == u {
			delete(u.e.ports, u.key)
		}
	case u.fd >= 0:
		delete(u.p.links, int32(u.fd))
		unix.Close(u.fd)
		u.fd = -1
	}
}

func (e *epoll) reply(d datagram, b []byte) error {
	u, _, err := e.newLink(d)
	if err != nil { // no socket is left; the client should know all the same
		p := e.pollers[0]
		p.mu.Lock()
		defer p.mu.Unlock()
		u = &udpLink{e: e, p: p, fd: -1}
		u.setPeer(d)
		if _, serr := u.send(b, len(b)); serr != nil {
			return errors.Join(err, serr)
		}
		return nil
	}
	_, err = u.send(b, len(b))
	if u.own {
		unix.Close(u.fd)
	}
	return err
}

func (u *udpLink) send(b []byte, size int) (n int, err error) {
	for n < len(b) {
		most := size
		if !u.plain {
			most = size * max(1, min(maxSegments, maxGSO/size))
		}
		part := b[n:min(n+most, len(b))]
		switch errno := u.write(part, size); errno {
		case 0:
			n += len(part)
		case unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS:
			return n, errBusy
		case unix.ECONNREFUSED:
			return n, errRefused
		default:
			if len(part) > size {
				u.plain = true // an old kernel, or a device that cannot
				continue
			}
			// As if the network had lost it: what is wrong may pass.
			u.e.s.logger().Debug("tftp: sending", "error", errno)
			n += len(part)
		}
	}
	return n, nil
}

// write makes one call.
func (u *udpLink) write(b []byte, size int) unix.Errno {
	fd := u.fd
	if !u.own {
		fd = u.e.fd
	}
	u.msg.Iov = &u.iov
	u.msg.SetIovlen(1)
	u.iov.Base = unsafe.SliceData(b)
	u.iov.SetLen(len(b))
	length := u.info
	if len(b) > size {
		*(*uint16)(u.control(u.info + unix.CmsgLen(0))) = uint16(size)
		length += unix.CmsgSpace(2)
	}
	u.msg.Control = nil
	if length > 0 {
		u.msg.Control = (*byte)(u.control(0))
	}
	u.msg.SetControllen(length)
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&u.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	u.iov.Base = nil
	return errno
}
