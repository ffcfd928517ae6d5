//go:build !linux

package squash

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

func sysMknod(*os.File, string, uint16, *Entry) error { return errors.ErrUnsupported }

func sysSetXattr(*os.File, string, string, []byte) error { return errors.ErrUnsupported }

// sysChtimes leaves the times of symbolic links, for os follows them.
func sysChtimes(at *openDir, name string, mode fs.FileMode, when time.Time) error {
	if mode&fs.ModeSymlink != 0 {
		return nil
	}
	return at.root.Chtimes(name, when, when)
}
