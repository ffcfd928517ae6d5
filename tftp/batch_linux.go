package tftp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batchSize = 32
	// batchBytes holds a request, and a block of an upload that stays on the
	// port of the requests; dial sees to it.
	batchBytes = 2048
)

// portKey is a client's address as the kernel has it.
type portKey struct {
	addr  netip.AddrPort // IPv4 unmapped, without a zone
	scope uint32
}

// batch reads several datagrams at once.
type batch struct {
	msgs   [batchSize]mmsghdr
	iovs   [batchSize]unix.Iovec
	names  [batchSize]unix.RawSockaddrInet6 // large enough for IPv4
	oobs   [batchSize][128]byte
	bufs   [batchSize][batchBytes]byte
	failed int // in a row
}

// mmsghdr is the kernel's struct of that name.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

func newBatch() *batch {
	b := new(batch)
	for i := range b.msgs {
		b.iovs[i].Base = &b.bufs[i][0]
		b.iovs[i].SetLen(batchBytes)
		h := &b.msgs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		h.Control = &b.oobs[i][0]
	}
	return b
}

// read returns how many datagrams there are.
func (b *batch) read(fd int) (int, error) {
	for i := range b.msgs {
		b.msgs[i].hdr.Namelen = uint32(unsafe.Sizeof(b.names[i]))
		b.msgs[i].hdr.SetControllen(len(b.oobs[i]))
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	}
	return 0, os.NewSyscallError("recvmmsg", errno)
}

// datagram returns the i-th one, and whether it is whole.
func (b *batch) datagram(i int) ([]byte, bool) {
	m := &b.msgs[i]
	return b.bufs[i][:m.n], m.hdr.Flags&unix.MSG_TRUNC == 0
}

// key is who sent it.
func (b *batch) key(i int) (k portKey) {
	sa := &b.names[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		k.addr = netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
		return k
	}
	k.addr = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port)
	if k.addr.Addr().IsLinkLocalUnicast() && k.addr.Addr().Is6() {
		k.scope = sa.Scope_id
	}
	return k
}

// from is all that is known of the way it came.
func (b *batch) from(i int) (d datagram) {
	k := b.key(i)
	d.peer = k.addr
	if k.scope != 0 {
		d.ifindex = int(k.scope)
		if ifi, err := net.InterfaceByIndex(d.ifindex); err == nil {
			d.peer = netip.AddrPortFrom(k.addr.Addr().WithZone(ifi.Name), k.addr.Port())
		}
	}
	oob := b.oobs[i][:b.msgs[i].hdr.Controllen]
	for len(oob) >= unix.CmsgLen(0) {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		oob = rest
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			pi := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			d.local, d.ifindex = netip.AddrFrom4(pi.Addr), int(pi.Ifindex)
			// The kernel says which of our addresses it took the destination
			// for: of everybody's, another one. (0.0.0.0 when the datagram was
			// there before we asked for this.)
			d.broadcast = pi.Spec_dst != [4]byte{} && pi.Addr != pi.Spec_dst
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			pi := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			d.local, d.ifindex = netip.AddrFrom16(pi.Addr).Unmap(), int(pi.Ifindex)
			d.broadcast = d.local.IsMulticast()
		}
	}
	return d
}
