package nbd

import (
	"os"
	"syscall"
)

// statID reads a file's identity and state: a file that is replaced has
// another inode, one that is written to another mtime or size, and one whose
// mtime was set back another ctime.
func statID(info os.FileInfo) fileID {
	id := fileID{Size: info.Size(), Mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Dev, id.Ino = uint64(st.Dev), st.Ino
		id.Ctime = st.Ctim.Nano()
	}
	return id
}
