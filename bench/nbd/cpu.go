//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A meter counts the CPU time of a server and all its children.
type meter struct {
	dir   string // of its cgroup; "" counts by /proc
	stat  string // the file in it that counts
	parse func([]byte) (time.Duration, error)
}

// newMeter makes a cgroup: of version 2, where every one counts, else of version
// 1's cpuacct.
func newMeter() *meter {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	var dirs [2][]string
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		switch {
		case len(f) > 3 && f[2] == "cgroup2":
			dirs[0] = append(dirs[0], f[1]+ownCgroup("0::"), f[1])
		case len(f) > 3 && f[2] == "cgroup" && strings.Contains(","+f[3]+",", ",cpuacct,"):
			dirs[1] = append(dirs[1], f[1])
		}
	}
	name := fmt.Sprintf("diskless-bench-%d", os.Getpid())
	for version, dirs := range dirs {
		for _, dir := range dirs {
			m := &meter{dir: filepath.Join(dir, name), stat: "cpu.stat", parse: parseStat}
			if version == 1 {
				m.stat, m.parse = "cpuacct.usage", parseUsage
			}
			if os.Mkdir(m.dir, 0o755) != nil {
				continue
			}
			if _, err := m.cgroup(); err == nil && m.tryEnter() {
				return m
			}
			_ = os.Remove(m.dir)
		}
	}
	return &meter{}
}

// ownCgroup is the path in the line of /proc/self/cgroup that begins so.
func ownCgroup(prefix string) string {
	data, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), prefix); ok {
			return path
		}
	}
	return ""
}

// tryEnter says whether a process may be put in the cgroup at all.
func (m *meter) tryEnter() bool {
	return command("sh", "-c", `echo $$ > "$1"`, "sh", filepath.Join(m.dir, "cgroup.procs")).Run() == nil
}

func (m *meter) String() string {
	switch m.stat {
	case "cpu.stat":
		return "cgroup v2"
	case "cpuacct.usage":
		return "cgroup v1 (cpuacct)"
	}
	return "/proc/PID/stat of the server's processes, to 10 ms"
}

// wrap makes a command line that enters the cgroup first.
func (m *meter) wrap(args []string) []string {
	if m.dir == "" {
		return args
	}
	return append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(m.dir, "cgroup.procs")}, args...)
}

func (m *meter) close() {
	if m.dir != "" {
		_ = os.Remove(m.dir)
	}
}

func (m *meter) cgroup() (time.Duration, error) {
	data, err := os.ReadFile(filepath.Join(m.dir, m.stat))
	if err != nil {
		return 0, err
	}
	return m.parse(data)
}

func parseStat(data []byte) (time.Duration, error) {
	for line := range bytes.Lines(data) {
		if f := strings.Fields(string(line)); len(f) == 2 && f[0] == "usage_usec" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, errors.New("no usage_usec in cpu.stat")
}

func parseUsage(data []byte) (time.Duration, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return time.Duration(n), err
}

// cpu is what the processes of group have used until now.
func (m *meter) cpu(group int) time.Duration {
	if m.dir != "" {
		d, _ := m.cgroup()
		return d
	}
	var ticks int64
	for _, pid := range members(group) {
		// After the name, which may hold anything: state is field 3, utime to cstime are 14 to 17.
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		for i := 11; i < 15 && i < len(f); i++ {
			n, _ := strconv.ParseInt(f[i], 10, 64)
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// members are the processes of a process group.
func members(group int) (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if got, err := syscall.Getpgid(pid); err == nil && got == group {
			pids = append(pids, pid)
		}
	}
	return pids
}

// memory is what the group's processes take, in KiB: shared pages are divided
// among those that share them.
func memory(group int) (pss float64) {
	for _, pid := range members(group) {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range bytes.Lines(data) {
			if f := strings.Fields(string(line)); len(f) > 1 && f[0] == "Pss:" {
				n, _ := strconv.ParseFloat(f[1], 64)
				pss += n
			}
		}
	}
	return pss
}

func threads(group int) (n int) {
	for _, pid := range members(group) {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		n += len(tasks)
	}
	return n
}

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
	for _, pid := range members(group) {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, dir+"/") {
				add(fd)
			}
		}
	}
	return bytes
}

// busy is the time that all CPUs have worked since the start of the system.
func busy() time.Duration {
	data, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(data), "\n")
	var ticks int64
	for i, f := range strings.Fields(line) {
		switch i {
		case 1, 2, 3, 6, 7, 8: // user, nice, system, irq, softirq, steal
			n, _ := strconv.ParseInt(f, 10, 64)
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// own is the time that this process and its ended children have used.
func own() (d time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			d += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return d
}

// cpus describes the machine.
func cpus() string {
	model := runtime.GOARCH
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range bytes.Lines(data) {
		if name, ok := strings.CutPrefix(string(line), "model name"); ok {
			model = strings.TrimLeft(strings.TrimSpace(name), ": \t")
			break
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%d CPUs (%s), Linux %s, %s", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), runtime.Version())
}
