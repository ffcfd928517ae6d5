package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is the kernel's struct of that name.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// inBatch reads several datagrams by one call. It is used by one goroutine.
type inBatch struct {
	raw   syscall.RawConn
	msgs  [batchSize]mmsghdr
	iovs  [batchSize]unix.Iovec
	names [batchSize]unix.RawSockaddrInet4
	oobs  [batchSize][64]byte
	want  int
	n     int
	err   error
	call  func(fd uintptr) bool
}

func newInBatch(udp *net.UDPConn) *inBatch {
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil
	}
	b := &inBatch{raw: raw}
	b.call = b.recvmmsg
	for i := range b.msgs {
		h := &b.msgs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		h.Control = &b.oobs[i][0]
	}
	return b
}

// read waits for datagrams and fills in the first n of them.
func (b *inBatch) read(s *socket, ds []*datagram) (n int, err error) {
	b.want = min(len(ds), batchSize)
	for i, d := range ds[:b.want] {
		b.iovs[i].Base = &d.buf[0]
		b.iovs[i].SetLen(maxDatagram)
		b.msgs[i].hdr.Namelen = unix.SizeofSockaddrInet4
		b.msgs[i].hdr.SetControllen(len(b.oobs[i]))
	}
	if err := b.raw.Read(b.call); err != nil {
		return 0, err
	}
	if b.err != nil {
		return 0, b.err
	}
	for i, d := range ds[:b.n] {
		d.n = int(b.msgs[i].n)
		peer := netip.AddrPortFrom(netip.AddrFrom4(b.names[i].Addr), ntohs(b.names[i].Port))
		dst, ifindex := pktinfo(b.oobs[i][:b.msgs[i].hdr.Controllen])
		d.from = s.source(peer, dst, ifindex)
	}
	return b.n, nil
}

// recvmmsg never blocks, so that the scheduler need not hear of it.
func (b *inBatch) recvmmsg(fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.msgs[0])), uintptr(b.want), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			b.n, b.err = int(n), nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		default:
			b.n, b.err = 0, os.NewSyscallError("recvmmsg", errno)
		}
		return true
	}
}

func ntohs(v uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&v))[:])
}

// pktinfo reads the destination and the interface of a datagram.
func pktinfo(oob []byte) (dst netip.Addr, ifindex int) {
	for len(oob) >= unix.CmsgLen(0) {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		oob = rest
		if h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo {
			pi := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			return netip.AddrFrom4(pi.Addr), int(pi.Ifindex)
		}
	}
	return netip.Addr{}, 0
}

// outBatch sends several replies by one call. It is used by one goroutine at a
// time.
type outBatch struct {
	raw   syscall.RawConn
	msgs  [batchSize]mmsghdr
	iovs  [batchSize]unix.Iovec
	names [batchSize]unix.RawSockaddrInet4
	links [batchSize]unix.RawSockaddrLinklayer
	oobs  [batchSize][pktinfoSpace / 8]uint64 // for its alignment
	list  [batchSize]outgoing                 // of the call
	n     int                                 // in list
	sent  int
	err   error
	call  func(fd uintptr) bool
}

var pktinfoSize = unix.CmsgSpace(unix.SizeofInet4Pktinfo)

// pktinfoSpace is at least pktinfoSize, which is no constant.
const pktinfoSpace = 32

func newOutBatch(udp *net.UDPConn) *outBatch {
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil
	}
	b := &outBatch{raw: raw}
	b.call = b.sendmmsg
	for i := range b.msgs {
		h := &b.msgs[i].hdr
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
	}
	return b
}

