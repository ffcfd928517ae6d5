//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-3ec230fa/diskless/bench/internal/measure"
)

// The servers there are. What is called ours is examples/nbdexport.
const (
	ours      = "diskless"
	nbdkit    = "nbdkit"
	qemuNBD   = "qemu-nbd"
	nbdServer = "nbd-server"
)

var everyone = []string{ours, nbdkit, qemuNBD, nbdServer}

// A mode is what a server is to do with an image.
type mode int

const (
	readOnly      mode = iota
	overlay            // writable, copy-on-write to files
	overlayMemory      // the same in memory, which only ours has
	encrypted          // read-only, over TLS
	impatient          // writable, and ours gives a silent client five seconds
)

const patience = 5 * time.Second

// A server is one that runs.
type server struct {
	b     *bench
	kind  string
	mode  mode
	port  string
	cmd   *exec.Cmd
	group int    // of its processes
	cow   string // where it stores what is written
	log   bytes.Buffer
	ended chan struct{}
}

// command is a command in a process group of its own, so that its children can
// be counted, and ended with it.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// args is how a server is started.
func (b *bench) args(s *server, image string) []string {
	m := s.mode
	write := m == overlay || m == overlayMemory || m == impatient
	args := map[string][]string{
		ours:    {b.binary, "-listen", "127.0.0.1:" + s.port},
		nbdkit:  {"nbdkit", "-f", "-i", "127.0.0.1", "-p", s.port},
		qemuNBD: {"qemu-nbd", "-t", "-e", "1100", "-f", "raw", "-b", "127.0.0.1", "-p", s.port},
	}[s.kind]
	switch s.kind {
	case ours:
		switch m {
		case overlay:
			args = append(args, "-overlay", s.cow)
		case overlayMemory:
			args = append(args, "-overlay", "memory")
		case impatient:
			args = append(args, "-overlay", "memory", "-timeout", patience.String())
		case encrypted:
			args = append(args, "-tls-cert", b.certs+"/server-cert.pem", "-tls-key", b.certs+"/server-key.pem")
		}
		return append(args, image)
	case nbdkit:
		if m == encrypted {
			args = append(args, "--tls=require", "--tls-certificates="+b.certs)
		}
		if write {
			return append(args, "--filter=cow", "file", image)
		}
		return append(args, "-r", "file", image)
	case qemuNBD:
		if m == encrypted {
			args = append(args, "--object", "tls-creds-x509,id=tls,endpoint=server,verify-peer=off,dir="+b.certs, "--tls-creds", "tls")
		}
		if write {
			return append(args, "-s", image)
		}
		return append(args, "-r", image)
	}
	conf := filepath.Join(b.dir, "nbd-server.conf")
	text := fmt.Sprintf("[generic]\nlistenaddr = 127.0.0.1\nport = %s\nallowlist = true\n[default]\nexportname = %s\n", s.port, image)
	if write {
		text += fmt.Sprintf("copyonwrite = true\ncowdir = %s\nflush = true\ntrim = true\n", s.cow)
	} else {
		text += "readonly = true\n"
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		b.fatal(err)
	}
	return []string{"nbd-server", "-C", conf, "-p", s.pidfile()}
}

// pidfile is where nbd-server, which always goes to the background and into a
// process group of its own, leaves its id.
func (s *server) pidfile() string { return filepath.Join(s.b.dir, "pid") }

// start runs a server and waits until it can be connected to.
func (b *bench) start(kind string, m mode, image string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	s := &server{b: b, kind: kind, mode: m, port: port, cow: filepath.Join(b.dir, "cow"), ended: make(chan struct{})}
	if err := os.MkdirAll(s.cow, 0o755); err != nil {
		return nil, err
	}
	s.cmd = command(b.meter.Wrap(b.args(s, image))...)
	s.cmd.Env = append(os.Environ(), "TMPDIR="+s.cow)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.group = s.cmd.Process.Pid
	go func() { _ = s.cmd.Wait(); close(s.ended) }()
	b.running = s
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		select {
		case <-s.ended:
			if data, err := os.ReadFile(s.pidfile()); kind == nbdServer && err == nil {
				if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
					s.group = pid
				}
			} else if kind != nbdServer || !s.cmd.ProcessState.Success() {
				s.stop()
				reason, _, _ := strings.Cut(strings.TrimSpace(s.log.String()), "\n")
				return nil, fmt.Errorf("%s has ended: %s", kind, reason)
			}
		default:
		}
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			c.Close()
			if kind == nbdServer && s.group == s.cmd.Process.Pid {
				continue
			}
			time.Sleep(50 * time.Millisecond)
			return s, nil
		}
	}
	s.stop()
	return nil, fmt.Errorf("%s does not listen after 10 s", kind)
}

// stop ends the server's processes, and takes away what it has stored.
func (s *server) stop() {
	_ = syscall.Kill(-s.group, syscall.SIGTERM)
	for i := 0; len(measure.Members(s.group)) > 0 && i < 500; i++ {
		if i == 300 {
			_ = syscall.Kill(-s.group, syscall.SIGKILL)
		}
		time.Sleep(10 * time.Millisecond)
	}
	<-s.ended
	_ = os.RemoveAll(s.cow)
	_ = os.Remove(s.pidfile())
	s.b.running = nil
}

func (s *server) cpu() time.Duration { return s.b.meter.CPU(s.group) }
func (s *server) memory() float64    { return measure.Memory(measure.Members(s.group)) }

// export is the name under which the image is there.
func (s *server) export() string {
	if s.kind == nbdServer {
		return "default"
	}
	return ""
}

// run runs a tool to its end and returns the fields that it prints.
func (s *server) run(args ...string) ([]string, error) {
	ctx, cancel := context.WithTimeout(s.b.ctx, 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "NBDLOAD_SPREAD="+s.b.spread)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(args[0]), err, strings.TrimSpace(errs.String()))
	}
	return strings.Fields(out.String()), nil
}

// load runs the load generator.
func (s *server) load(args ...string) ([]string, error) {
	return s.run(append([]string{s.b.load, s.port, s.export()}, args...)...)
}

// hold runs the load generator in a mode that says when it is ready and then
// waits; end lets it go on and returns all that it printed.
func (s *server) hold(args ...string) (end func() ([]string, error), err error) {
	cmd := exec.CommandContext(s.b.ctx, s.b.load, append([]string{s.port, s.export()}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	overdue := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	var text bytes.Buffer
	p := make([]byte, 256)
	n, _ := out.Read(p)
	text.Write(p[:n])
	end = func() ([]string, error) {
		defer overdue.Stop()
		in.Close()
		_, _ = text.ReadFrom(out)
		if err := cmd.Wait(); err != nil {
			return nil, fmt.Errorf("nbdload: %w: %s", err, strings.TrimSpace(errs.String()))
		}
		return strings.Fields(text.String()), nil
	}
	if n == 0 {
		_, err := end()
		return nil, fmt.Errorf("%v: %w", args, err)
	}
	return end, nil
}
