//go:build unix && !darwin && !freebsd && !netbsd

package tftp

import (
	"fmt"
	"io/fs"
	"syscall"
	"time"
)

// settled is how old a change must be to show in a file's times for certain:
// a second one within the clock's step would not.
const settled = 2 * time.Second

// fileID identifies the content of a file of the operating system; it is empty
// when there is none, or when it has just been written to.
func fileID(info fs.FileInfo, now time.Time) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	changed := time.Unix(st.Ctim.Unix())
	if age := now.Sub(changed); age < settled {
		return ""
	}
	return fmt.Sprintf("file %d %d %d %d %d", st.Dev, st.Ino, st.Size, changed.UnixNano(), info.ModTime().UnixNano())
}
