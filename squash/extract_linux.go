package squash

import (
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// sysMknod makes a device node, a FIFO or a socket that nobody listens on.
func sysMknod(dir *os.File, name string, kind uint16, e *Entry) error {
	mode := uint32(0o600)
	switch kind {
	case kindBlock:
		mode |= unix.S_IFBLK
	case kindChar:
		mode |= unix.S_IFCHR
	case kindFIFO:
		mode |= unix.S_IFIFO
	default:
		mode |= unix.S_IFSOCK
	}
	return unix.Mknodat(int(dir.Fd()), name, mode, int(unix.Mkdev(e.Major, e.Minor)))
}

// sysSetXattr sets an attribute of a file in dir, not following a link. There
// is no call that takes a directory and a name.
func sysSetXattr(dir *os.File, name, attr string, value []byte) error {
	return unix.Lsetxattr("/proc/self/fd/"+strconv.Itoa(int(dir.Fd()))+"/"+name, attr, value, 0)
}

func sysChtimes(at *openDir, name string, _ fs.FileMode, when time.Time) error {
	ts, err := unix.TimeToTimespec(when)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(at.dir.Fd()), name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}
