package dhcp

import (
	"os"

	"golang.org/x/sys/unix"
)

const receiveBuffer = 4 << 20

// prepareSocket sets up the server's socket before it is bound, so that not
// even the first datagram comes from another interface or without its name.
func prepareSocket(fd uintptr, iface string) error {
	if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1); err != nil {
		return os.NewSyscallError("setsockopt IP_PKTINFO", err)
	}
	// Room for a thousand machines that are switched on together. More than the
	// system's limit takes CAP_NET_ADMIN; what can be had will do.
	if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if iface == "" {
		return nil
	}
	return os.NewSyscallError("setsockopt SO_BINDTODEVICE", unix.BindToDevice(int(fd), iface))
}
