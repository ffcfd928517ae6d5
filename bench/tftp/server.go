//go:build linux

package main

import (
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	pin "github.com/pin/tftp/v3"

	"github.com/seed-3ec230fa/diskless/bench/internal/measure"
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
	meter *measure.Meter
	cmd   *exec.Cmd
	log   bytes.Buffer
	ended chan struct{}
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
	s := &server{meter: b.meter, ended: make(chan struct{})}
	line := s.meter.Wrap(append([]string{"taskset", "-c", "1", "ip", "netns", "exec", b.lab.server}, args...))
	s.cmd = exec.Command(line[0], line[1:]...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the server
		_ = s.cmd.Wait()
		close(s.ended)
	}()
	for deadline := time.Now().Add(10 * time.Second); ; {
		select {
		case <-s.ended:
			s.stop()
			return nil, fmt.Errorf("ended at once: %s", s.log.String())
		case <-time.After(50 * time.Millisecond):
		}
		sockets, err := exec.Command("ip", "netns", "exec", b.lab.server, "cat", "/proc/net/udp").Output()
		if err == nil && listens(string(sockets)) {
			return s, nil
		}
		if time.Now().After(deadline) {
			s.stop()
			return nil, fmt.Errorf("does not listen: %s", s.log.String())
		}
	}
}

// listens says whether /proc/net/udp has a socket on port 69.
func listens(sockets string) bool {
	for line := range strings.Lines(sockets) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasSuffix(f[1], ":0045") {
			return true
		}
	}
	return false
}

// stop ends the server with all its children.
func (s *server) stop() {
	s.meter.Kill(s.cmd.Process.Pid)
	<-s.ended
}

func (s *server) cpu() time.Duration { return s.meter.CPU(s.cmd.Process.Pid) }
func (s *server) memory() float64 {
	return measure.Memory(s.meter.Processes(s.cmd.Process.Pid))
}
