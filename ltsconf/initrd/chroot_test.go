package initrd

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// shells are what /bin/sh is: initramfs-tools and Alpine have busybox's, Debian
// has dash.
var shells = []string{"busybox", "dash"}

// root is a small root file system that commands are run in, with busybox for
// all tools but the shell. What changes more than files only writes down that
// it was called, in /calls.
type root struct {
	t          testing.TB
	dir, shell string
	output     string // of what ran last
}

func skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("DISKLESS_REQUIRE") == "all" {
		t.Fatal("DISKLESS_REQUIRE=all, but " + why)
	}
	t.Skip(why)
}

func newRoot(t testing.TB, shell string) *root {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, "chroot needs root")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		skip(t, "install the package busybox-static")
	}
	if f, err := elf.Open(busybox); err != nil || f.Section(".interp") != nil {
		skip(t, "install the package busybox-static: this busybox needs libraries")
	}
	r := &root{t: t, dir: t.TempDir(), shell: shell}
	for _, dir := range []string{"dev", "etc", "run", "tmp", "proc/sys/kernel", "root", "var/lib", "lib/systemd/system", "usr/share/zoneinfo/Europe"} {
		require.NoError(t, os.MkdirAll(r.path(dir), 0o755))
	}
	r.copy(busybox, "bin/busybox")
	for _, name := range []string{"cat", "chmod", "chown", "cp", "ln", "mkdir", "mv", "readlink", "rm", "date", "touch", "sleep", "true", "false"} {
		require.NoError(t, os.Symlink("busybox", r.path("bin/"+name)))
	}
	if shell == "busybox" {
		require.NoError(t, os.Symlink("busybox", r.path("bin/sh")))
	} else {
		program, err := exec.LookPath(shell)
		require.NoError(t, err)
		r.copy(program, "bin/sh")
		out, err := exec.Command("ldd", program).Output()
		require.NoError(t, err)
		for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(string(out), -1) {
			r.copy(lib, lib)
		}
	}
	for _, name := range []string{"mount", "umount", "modprobe", "insmod", "chroot", "curl"} {
		r.write("usr/local/sbin/"+name, "#!/bin/sh\necho "+name+" \"$@\" >>/calls\n", 0o755)
	}
	r.write("usr/sbin/cron", "", 0o755)
	r.write("dev/null", "", 0o666)
	r.write("proc/uptime", "12.34 1.00\n", 0o644)
	r.write("proc/meminfo", "MemTotal: 8388608 kB\n", 0o644)
	r.write("usr/share/zoneinfo/Europe/Berlin", "TZif", 0o644)
	r.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644)
	return r
}

func (r *root) path(name string) string { return filepath.Join(r.dir, name) }

func (r *root) copy(from, to string) {
	data, err := os.ReadFile(from)
	require.NoError(r.t, err)
	r.write(to, string(data), 0o755)
}

func (r *root) write(name, text string, perm os.FileMode) {
	r.t.Helper()
	require.NoError(r.t, os.MkdirAll(filepath.Dir(r.path(name)), 0o755))
	require.NoError(r.t, os.WriteFile(r.path(name), []byte(text), perm))
}

// read returns a file's text, or "none".
func (r *root) read(name string) string {
	data, err := os.ReadFile(r.path(name))
	if err != nil {
		return "none"
	}
	return string(data)
}

// unpack does with an archive what the kernel does.
func (r *root) unpack(data []byte) {
	listing, files := unpack(r.t, data)
	for line := range strings.Lines(listing) {
		var mode os.FileMode
		var name string
		_, err := fmt.Sscanf(line, "%o %s", &mode, &name)
		require.NoError(r.t, err)
		if mode&0o170000 == 0o040000 {
			require.NoError(r.t, os.MkdirAll(r.path(name), mode.Perm()))
		} else if _, err := os.Stat(filepath.Dir(r.path(name))); err == nil {
			r.write(name, files[name], mode.Perm())
		}
	}
}

// run runs a command in it, with nothing of this process's environment.
func (r *root) run(args ...string) {
	r.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Path = args[0]
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/bin", "rootmnt=/root"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.dir}
	out, err := cmd.CombinedOutput()
	require.NoError(r.t, err, "%s", out)
	r.output = string(out)
}

// machine runs what is run in the new root.
func (r *root) machine(kind string, settings []Setting, o *Options) {
	r.t.Helper()
	data, err := Build(settings, nil, o)
	require.NoError(r.t, err)
	_, files := unpack(r.t, data)
	for _, name := range []string{"machine", "commands", "tell", "settings", "preinit", "rcfiles", "report", "env", "options"} {
		r.write("run/diskless/"+name, files["diskless/"+name], 0o600)
	}
	require.NoError(r.t, os.MkdirAll(r.path("run/diskless/output"), 0o755))
	r.write("run/diskless/times", "5.00 5.50\n", 0o644)
	r.run("/bin/sh", "/run/diskless/machine", "before", kind)
}

// told is what the kernel's log has got.
func (r *root) told() string { return r.read("dev/kmsg") }
