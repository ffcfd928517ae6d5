package dhcp

import (
	"os"

	"golang.org/x/sys/unix"
)

// prepareSocket sets up the server's socket before it is bound, so that not
// even the first datagram comes from another interface or without its name.
func prepareSocket(fd uintptr, iface string) error {
	if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1); err != nil {
		return os.NewSyscallError("setsockopt IP_PKTINFO", err)
	}
	if iface == "" {
		return nil
	}
	return os.NewSyscallError("setsockopt SO_BINDTODEVICE", unix.BindToDevice(int(fd), iface))
}
