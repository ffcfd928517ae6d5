//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/seed-3ec230fa/diskless/bench/internal/measure"
)

// stored is how many bytes the files in dir take, also those that are deleted
// and that the group has open.
func stored(dir string, group int) (bytes float64) {
	seen := map[uint64]bool{}
	add := func(path string) {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return
		}
		if st := info.Sys().(*syscall.Stat_t); !seen[st.Ino] {
			seen[st.Ino] = true
			bytes += float64(st.Blocks) * 512
		}
	}
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, _ error) error { add(path); return nil })
	for _, pid := range measure.Members(group) {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, dir+"/") {
				add(fd)
			}
		}
	}
	return bytes
}
