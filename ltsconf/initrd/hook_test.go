package initrd

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A script that is added has a place in an order that was fixed before: behind
// what others lay over the root, before udev gives /dev away.
func TestPlaceInInitramfsTools(t *testing.T) {
	const source = "[ -e /conf/param.conf ] && . /conf/param.conf\n"
	each(t, func(t *testing.T, r *root) {
		for _, dir := range []string{"conf/conf.d", "scripts/init-bottom"} {
			require.NoError(t, os.MkdirAll(r.path(dir), 0o755))
		}
		data, err := Build(nil, Modules{{"squashfs", []byte("ELF")}, {"overlay", []byte("ELF")}}, nil)
		require.NoError(t, err)
		r.unpack(data)
		require.Equal(t, "none", r.read("lib/dracut/hooks/pre-pivot/90-diskless.sh"))
		const ours = "sh /diskless/hook root \"$rootmnt\"\n"
		for before, after := range map[string]string{
			"/scripts/init-bottom/overlayroot \"$@\"\n" + source + "/scripts/init-bottom/udev \"$@\"\n" + source: "/scripts/init-bottom/overlayroot \"$@\"\n" + source + ours + "/scripts/init-bottom/udev \"$@\"\n" + source,
			"/scripts/init-bottom/other \"$@\"": "/scripts/init-bottom/other \"$@\"\n" + ours,
			"":                                  ours,
		} {
			r.write("scripts/init-bottom/ORDER", before, 0o644)
			r.run("/bin/sh", "-c", ". /conf/conf.d/diskless")
			require.Equal(t, after, r.read("scripts/init-bottom/ORDER"))
		}
		require.NoError(t, os.RemoveAll(r.path("scripts/init-bottom")))
		r.run("/bin/sh", "-c", ". /conf/conf.d/diskless")
		require.Equal(t, ours, r.read("scripts/init-bottom/ORDER"))
		if r.shell != "busybox" { // whose insmod is its own
			require.Equal(t, strings.Repeat("insmod /diskless/modules/squashfs.ko\ninsmod /diskless/modules/overlay.ko\n", 4), r.read("calls"))
			require.NoError(t, os.MkdirAll(r.path("sys/module/squashfs"), 0o755))
			require.NoError(t, os.Remove(r.path("calls")))
			r.run("/bin/sh", "/diskless/hook", "early")
			require.Equal(t, "insmod /diskless/modules/overlay.ko\n", r.read("calls"))
		}
	})
}

func TestPlaceInDracut(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		for _, dir := range []string{"lib/dracut/hooks/pre-udev", "lib/dracut/hooks/pre-pivot", "newroot"} {
			require.NoError(t, os.MkdirAll(r.path(dir), 0o755))
		}
		r.write("proc/mounts", "/dev/nbd0 /newroot ext4 rw 0 0\n", 0o644)
		r.write("proc/cmdline", "quiet\n", 0o644)
		data, err := Build(nil, nil, nil)
		require.NoError(t, err)
		r.unpack(data)
		require.Equal(t, "none", r.read("conf/conf.d/diskless"))
		r.run("/bin/sh", "-c", "set -e; NEWROOT=/newroot; . /lib/dracut/hooks/pre-udev/00-diskless.sh; . /lib/dracut/hooks/pre-pivot/90-diskless.sh")
		require.Equal(t, "12.34 12.34\n", r.read("run/diskless/times"))
		if r.shell == "busybox" { // whose chroot is its own
			return
		}
		require.Contains(t, r.read("calls"), "chroot /newroot /bin/sh /run/diskless/machine before own\n")
		require.NoError(t, os.Remove(r.path("calls")))
		r.run("/bin/sh", "-c", "NEWROOT=/newroot; . /lib/dracut/hooks/pre-pivot/90-diskless.sh")
		require.Equal(t, "none", r.read("calls"), "once, under whatever names")
	})
}

