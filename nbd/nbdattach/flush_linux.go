package nbdattach

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// flushUnused writes out a block device's cache if nobody else has claimed the
// device: O_EXCL is refused where it is mounted or part of another device.
func flushUnused(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		if errors.Is(err, unix.ENXIO) || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