// writeAll sends the replies: those to clients without an address through the
// packet socket, and all others, or where that fails, through the UDP socket.
func (s *socket) writeAll(list []outgoing) {
	if s.outBatch == nil {
		s.writeEach(list)
		return
	}
	b := s.outBatch
	for i := range list {
		o := &list[i]
		if o.hw != nil && s.raw.usable(o.from.link, o.data, o.hw) {
			b.list[b.n] = *o
			if b.n++; b.n == batchSize {
				b.flushFrames(s)
			}
		}
	}
	b.flushFrames(s)
	for i := range list {
		o := &list[i]
		if o.hw != nil {
			if s.raw.usable(o.from.link, o.data, o.hw) {
				continue
			}
			o.to = netip.AddrPortFrom(broadcastAddr, clientPort)
		}
		b.list[b.n] = *o
		if b.n++; b.n == batchSize {
			b.flush(s)
		}
	}
	b.flush(s)
}

// flush sends what is in the list.
func (b *outBatch) flush(s *socket) {
	for i := range b.list[:b.n] {
		o := &b.list[i]
		b.names[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: ntohs(o.to.Port()), Addr: o.to.Addr().As4()}
		b.iovs[i].Base = unsafe.SliceData(o.data)
		b.iovs[i].SetLen(len(o.data))
		h := &b.msgs[i].hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), unix.SizeofSockaddrInet4
		h.Control = nil
		h.SetControllen(0)
		ifindex, src := s.leaveBy(o.to, &o.from)
		if ifindex != 0 || src.IsValid() {
			c := (*unix.Cmsghdr)(unsafe.Pointer(&b.oobs[i][0]))
			c.Level, c.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
			c.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
			pi := (*unix.Inet4Pktinfo)(unsafe.Add(unsafe.Pointer(c), unix.CmsgLen(0)))
			*pi = unix.Inet4Pktinfo{Ifindex: int32(ifindex)}
			if src.IsValid() {
				pi.Spec_dst = src.As4()
			}
			h.Control = (*byte)(unsafe.Pointer(c))
			h.SetControllen(pktinfoSize)
		}
	}
	for b.sent = 0; b.sent < b.n; {
		first := b.sent
		b.err = nil
		if err := b.raw.Write(b.call); err != nil {
			b.err = err
		}
		for i := range b.list[first:b.sent] {
			o := &b.list[first+i]
			o.sent(o.to, nil)
		}
		if b.err != nil && b.sent < b.n { // that of the next one
			b.list[b.sent].sent(b.list[b.sent].to, b.err)
			b.sent++
		}
	}
	clear(b.list[:b.n])
	b.n = 0
}

// sendmmsg never blocks; the runtime waits for room.
func (b *outBatch) sendmmsg(fd uintptr) bool {
	n, errno := sendmmsg(fd, b.msgs[b.sent:b.n])
	if errno == unix.EAGAIN {
		return false
	}
	if errno != 0 {
		b.err = os.NewSyscallError("sendmmsg", errno)
		return true
	}
	b.sent += n
	return true
}

func sendmmsg(fd uintptr, msgs []mmsghdr) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// flushFrames is flush for the packet socket. What it does not take is
// broadcast.
func (b *outBatch) flushFrames(s *socket) {
	for i := range b.list[:b.n] {
		o := &b.list[i]
		frame := s.raw.frame(o.from.link, o.data, s.local.Port(), o.to, o.hw)
		b.links[i] = unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Protocol: 0x0008, Ifindex: int32(o.from.link.iface.Index), Halen: 6}
		copy(b.links[i].Addr[:], o.hw)
		b.iovs[i].Base = unsafe.SliceData(frame)
		b.iovs[i].SetLen(len(frame))
		h := &b.msgs[i].hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.links[i])), unix.SizeofSockaddrLinklayer
		h.Control = nil
		h.SetControllen(0)
	}
	for done := 0; done < b.n; {
		n, ok := s.raw.send(b.msgs[done:b.n])
		for i := range b.list[done : done+n] {
			o := &b.list[done+i]
			o.sent(o.to, nil)
		}
		if done += n; !ok && done < b.n {
			o := &b.list[done]
			o.to = netip.AddrPortFrom(broadcastAddr, clientPort)
			o.sent(o.to, s.write(o.data, o.to, o.from))
			done++
		}
	}
	clear(b.list[:b.n])
	b.n = 0
}
