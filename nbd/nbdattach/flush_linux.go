package nbdattach

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// flush writes out a block device's cache if nobody else has claimed the
// device: O_EXCL is refused where it is mounted or part of another device.
// Without the device's file, as in what is left of an initramfs, nobody knows.
func (generic) flush(index int) error {
	f, err := os.OpenFile(path(index), os.O_RDONLY|unix.O_EXCL, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil // it is not attached
	}
	if err != nil {
		return fmt.Errorf("it may be in use: %w", err)
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
