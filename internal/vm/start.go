package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// pose is what makes iPXE a plain PXE client: its own user class is covered by
// another, and the boot file is taken over TFTP, from a ProxyDHCP server where
// one has answered. The cover is taken away again, since an NBP would find it
// in the DHCP answer that iPXE hands on.
const pose = `#!ipxe
set net0/user-class plain
dhcp net0 || goto failed
clear net0/user-class
isset ${proxydhcp/filename} && chain tftp://${proxydhcp/next-server}/${proxydhcp/filename} ||
chain tftp://${next-server}/${filename} || goto failed
:failed
echo No bootable device
poweroff
`

// Running is a machine that was started. Its methods may be called
// concurrently, but one Expect at a time is what makes sense.
type Running struct {
	machine Machine
	started time.Time
	dir     string // the machine's own files, or ""
	cmd     *exec.Cmd
	stderr  bytes.Buffer
	serial  net.Conn
	monitor monitor
	console console
	killed  atomic.Bool
	done    chan struct{}
	ended   time.Time // after done
	err     error     // after done
}

// Start starts a machine. It runs until it is switched off, Kill is called or
// ctx is done.
func Start(ctx context.Context, m Machine) (*Running, error) {
	r := &Running{machine: m, done: make(chan struct{})}
	r.console = console{line: m.Line, limit: maxConsole, changed: make(chan struct{})}
	if err := r.start(ctx); err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.Name, err)
	}
	return r, nil
}

func (r *Running) start(ctx context.Context) (err error) {
	if err := r.machine.check(); err != nil {
		return err
	}
	qemu, err := program("qemu-system-x86_64")
	if err != nil {
		return errNoQEMU
	}
	defer func() {
		if err != nil && r.dir != "" {
			os.RemoveAll(r.dir)
		}
	}()
	f, err := r.prepare()
	if err != nil {
		return err
	}
	var theirs [2]*os.File
	for i, conn := range []*net.Conn{&r.monitor.conn, &r.serial} {
		if *conn, theirs[i], err = socketpair(); err != nil {
			return err
		}
		defer theirs[i].Close()
		defer func() {
			if err != nil {
				(*conn).Close()
			}
		}()
	}
	r.cmd = exec.Command(qemu, r.machine.args(f)...)
	r.cmd.ExtraFiles = theirs[:]
	r.cmd.Stderr = &r.stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	begun := make(chan error, 1)
	go r.run(ctx, begun)
	if err := <-begun; err != nil {
		return err
	}
	for _, f := range theirs {
		f.Close() // or a QEMU that ends would not close the connection
	}
	if err := r.monitor.greet(ctx); err != nil {
		r.Kill()
		if said := strings.TrimSpace(r.stderr.String()); said != "" {
			return errors.New(said)
		}
		return err
	}
	return nil
}

// prepare finds and makes the files that the machine needs.
func (r *Running) prepare() (f files, err error) {
	if r.machine.Firmware != UEFI && r.machine.Client != PlainPXE {
		return f, nil
	}
	if r.dir, err = os.MkdirTemp("", "diskless-vm-*"); err != nil {
		return f, err
	}
	if r.machine.Firmware == UEFI {
		vars, err := first(ovmfVars)
		if err == nil {
			f.code, err = first(ovmfCode)
		}
		if err != nil {
			return f, fmt.Errorf("%w; install the package ovmf", err)
		}
		data, err := os.ReadFile(vars)
		if err != nil {
			return f, err
		}
		f.vars = filepath.Join(r.dir, "vars.fd")
		return f, os.WriteFile(f.vars, data, 0o600)
	}
	if f.ipxe, err = first([]string{ipxeKernel}); err != nil {
		return f, fmt.Errorf("%w; install the package ipxe", err)
	}
	f.pose = filepath.Join(r.dir, "pose.ipxe")
	return f, os.WriteFile(f.pose, []byte(pose), 0o600)
}

// run is the goroutine that has QEMU: it starts it, and ends when QEMU has
// ended and all it wrote is read. The kernel kills QEMU when the thread that
// started it ends, so the goroutine keeps its thread.
func (r *Running) run(ctx context.Context, begun chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r.started = time.Now()
	if err := r.cmd.Start(); err != nil {
		begun <- err
		return
	}
	stop := context.AfterFunc(ctx, r.kill)
	defer stop()
	read := make(chan struct{})
	go func() {
		defer close(read)
		r.console.read(r.serial)
	}()
	begun <- nil

	err := r.cmd.Wait()
	r.ended = time.Now()
	<-read
	r.serial.Close()
	r.monitor.conn.Close()
	if r.dir != "" {
		os.RemoveAll(r.dir)
	}
	if err != nil && !r.killed.Load() {
		r.err = fmt.Errorf("machine %s: QEMU: %w: %s", r.machine.Name, err, strings.TrimSpace(r.stderr.String()))
	}
	close(r.done)
}

// socketpair returns two ends of a connection, one to be inherited.
func socketpair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// Machine returns what the machine was started from.
func (r *Running) Machine() Machine { return r.machine }

// Expect waits for the next line of the console that a regular expression
// matches, after the one that the last Expect returned, and returns it. Only
// ended lines are looked at, without escape sequences and trailing blanks.
//
// It fails when ctx is done, when the machine has stopped ([ErrStopped]), and
// at a line that says that no more will come ([ErrHopeless]), unless the
// pattern matches that line. The error has the console's last lines.
func (r *Running) Expect(ctx context.Context, pattern string) (line string, err error) {
	if line, err = r.console.expect(ctx, pattern); err != nil {
		return "", fmt.Errorf("machine %s, %.1fs after its start: %w", r.machine.Name, r.Elapsed().Seconds(), err)
	}
	return line, nil
}

// Send types a line on the console.
func (r *Running) Send(line string) error {
	_, err := io.WriteString(r.serial, line+"\n")
	if err != nil {
		return fmt.Errorf("machine %s: %w", r.machine.Name, err)
	}
	return nil
}

// Transcript returns all lines of the console so far.
func (r *Running) Transcript() string { return r.console.transcript() }

// Reset presses the reset button.
func (r *Running) Reset(ctx context.Context) error { return r.monitor.do(ctx, "system_reset") }

// Kill takes the power away and returns when nothing of the machine is left.
// On a tap, its connections are not closed: the other side hears nothing more.
// (With User the host closes them.) Killing a machine that has ended is fine.
func (r *Running) Kill() {
	r.kill()
	<-r.done
}

func (r *Running) kill() {
	r.killed.Store(true)
	r.cmd.Process.Kill()
}

// Done is closed when the machine has ended.
func (r *Running) Done() <-chan struct{} { return r.done }

// Wait waits for the machine to end. The error is nil if it was switched off,
// killed, or rebooted with NoReboot.
func (r *Running) Wait() error {
	<-r.done
	return r.err
}

// Elapsed is how long the machine has run, or ran.
func (r *Running) Elapsed() time.Duration {
	select {
	case <-r.done:
		return r.ended.Sub(r.started)
	default:
		return time.Since(r.started)
	}
}
