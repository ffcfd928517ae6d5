//go:build linux

package main

import (
	"bytes"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	pin "github.com/pin/tftp/v3"

	"github.com/seed-3ec230fa/diskless/tftp"
)

//go:embed load/tftpload.c
var loadSource []byte

// The servers there are. pin is what github.com/pin/tftp gives a program; ours
// has its two modes.
const (
	ours    = "diskless"
	oursOne = "one-port"
	hpa     = "tftpd-hpa"
	dnsmasq = "dnsmasq"
	atftpd  = "atftpd"
	pinTFTP = "pin"
)

var everyone = []string{ours, oursOne, hpa, dnsmasq, atftpd, pinTFTP}

// serve is what this program does as a server.
func serve(args []string) {
	set := flag.NewFlagSet("serve", flag.ExitOnError)
	addr := set.String("addr", ":69", "")
	dir := set.String("dir", ".", "")
	one := set.Bool("one-port", false, "")
	peer := set.Bool("pin", false, "")
	_ = set.Parse(args)
	fail := func(err error) { fmt.Fprintln(os.Stderr, err); os.Exit(1) }
	if *peer {
		s := pin.NewServer(func(name string, rf io.ReaderFrom) error {
			f, err := os.Open(filepath.Join(*dir, filepath.Base(name)))
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = rf.ReadFrom(f)
			return err
		}, nil)
		fail(s.ListenAndServe(*addr))
	}
	files, err := tftp.Dir(*dir, nil)
	if err != nil {
		fail(err)
	}
	s := &tftp.Server{Addr: *addr, Handler: tftp.FileServerFS(files), OnePort: *one, MaxTransfersPerPeer: -1,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	fail(s.ListenAndServe())
}

// server is one that runs, on CPU 1, in a cgroup that counts its CPU time.
type server struct {
	cmd    *exec.Cmd
	cgroup string
	log    bytes.Buffer
	ended  chan struct{}
}

func (b *bench) start(kind, addr string) (*server, error) {
	root := filepath.Join(b.dir, "root")
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := map[string][]string{
		ours:    {self, "serve", "-addr", addr + ":69", "-dir", root},
		oursOne: {self, "serve", "-addr", addr + ":69", "-dir", root, "-one-port"},
		pinTFTP: {self, "serve", "-addr", addr + ":69", "-dir", root, "-pin"},
		hpa:     {b.tools[hpa], "-4", "-L", "-B", "65464", "-u", "root", "-s", root},
		dnsmasq: {b.tools[dnsmasq], "-k", "-C", "/dev/null", "--port=0", "--edns-packet-max=65535", "--enable-tftp", "--tftp-root=" + root,
			"--tftp-max=2000", "--listen-address=" + addr, "--bind-interfaces", "--user=root", "--pid-file="},
		atftpd: {b.tools[atftpd], "--daemon", "--no-fork", "--port", "69", "--bind-address", addr, "--user", "root", "--maxthread", "2000",
			"--no-multicast", "--logfile", "/dev/null", root},
	}[kind]
	s := &server{ended: make(chan struct{}), cgroup: newCgroup()}
	if s.cgroup == "" {
		return nil, errors.New("no cgroup (version 2, or cpuacct of version 1) can be made: CPU time cannot be counted")
	}
	line := append([]string{"-c", `echo $$ > "$0/cgroup.procs" && exec taskset -c 1 ip netns exec "$@"`, s.cgroup, b.lab.server}, args...)
	s.cmd = exec.Command("sh", line...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the server
		_ = s.cmd.Wait()
		close(s.ended)
	}()
	select {
	case <-s.ended:
		s.stop()
		return nil, fmt.Errorf("ended at once: %s", s.log.String())
	case <-time.After(500 * time.Millisecond):
		return s, nil
	}
}

// stop ends the server with all its children.
func (s *server) stop() {
	for range 50 {
		pids, _ := os.ReadFile(filepath.Join(s.cgroup, "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(pids)) {
			if n, err := strconv.Atoi(pid); err == nil {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		}
		if os.Remove(s.cgroup) == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	<-s.ended
}

// newCgroup makes one below the first hierarchy that counts CPU time.
func newCgroup() string {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for _, version := range []string{"cgroup2", "cgroup"} {
		for line := range strings.Lines(string(mounts)) {
			f := strings.Fields(line)
			if len(f) < 4 || f[2] != version || version == "cgroup" && !strings.Contains(","+f[3]+",", ",cpuacct,") {
				continue
			}
			dir := filepath.Join(f[1], fmt.Sprintf("bench-tftp-%d", os.Getpid()))
			if os.Mkdir(dir, 0o755) != nil {
				continue
			}
			s := server{cgroup: dir}
			if exec.Command("sh", "-c", `echo $$ > "$0/cgroup.procs"`, dir).Run() == nil && s.cpu() >= 0 {
				return dir
			}
			_ = os.Remove(dir)
		}
	}
	return ""
}

// cpu is what the server has used, in seconds.
func (s *server) cpu() float64 {
	if data, err := os.ReadFile(filepath.Join(s.cgroup, "cpuacct.usage")); err == nil {
		n, _ := strconv.ParseFloat(strings.TrimSpace(string(data)), 64)
		return n / 1e9
	}
	data, _ := os.ReadFile(filepath.Join(s.cgroup, "cpu.stat"))
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "usage_usec" {
			n, _ := strconv.ParseFloat(f[1], 64)
			return n / 1e6
		}
	}
	return -1
}

// memory is the proportional set size of the server's processes, in KiB.
func (s *server) memory() (pss float64) {
	pids, _ := os.ReadFile(filepath.Join(s.cgroup, "cgroup.procs"))
	for pid := range strings.FieldsSeq(string(pids)) {
		data, _ := os.ReadFile("/proc/" + pid + "/smaps_rollup")
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
				n, _ := strconv.ParseFloat(f[1], 64)
				pss += n
			}
		}
	}
	return pss
}

// busy is the time that all CPUs have worked since the start of the system, in
// seconds.
func busy() (d float64) {
	data, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(data), "\n")
	for i, f := range strings.Fields(line) {
		switch i {
		case 1, 2, 3, 6, 7, 8: // user, nice, system, irq, softirq, steal
			n, _ := strconv.ParseFloat(f, 64)
			d += n / 100
		}
	}
	return d
}

// own is the time that this process has used: the link's work.
func own() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
