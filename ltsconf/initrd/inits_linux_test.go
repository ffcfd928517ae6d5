package initrd

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A real init, of a namespace of its own: without a table, as busybox works, it
// starts what the image has, and then RCFILE_*.
func TestBusyboxInit(t *testing.T) {
	r := newRoot(t, "busybox")
	require.NoError(t, os.MkdirAll(r.path("sbin"), 0o755))
	require.NoError(t, os.Symlink("/bin/busybox", r.path("sbin/init")))
	r.write("etc/init.d/rcS", "#!/bin/sh\necho rcS >>/order\n", 0o755)
	r.machine("memory", []Setting{{Name: "PREINIT_1", Value: "echo preinit >>/order"}, {Name: "RCFILE_1", Value: "echo rcfile >>/order"}},
		&Options{Report: "http://10.0.0.1/up"})
	// Nobody waits at a terminal here.
	table := strings.ReplaceAll(r.read("etc/inittab"), "askfirst:/bin/sh", "once:/bin/true")
	require.Contains(t, table, "::sysinit:/etc/init.d/rcS\n")
	r.write("etc/inittab", table, 0o644)
	require.NoError(t, os.Remove(r.path("dev/null")))
	require.NoError(t, syscall.Mknod(r.path("dev/null"), syscall.S_IFCHR|0o666, 1<<8|3))

	cmd := exec.Command("/sbin/init")
	cmd.Path, cmd.Dir, cmd.Env = "/sbin/init", "/", []string{"PATH=/usr/local/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.dir, Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL, Setsid: true}
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill() // and all of the namespace
		_ = cmd.Wait()
	}()
	require.Eventually(t, func() bool { return strings.Contains(r.read("calls"), "curl ") }, time.Minute, 10*time.Millisecond)
	require.Equal(t, "preinit\nrcS\nrcfile\n", r.read("order"))
}
