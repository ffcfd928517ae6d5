//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// childEnv is set for the process that stays.
const childEnv = "NBDATTACH_STAYS"

// background starts this program again, as a process of its own that stays,
// and returns when that has attached the device.
//
// It runs from memory: its file may be on the very device that it keeps, and
// when that waits for a new connection no page of it can be read. The name
// begins with "@", which tells systemd to let it be when it stops the rest.
func background(args []string) error {
	program, err := inMemory()
	if err != nil {
		return err
	}
	defer program.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), program.Fd()), args...)
	cmd.Args[0] = "@nbdattach"
	cmd.Dir = "/"
	cmd.Env = []string{childEnv + "=1"}
	cmd.ExtraFiles = []*os.File{w} // is descriptor 3
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	said, err := io.ReadAll(r)
	path, ok := strings.CutPrefix(string(said), attached)
	switch {
	case err != nil:
		return err
	case ok:
		fmt.Println(path)
		return nil
	case path == "":
		return errors.New("the process that was to stay has ended")
	}
	return errors.New(strings.TrimPrefix(path, "nbdattach: "))
}

const attached = "attached "

// tellParent ends background in the parent.
func tellParent(path string, err error) {
	said := attached + path
	if err != nil {
		said = err.Error()
	}
	f := os.NewFile(3, "parent")
	_, _ = io.WriteString(f, said)
	_ = f.Close()
}

// inMemory returns this program's file as one in memory.
func inMemory() (*os.File, error) {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer in.Close()
	fd, err := unix.MemfdCreate("nbdattach", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	out := os.NewFile(uintptr(fd), "nbdattach")
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return nil, err
	}
	return out, nil
}

// needNobody has the kernel let this process go on when memory is short and
// when every disk waits for it. What an old kernel refuses is left out.
func needNobody() {
	_ = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	_ = unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0)
	_ = os.WriteFile("/proc/self/comm", []byte("nbdattach"), 0)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
}