// What is done with a root, by what is mounted there.
func TestRoots(t *testing.T) {
	const (
		squash  = "/dev/nbd0 /root squashfs ro 0 0\n"
		overlay = "mount -t tmpfs -o mode=0755 diskless /run/diskless/rw\nmount -o bind /root /run/diskless/ro\n" +
			"mount -t overlay -o lowerdir=/run/diskless/ro,upperdir=/run/diskless/rw/upper,workdir=/run/diskless/rw/work diskless /root\n"
	)
	const etc = "mount -t overlay -o lowerdir=/root/etc,upperdir=/run/diskless/rw/upper,workdir=/run/diskless/rw/work diskless /root/etc\n"
	const modprobe = "chroot /root /sbin/modprobe -q overlay\n"
	const share = "mount -t tmpfs -o mode=1777,nosuid,nodev diskless /root/tmp\nmount -t tmpfs -o mode=0755,nosuid,nodev diskless /root/var/log\n" +
		"mount -t tmpfs -o mode=0755 diskless /run/diskless/rw\n"
	settings := func(kind string) string {
		return "mount -o bind /dev /root/dev\nmount -o bind /proc /root/proc\nmount -o bind /sys /root/sys\nmount -o bind /run /root/run\n" +
			"chroot /root /bin/sh /run/diskless/machine before " + kind + "\numount /root/run\numount /root/sys\numount /root/proc\numount /root/dev\n"
	}
	tests := map[string]struct {
		mounts   string
		cmdline  string
		options  Options
		settings []Setting
		fails    string // of mount, a pattern
		calls    string
		told     string
	}{
		"image":               {mounts: squash, calls: overlay + settings("memory")},
		"image, sized":        {mounts: squash, options: Options{OverlaySize: "1G"}, calls: strings.Replace(overlay, "mode=0755", "mode=0755,size=1G", 1) + settings("memory")},
		"image, no such disk": {mounts: squash, options: Options{OverlayLabel: "x"}, calls: overlay + settings("memory")},
		"image, without overlays": {mounts: squash, fails: "*overlay*", told: "no overlay over the root",
			calls: overlay + modprobe + overlay[strings.LastIndex(overlay, "mount"):] + settings("none")},
		"writable": {mounts: "/dev/nbd0 /root ext4 rw 0 0\n", calls: "mount -o remount,rw /dev/nbd0 /root\n" + settings("own")},
		"not writable after all": {mounts: "/dev/nbd0 /root ext4 ro 0 0\n", fails: "*remount,rw?/dev/nbd0*",
			calls: "mount -o remount,rw /dev/nbd0 /root\n" + overlay + settings("memory")},
		"somebody's overlay": {mounts: squash + "overlayroot /root overlay ro 0 0\n", calls: "mount -o remount,rw overlayroot /root\n" + settings("memory")},
		"own on NFS":         {mounts: "10.0.0.1:/srv /root nfs rw 0 0\n", options: Options{OwnNFS: true}, calls: settings("own")},
		"shared on NFS": {mounts: "10.0.0.1:/srv /root nfs4 rw 0 0\n",
			calls: share + etc + settings("shared")},
		"shared on NFS, without overlays": {mounts: "10.0.0.1:/srv /root nfs rw 0 0\n", fails: "*overlay*",
			calls: share + etc + modprobe + etc +
				"mount -o bind /run/diskless/rw/upper /root/etc\n" + settings("shared")},
		"shared on NFS, without memory": {mounts: "10.0.0.1:/srv /root nfs rw 0 0\n", fails: "*/run/diskless/rw", told: "no memory over /etc; the root is not written to",
			calls: share + "mount -o remount,ro 10.0.0.1:/srv /root\n" + settings("none")},
		"image to memory": {mounts: squash, settings: []Setting{{Name: "LTSP_NBD_TO_RAM", Value: "true"}},
			calls: "mount -t tmpfs -o mode=0700,size=68k diskless /run/diskless/image\numount /root\nmount -t squashfs -o ro,loop /run/diskless/image/root /root\nnbd-client -d /dev/nbd0\n" + overlay + settings("memory")},
		"image to memory, without loop": {mounts: squash, settings: []Setting{{Name: "IMAGE_TO_RAM", Value: "1"}}, fails: "*loop*", told: "the image could not be copied",
			calls: "mount -t tmpfs -o mode=0700,size=68k diskless /run/diskless/image\numount /root\nmount -t squashfs -o ro,loop /run/diskless/image/root /root\nmount -t squashfs -o ro /dev/nbd0 /root\numount /run/diskless/image\n" + overlay + settings("memory")},
		"image too large for memory": {mounts: squash, settings: []Setting{{Name: "IMAGE_TO_RAM", Value: "yes"}}, told: "the image is not copied to memory: it has 4 KiB, and there are 65539",
			calls: overlay + settings("memory")},
		"LTSP 5's own":  {mounts: squash, cmdline: "init=/sbin/init-ltsp", calls: "none"},
		"LTSP 19's own": {mounts: squash, cmdline: "ltsp.image=images/x.img", calls: "none"},
		"nothing":       {mounts: "proc /proc proc rw 0 0\n", calls: "none", told: "nothing is mounted at /root"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, r *root) {
				memory := "70000"
				if strings.Contains(name, "too large") {
					memory = "65539"
				}
				r.write("proc/mounts", "rootfs / rootfs rw 0 0\n"+test.mounts, 0o644)
				r.write("proc/meminfo", "MemTotal: 99 kB\nMemAvailable:   "+memory+" kB\n", 0o644)
				r.write("proc/cmdline", "quiet "+test.cmdline+"\n", 0o644)
				r.write("sys/class/block/nbd0/size", "8\n", 0o644)
				r.write("dev/nbd0", "hsqs", 0o600)
				for _, dir := range []string{"root/tmp", "root/var/log", "root/etc"} {
					require.NoError(t, os.MkdirAll(r.path(dir), 0o755))
				}
				require.NoError(t, os.Symlink("/run", r.path("root/var/run")))
				r.write("usr/local/sbin/nbd-client", "#!/bin/sh\necho nbd-client \"$@\" >>/calls\n", 0o755)
				data, err := Build(test.settings, nil, &test.options)
				require.NoError(t, err)
				r.unpack(data)
				// Functions, since busybox's shell prefers its own programs.
				stubs := ""
				for _, name := range []string{"mount", "umount", "chroot"} {
					stubs += name + "() { echo " + name + " \"$@\" >>/calls"
					if name == "mount" && test.fails != "" {
						stubs += "; case \"$*\" in " + test.fails + ") return 1 ;; esac"
					}
					stubs += "; }\n"
				}
				r.run("/bin/sh", "-c", stubs+"set -- root /root; . /diskless/hook")
				require.Equal(t, test.calls, r.read("calls"))
				if test.told == "" {
					require.Equal(t, "none", r.told())
				} else {
					require.Contains(t, r.told(), "<3>diskless: "+test.told)
				}
				if test.calls != "none" {
					require.Equal(t, "12.34 12.34\n", r.read("run/diskless/times"))
				}
			})
		})
	}
}

