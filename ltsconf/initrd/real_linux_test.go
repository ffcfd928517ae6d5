package initrd

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The same with nothing left out: real mounts, in a mount namespace of the
// test's own. What is mounted at /root is only said to be NFS or SquashFS.
func TestRealMounts(t *testing.T) {
	for kind, want := range map[string]string{
		"nfs": "hostname=[pc7] id=[0123456789abcdef0123456789abcdef] log=[] etc=[overlay] tmp=[tmpfs] root=[] order=[preinit] fstab=[tmpfs /srv/scratch tmpfs defaults,nofail 0 0]\n",
		// Overlaid: what is not mounted over is in memory too.
		"squashfs": "hostname=[pc7] id=[0123456789abcdef0123456789abcdef] log=[old] etc=[] tmp=[] root=[overlay] order=[preinit] fstab=[tmpfs /srv/scratch tmpfs defaults,nofail 0 0]\n",
	} {
		t.Run(kind, func(t *testing.T) {
			r := newRoot(t, "busybox")
			// The overlay's lower directory must not be an overlay, as where tests
			// run in a container: so all of it is in memory.
			for name, text := range map[string]string{
				"root/etc/hostname": "image\n", "root/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "root/var/log/old": "old", "root/tmp/x": "", "root/dev/null": "",
			} {
				r.write(name, text, 0o644)
			}
			for _, dir := range []string{"run", "sys", "root/run", "root/sys", "root/proc", "root/bin", "root/root"} {
				require.NoError(t, os.MkdirAll(r.path(dir), 0o755))
			}
			r.copy(r.path("bin/busybox"), "root/bin/busybox")
			for _, name := range []string{"root/bin/sh", "root/bin/mount", "bin/mount"} {
				require.NoError(t, os.Symlink("busybox", r.path(name)))
			}
			require.NoError(t, os.MkdirAll(r.path("root/media"), 0o755))
			r.write("proc/mounts", "x /root "+kind+" rw 0 0\n", 0o644)
			r.write("proc/cmdline", "quiet\n", 0o644)
			data, err := Build([]Setting{{Name: "PREINIT_1", Value: "echo preinit >/etc/order"}, {Name: "FSTAB_1", Value: "tmpfs /srv/scratch tmpfs"}}, nil,
				&Options{Hostname: "pc7", MachineID: "0123456789abcdef0123456789abcdef"})
			require.NoError(t, err)
			r.unpack(data)
			for _, stub := range []string{"mount", "umount", "chroot"} {
				require.NoError(t, os.Remove(r.path("usr/local/sbin/"+stub)))
			}

			script := `/bin/busybox mount -t tmpfs m /mem && cp -a /bin /diskless /dev /root /run /sys /tmp /etc /mem/ && mkdir /mem/proc && cp /proc/mounts /proc/cmdline /proc/uptime /mem/proc/ &&
exec /bin/busybox chroot /mem /bin/sh -c '
sh /diskless/hook root /root
busybox mount -t proc p /proc
at() { while read -r _ dir type _; do [ "$dir" = "$1" ] && printf %s "$type" && return; done </proc/mounts; }
fstab=; while read -r line; do case $line in tmpfs*) fstab=$line ;; esac; done </root/etc/fstab
echo "hostname=[$(cat /root/etc/hostname)] id=[$(cat /root/etc/machine-id)] log=[$([ -e /root/var/log/old ] && echo old)] etc=[$(at /root/etc)] tmp=[$(at /root/tmp)] root=[$(at /root)] order=[$(cat /root/etc/order)] fstab=[$fstab]"
case "$(at /root/run)$(at /root/dev)$(at /root/proc)$(at /root/sys)" in "") ;; *) echo "left behind" ;; esac
'`
			require.NoError(t, os.Mkdir(r.path("mem"), 0o755))
			cmd := exec.Command("/bin/sh", "-c", script)
			cmd.Path, cmd.Dir = "/bin/sh", "/"
			cmd.Env = []string{"PATH=/bin"}
			cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.dir, Unshareflags: syscall.CLONE_NEWNS}
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Equal(t, want, string(out), r.told())
			require.Equal(t, "image\n", r.read("root/etc/hostname"))
		})
	}
}
