package nbd

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// syncData is fdatasync: it leaves out the time stamps, which would cost a
// journal commit on every flush.
func syncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("fdatasync %s: %w", f.Name(), err)
		}
	}
}

// punchHole gives the space of a range back and leaves the length as it is.
func punchHole(f *os.File, off, n int64) error {
	const keepSize, punchHole = 1, 2 // FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
	for {
		err := syscall.Fallocate(int(f.Fd()), keepSize|punchHole, off, n)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// hostBoot returns the ID that the kernel gives each boot of the host.
func hostBoot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// lockFile takes a lock that ends with the descriptor. File systems that
// cannot lock a directory (NFS) do without.
func lockFile(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%s is in use by another server: stop it first: %w", f.Name(), syscall.EBUSY)
	}
	return nil
}
