package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// outside is the environment variable that has the network namespace which the
// program was first started in.
const outside = "DISKLESS_OUTSIDE_NETNS"

// ErrNotIsolated is returned by what would change the host's own network.
var ErrNotIsolated = errors.New("not in a network namespace of its own: call vm.Isolated first")

// Isolated runs the program again, with the same arguments, in network and
// mount namespaces of its own, with nothing but loopback; as another user than
// root in a user namespace too, in which it is root. There it calls inside with
// nil and returns what that returns, for os.Exit; the first process returns the
// same. Signals are passed on, and the second process is killed with the first.
// What comes from the host's network is to be fetched before.
//
// If there can be no namespaces inside is called in this process, with the
// reason: tests that need a [Lab] can then say why they are skipped.
//
//	func TestMain(m *testing.M) { os.Exit(vm.Isolated(func(err error) int { noLab = err; return m.Run() })) }
func Isolated(inside func(err error) int) int {
	if isolated() {
		// Mounts made here must not show outside.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return inside(fmt.Errorf("mount namespace: %w", err))
		}
		if err := loopbackUp(); err != nil {
			return inside(fmt.Errorf("network namespace: loopback: %w", err))
		}
		return inside(nil)
	}
	// Pdeathsig is about the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd, err := again()
	if err != nil {
		return inside(fmt.Errorf("no network namespace: %w", err))
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	ended := make(chan struct{})
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		for {
			select {
			case s := <-signals:
				// The terminal has sent the whole group a SIGINT already.
				if s != unix.SIGINT || !foreground() {
					cmd.Process.Signal(s)
				}
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	signal.Stop(signals)
	close(ended)
	<-passed
	if err != nil && cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		fmt.Fprintln(os.Stderr, "ended by signal:", status.Signal())
		return 128 + int(status.Signal())
	}
	return cmd.ProcessState.ExitCode()
}

// again starts the program anew in its namespaces.
func again() (*exec.Cmd, error) {
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), outside+"="+here)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOSPC) {
			return nil, fmt.Errorf("%w; run as root, or allow user namespaces (sysctl user.max_user_namespaces, "+
				"kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)", err)
		}
		return nil, err
	}
	return cmd, nil
}

// isolated says whether this process is in another network namespace than the
// one that [Isolated] noted.
func isolated() bool {
	was := os.Getenv(outside)
	here, err := os.Readlink("/proc/self/ns/net")
	return was != "" && err == nil && was != here
}

// loopbackUp makes 127.0.0.1 work, which it does not in a new namespace.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}

// foreground says whether the terminal sends its signals to this process.
func foreground() bool {
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
