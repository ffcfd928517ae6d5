package dhcp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// rawSender sends UDP datagrams to hosts that do not answer ARP yet, through
// a packet socket. The zero value is ready to use.
type rawSender struct {
	mu     sync.RWMutex
	fd     int // of an open socket
	open   bool
	failed bool // no permission: it is not tried again
	closed bool
}

var errNoRaw = errors.New("dhcp: no packet socket")

// usable reports whether data can be sent to hw this way.
func (s *rawSender) usable(l *link, data []byte, hw net.HardwareAddr) bool {
	return l != nil && len(l.iface.HardwareAddr) == 6 && len(hw) == 6 && len(l.addrs) > 0 && ipHeader+udpHeader+len(data) <= l.iface.MTU &&
		s.prepare() == nil
}

// frame makes a datagram from the first address of the link that is in the
// client's subnet.
func (s *rawSender) frame(l *link, data []byte, fromPort uint16, to netip.AddrPort, hw net.HardwareAddr) []byte {
	from := l.addrs[0]
	for _, a := range l.addrs {
		if n, ok := l.prefixes[a]; ok && n.Contains(to.Addr()) {
			from = a
			break
		}
	}
	return udpFrame(l.iface.HardwareAddr, hw, netip.AddrPortFrom(from, fromPort), to, data)
}

// send returns how many of the messages were sent; ok is false when the next
// one was refused.
func (s *rawSender) send(msgs []mmsghdr) (n int, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return 0, false
	}
	n, errno := sendmmsg(uintptr(s.fd), msgs)
	if errno != 0 {
		return 0, false
	}
	return n, true
}
func (s *rawSender) prepare() error {
	s.mu.RLock()
	ready, failed := s.open && !s.closed, s.failed || s.closed
	s.mu.RUnlock()
	switch {
	case ready:
		return nil
	case failed:
		return errNoRaw
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open || s.failed || s.closed {
		return nil
	}
	// Protocol 0: it sends only.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		s.failed = true
		return os.NewSyscallError("socket", err)
	}
	s.fd, s.open = fd, true
	return nil
}

func (s *rawSender) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open && !s.closed {
		unix.Close(s.fd)
	}
	s.closed = true
}
