//go:build linux

package measure

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Meter counts the CPU time of a server and all its children.
type Meter struct {
	dir   string // of its cgroup; "" counts by /proc
	stat  string // the file in it that counts
	parse func([]byte) (time.Duration, error)
}

// NewMeter makes a cgroup: of version 2, where every one counts, else of version
// 1's cpuacct. Where neither can be made, it counts by /proc.
func NewMeter() *Meter {
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
			m := &Meter{dir: filepath.Join(dir, name), stat: "cpu.stat", parse: parseStat}
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
	return &Meter{}
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
func (m *Meter) tryEnter() bool {
	return exec.Command("sh", "-c", `echo $$ > "$1"`, "sh", filepath.Join(m.dir, "cgroup.procs")).Run() == nil
}

// Exact says whether there is a cgroup.
func (m *Meter) Exact() bool { return m.dir != "" }

func (m *Meter) String() string {
	switch m.stat {
	case "cpu.stat":
		return "cgroup v2"
	case "cpuacct.usage":
		return "cgroup v1 (cpuacct)"
	}
	return "/proc/PID/stat of the server's processes, to 10 ms"
}

// Wrap makes a command line that enters the cgroup first.
func (m *Meter) Wrap(args []string) []string {
	if m.dir == "" {
		return args
	}
	return append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(m.dir, "cgroup.procs")}, args...)
}

// Close removes the cgroup, which must be empty.
func (m *Meter) Close() {
	if m.dir != "" {
		_ = os.Remove(m.dir)
	}
}

func (m *Meter) cgroup() (time.Duration, error) {
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

// CPU is what the processes in the cgroup, or without one those of the process
// group, have used until now.
func (m *Meter) CPU(group int) time.Duration {
	if m.dir != "" {
		d, _ := m.cgroup()
		return d
	}
	var ticks int64
	for _, pid := range Members(group) {
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

// Processes are those in the cgroup, or without one those of the process group.
func (m *Meter) Processes(group int) (pids []int) {
	if m.dir == "" {
		return Members(group)
	}
	data, _ := os.ReadFile(filepath.Join(m.dir, "cgroup.procs"))
	for field := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Kill ends these processes, and waits until they are gone.
func (m *Meter) Kill(group int) {
	for range 500 {
		pids := m.Processes(group)
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