// An overlay on a disk is empty at each boot, or kept for as long as it is over
// the same image.
func TestOverlayOnDisk(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.write("proc/mounts", "/dev/nbd0 /root squashfs ro 0 0\n", 0o644)
		require.NoError(t, os.MkdirAll(r.path("dev/disk/by-label"), 0o755))
		require.NoError(t, unix.Mknod(r.path("dev/disk/by-label/rw"), unix.S_IFBLK|0o600, 0))
		written := r.path("run/diskless/rw/upper/written")
		boot := func(kept bool, cmdline string) {
			t.Helper()
			require.NoError(t, os.MkdirAll(r.path("run/diskless"), 0o755))
			r.write("proc/cmdline", cmdline+"\n", 0o644)
			data, err := Build(nil, nil, &Options{OverlayLabel: "rw", OverlayKept: kept})
			require.NoError(t, err)
			r.unpack(data)
			// What a reboot does not take away is on the disk.
			require.NoError(t, os.RemoveAll(r.path("run/diskless/machine")))
			r.write("calls", "", 0o644)
			stubs := "mkdir() { case $1 in -m) ;; *) command mkdir \"$@\" ;; esac; }\n"
			for _, name := range []string{"mount", "umount", "chroot"} {
				stubs += name + "() { echo " + name + " \"$@\" >>/calls; }\n"
			}
			r.run("/bin/sh", "-c", stubs+"set -- root /root; . /diskless/hook")
			require.Contains(t, r.read("calls"), "mount -t ext4 /dev/disk/by-label/rw /run/diskless/rw\n")
			require.Contains(t, r.read("calls"), "upperdir=/run/diskless/rw/upper")
			require.Equal(t, "none", r.told())
		}
		const image, newer = "quiet root=/dev/nbd0 nbdroot=10.0.0.1:10809/debian~0a1b ip=dhcp", "quiet root=/dev/nbd0 nbdroot=10.0.0.1:10809/debian~2c3d ip=dhcp"
		for _, test := range []struct {
			kept    bool
			cmdline string
			stays   bool
		}{
			{true, image, false}, {true, image, true}, {true, image + " splash", true}, // whatever else
			{true, newer, false}, {true, newer, true}, {false, newer, false}, {true, newer, false},
			{true, "quiet", false}, {true, "quiet", false}, // who knows which
		} {
			boot(test.kept, test.cmdline)
			if test.stays {
				require.FileExists(t, written)
			} else {
				require.NoFileExists(t, written)
			}
			r.write("run/diskless/rw/upper/written", "", 0o644)
		}
	})
}

// The scripts are what shellcheck finds nothing wrong with.
func TestShellcheck(t *testing.T) {
	path, err := exec.LookPath("shellcheck")
	if err != nil {
		skip(t, "install the package shellcheck")
	}
	for _, name := range []string{"hook", "machine", "commands", "initramfs-tools", "dracut-early", "dracut-root"} {
		// 1090, 1091: files of the machine's are sourced. 2015: A && B || C is meant so.
		out, err := exec.Command(path, "-s", "sh", "-e", "SC1090,SC1091,SC2015", "files/"+name).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}
