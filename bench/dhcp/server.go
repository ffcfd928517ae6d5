//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-3ec230fa/diskless/bench/internal/measure"
)

// The servers there are; ours has two stores. server4 is what
// github.com/insomniacslk/dhcp gives a program, with a map. reflector is none:
// it shows what the generators can do.
const (
	ours     = "diskless"
	inMemory = "in-memory"
	kea      = "kea"
	dnsmasq  = "dnsmasq"
	isc      = "isc-dhcpd"
	server4  = "server4"

	reflector = "reflector"
)

var everyone = []string{ours, inMemory, reflector, kea, dnsmasq, isc, server4}

// server is one that runs, on CPU 1.
type server struct {
	b     *bench
	kind  string
	dir   string // of its leases
	cmd   *exec.Cmd
	out   bytes.Buffer
	ended chan struct{}
	took  time.Duration // from its start to its first answer
}

const keaConf = `{"Dhcp4": {"interfaces-config": {"interfaces": [%q], "re-detect": false}, "multi-threading": {"enable-multi-threading": false},
"lease-database": {"type": "memfile", "persist": true, "name": %q, "lfc-interval": 0},
"valid-lifetime": %d, "next-server": %q, "boot-file-name": %q,
"subnet4": [{"id": 1, "subnet": %q, "pools": [{"pool": "%s-%s"}], "option-data": [{"name": "routers", "data": %q}]}],
"loggers": [{"name": "kea-dhcp4", "severity": "ERROR", "output_options": [{"output": "stdout"}]}]}}
`

const iscConf = `authoritative; ping-check false; default-lease-time %d; ddns-update-style none; log-facility local7; one-lease-per-client off; delayed-ack 0;
subnet 10.0.0.0 netmask 255.0.0.0 { range %s %s; option routers %s; next-server %s; filename %q; }
`

func (b *bench) args(kind, dir, first, last string) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "conf")
	switch kind {
	case ours:
		return []string{self, "serve", "-file", filepath.Join(dir, "leases"), "-first", first, "-last", last}, nil
	case inMemory:
		return []string{self, "serve", "-first", first, "-last", last}, nil
	case reflector:
		return []string{b.reflect, serverIf, serverAddr}, nil
	case server4:
		return []string{self, "serve", "-server4"}, nil
	case kea:
		text := fmt.Sprintf(keaConf, serverIf, filepath.Join(dir, "leases.csv"), leaseSeconds, serverAddr, bootFile, pools, first, last, serverAddr)
		return []string{b.tools[kea], "-c", conf}, os.WriteFile(conf, []byte(text), 0o644)
	case dnsmasq:
		return []string{b.tools[dnsmasq], "-k", "-C", "/dev/null", "--port=0", "--interface=" + serverIf, "--bind-interfaces",
			fmt.Sprintf("--dhcp-range=%s,%s,255.0.0.0,%d", first, last, leaseSeconds), "--dhcp-lease-max=100000", "--no-ping",
			"--dhcp-leasefile=" + filepath.Join(dir, "leases"), "--dhcp-authoritative", "--dhcp-boot=" + bootFile, "--user=root", "--pid-file=", "--quiet-dhcp"}, nil
	}
	text := fmt.Sprintf(iscConf, leaseSeconds, first, last, serverAddr, serverAddr, bootFile)
	leases := filepath.Join(dir, "leases")
	if err := os.WriteFile(leases, nil, 0o644); err != nil {
		return nil, err
	}
	return []string{b.tools[isc], "-f", "-q", "-4", "-cf", conf, "-lf", leases, "-pf", filepath.Join(dir, "pid"), serverIf}, os.WriteFile(conf, []byte(text), 0o644)
}

// start runs a server, and waits until it answers. leases, when it is not
// empty, is a lease file of ours to begin with.
func (b *bench) start(kind, leases string) (*server, error) {
	s := &server{b: b, kind: kind, dir: filepath.Join(b.dir, "work"), ended: make(chan struct{})}
	if err := os.RemoveAll(s.dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		return nil, err
	}
	// The kernel knows about a thousand neighbours, and not more.
	if err := exec.Command("ip", "-n", b.lab.server, "neigh", "flush", "dev", serverIf).Run(); err != nil {
		return nil, err
	}
	first, last := poolFirst, poolLast
	if leases != "" {
		first, last = largeFirst, largeLast
		copied := filepath.Join(s.dir, "leases")
		if out, err := exec.Command("sh", "-c", `cp "$0" "$1" && sync "$1"`, leases, copied).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("cp: %w: %s", err, out)
		}
	}
	args, err := b.args(kind, s.dir, first, last)
	if err != nil {
		return nil, err
	}
	line := b.meter.Wrap(append([]string{"ip", "netns", "exec", b.lab.server, "taskset", "-c", "1"}, args...))
	s.cmd = exec.Command(line[0], line[1:]...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	s.cmd.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+s.dir, "KEA_LOCKFILE_DIR="+s.dir)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = s.cmd.Wait(); close(s.ended) }() // ends with the server
	for time.Since(began) < 20*time.Second {
		select {
		case <-s.ended:
			return nil, fmt.Errorf("ended at once: %.300s", s.out.String())
		case <-time.After(100 * time.Millisecond):
		}
		got, err := s.load("fresh", "w=1", "max=1", "secs=0.3", fmt.Sprint("base=", b.next(1)))
		if err == nil && got["done"] == 1 {
			s.took = time.Since(began)
			return s, nil
		}
	}
	s.stop()
	return nil, fmt.Errorf("no answer after 20 s: %.300s", s.out.String())
}

func (s *server) stop() {
	s.b.meter.Kill(s.cmd.Process.Pid)
	<-s.ended
}

func (s *server) cpu() time.Duration { return s.b.meter.CPU(s.cmd.Process.Pid) }

func (s *server) memory() float64 { return measure.Memory(s.b.meter.Processes(s.cmd.Process.Pid)) }

// load runs the generator on CPU 0. Of what it returns "cpu" is the server's,
// in seconds, while it ran; "load" is the generator's.
func (s *server) load(mode string, args ...string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	line := append([]string{"netns", "exec", s.b.lab.client, "taskset", "-c", "0", s.b.load, clientIf, mode, "server=" + serverAddr, "mac=" + s.b.lab.mac}, args...)
	cmd := exec.CommandContext(ctx, "ip", line...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var errs, text bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := make([]byte, 16)
	n, _ := out.Read(p)
	before := s.cpu()
	in.Close()
	_, _ = text.ReadFrom(out)
	used := s.cpu() - before
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("dhcpload %s %v: %w: %s", mode, args, err, strings.TrimSpace(errs.String()))
	}
	if !strings.HasPrefix(string(p[:n]), "ready") {
		return nil, fmt.Errorf("dhcpload said %q", p[:n])
	}
	got := map[string]float64{}
	for f := range strings.FieldsSeq(text.String()) {
		name, value, _ := strings.Cut(f, "=")
		if got[name], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, err
		}
	}
	got["load"], got["cpu"] = got["cpu"], used.Seconds()
	return got, nil
}

// next reserves numbers for n clients that the server does not know.
func (b *bench) next(n int) int {
	b.used += n
	return b.used - n
}
