//go:build linux

package measure

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Members are the processes of a process group.
func Members(group int) (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if got, err := syscall.Getpgid(pid); err == nil && got == group {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Memory is what the processes take, in KiB: shared pages are divided among
// those that share them (PSS).
func Memory(pids []int) (pss float64) {
	for _, pid := range pids {
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

// Threads is how many the processes have.
func Threads(pids []int) (n int) {
	for _, pid := range pids {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		n += len(tasks)
	}
	return n
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

// Others begins to look at what other programs do, which are neither this one,
// nor its children that have ended when it is asked, nor the server, whose CPU
// time is given. What it returns says how many CPUs they have used since.
func Others(server func() time.Duration) func() float64 {
	busy0, own0, server0, t0 := busy(), own(), server(), time.Now()
	return func() float64 {
		d := busy() - busy0 - (own() - own0) - (server() - server0)
		return max(0, d.Seconds()/time.Since(t0).Seconds())
	}
}

// Machine describes the machine.
func Machine() string {
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
