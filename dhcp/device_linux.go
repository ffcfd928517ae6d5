package dhcp

import "golang.org/x/sys/unix"

func bindToDevice(fd uintptr, iface string) error {
	return unix.BindToDevice(int(fd), iface)
}
