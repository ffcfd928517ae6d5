package dhcp

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncData flushes the content and the length, not the times.
func syncData(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
