package squash

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sysStat reads what os.FileInfo carries on Linux.
func sysStat(sys any) (Stat, bool) {
	st, ok := sys.(*syscall.Stat_t)
	if !ok || st == nil {
		return Stat{}, false
	}
	return Stat{
		Uid: st.Uid, Gid: st.Gid,
		Major: unix.Major(uint64(st.Rdev)), Minor: unix.Minor(uint64(st.Rdev)),
		Nlink: uint32(min(uint64(st.Nlink), none32)), Ino: st.Ino, Dev: uint64(st.Dev),
		ChangeTime: time.Unix(st.Ctim.Unix()),
	}, true
}
