package initrd

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
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
		const ours = "(set +ex; set -- root \"$rootmnt\"; . /diskless/hook)\n"
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
			require.Equal(t, strings.Repeat("insmod /diskless-modules/squashfs.ko\ninsmod /diskless-modules/overlay.ko\n", 4), r.read("calls"))
			require.NoError(t, os.MkdirAll(r.path("sys/module/squashfs"), 0o755))
			require.NoError(t, os.Remove(r.path("calls")))
			r.run("/bin/sh", "-c", "set -- early; . /diskless/hook")
			require.Equal(t, "insmod /diskless-modules/overlay.ko\n", r.read("calls"))
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
		"mount -t tmpfs -o mode=0755,nosuid,nodev diskless /root/var/lib/dbus\n" +
		"mount -t tmpfs -o mode=0755 diskless /run/diskless/rw\n"
	settings := func(kind string) string {
		return "mount -a -T /run/diskless/mounts\nchroot /root /bin/sh /run/diskless/machine before " + kind + "\numount /root/run /root/sys /root/proc /root/dev\n"
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
		"writable":  {mounts: "/dev/nbd0 /root ext4 rw,relatime 0 0\n", calls: settings("own")},
		"read-only": {mounts: "/dev/nbd0 /root ext4 ro,relatime 0 0\n", calls: "mount -o remount,rw /dev/nbd0 /root\n" + settings("own")},
		"klibc's mount": {mounts: "/dev/nbd0 /root ext4 rw 0 0\n", fails: "*-T*",
			calls: strings.Replace(settings("own"), "chroot", "mount -o bind /dev /root/dev\nmount -o bind /proc /root/proc\nmount -o bind /sys /root/sys\nmount -o bind /run /root/run\nchroot", 1)},
		"not writable after all": {mounts: "/dev/nbd0 /root ext4 ro 0 0\n", fails: "*remount,rw?/dev/nbd0*",
			calls: "mount -o remount,rw /dev/nbd0 /root\n" + overlay + settings("memory")},
		"somebody's overlay": {mounts: squash + "overlayroot /root overlay ro 0 0\n", calls: "mount -o remount,rw overlayroot /root\n" + settings("memory")},
		"own on NFS":         {mounts: "10.0.0.1:/srv /root nfs rw 0 0\n", options: Options{OwnNFS: true}, calls: settings("own")},
		"own on NFS, read-only": {mounts: "10.0.0.1:/srv /root nfs ro 0 0\n", options: Options{OwnNFS: true},
			calls: "mount -o remount,rw 10.0.0.1:/srv /root\n" + settings("own")},
		"own on NFS, not writable after all": {mounts: "10.0.0.1:/srv /root nfs ro 0 0\n", options: Options{OwnNFS: true}, fails: "*remount,rw?10*",
			calls: "mount -o remount,rw 10.0.0.1:/srv /root\n" + overlay + settings("memory")},
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
				for _, dir := range []string{"root/tmp", "root/var/log", "root/var/lib/dbus", "root/etc"} {
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

// What needs no program of the new root is done without any, from outside, and
// comes to the same.
func TestFromTheInitramfs(t *testing.T) {
	options := func() *Options {
		return &Options{Hostname: "pc7", MachineID: nodeOptions.MachineID, HostKeys: nodeOptions.HostKeys, Swap: nodeOptions.Swap, Report: nodeOptions.Report}
	}
	files := []Setting{
		{Name: "HOSTS_01", Value: "10.0.0.1 api.cluster"}, {Name: "DNS_SERVER", Value: "10.0.0.2"}, {Name: "TIMEZONE", Value: "Europe/Berlin"}, {Name: "LANG", Value: "C.UTF-8"},
		{Name: "CONSOLE_KEYMAP", Value: "de"}, {Name: "CRONTAB_01", Value: "* * * * * root true"}, {Name: "MASK_SYSTEM_SERVICES", Value: "cups"}, {Name: "RCFILE_1", Value: "true"},
	}
	with := func(settings ...Setting) []Setting { return append(settings, files...) }
	link := func(target, name string) func(r *root) {
		return func(r *root) {
			require.NoError(r.t, os.RemoveAll(r.path("root/"+name)))
			require.NoError(r.t, os.Symlink(target, r.path("root/"+name)))
		}
	}
	write := func(name string) func(r *root) { return func(r *root) { r.write("root/"+name, "x", 0o644) } }
	inside := map[string]struct {
		settings []Setting
		prepare  func(r *root)
		options  func(o *Options)
	}{
		"a command":         {settings: with(Setting{Name: "PREINIT_1", Value: "true"})},
		"a module":          {settings: with(Setting{Name: "MODULE_1", Value: "dummy"})},
		"a mount":           {settings: with(Setting{Name: "FSTAB_1", Value: "tmpfs /x tmpfs"})},
		"a value for later": {settings: with(Setting{Name: "X", Value: "$(id)", Expand: true})},
		"a user's keys":     {options: func(o *Options) { o.AuthorizedKeys = nodeOptions.AuthorizedKeys }},
		"keys of before":    {prepare: write("root/.ssh/authorized_keys")},
		"a link for them":   {prepare: link("/tmp", "root/.ssh")},
		"a home elsewhere":  {prepare: func(r *root) { r.write("root/etc/passwd", "root:x:0:0::/home/root:/bin/sh\n", 0o644) }},
		"little memory":     {prepare: func(r *root) { r.write("proc/meminfo", "MemTotal: 4096 kB\n", 0o644) }},
		"swap in any case":  {settings: with(Setting{Name: "NBD_SWAP", Value: "y"})},
		"another init":      {prepare: func(r *root) { require.NoError(r.t, os.Remove(r.path("root/usr/lib/systemd/systemd"))) }},
		"sysvinit": {prepare: func(r *root) {
			r.write("root/etc/inittab", "", 0o644)
			r.write("root/sbin/init", "", 0o755)
		}},
		"a key map": {prepare: func(r *root) {
			require.NoError(r.t, os.Remove(r.path("root/usr/lib/systemd/systemd-vconsole-setup")))
			r.write("root/usr/bin/loadkeys", "", 0o755)
		}},
		"/etc":         {prepare: link("/usr/etc", "etc")},
		"/etc/hosts":   {prepare: link("/run/hosts", "etc/hosts")},
		"/etc/fstab":   {prepare: link("../fstab", "etc/fstab")},
		"/etc/default": {prepare: link("/tmp", "etc/default")},
		"/lib":         {prepare: link("/usr/lib", "lib")},
		"interfaces":   {prepare: link("/tmp/x", "etc/network/interfaces.d/x")},
	}
	image := func(r *root, top string) {
		for name, text := range map[string]string{
			"usr/lib/systemd/systemd": "", "usr/lib/systemd/systemd-networkd": "", "usr/lib/systemd/systemd-vconsole-setup": "", "usr/lib/systemd/system/cups.service": "", "usr/lib/systemd/system/nbd-client.service": "",
			"usr/share/zoneinfo/Europe/Berlin": "TZif", "etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/hosts": "127.0.0.1 localhost\n", "etc/ssh/ssh_host_rsa_key": "the image's",
			"etc/network/interfaces": "iface ens3 inet dhcp\n", "etc/network/interfaces.d/y": "iface ens4 inet dhcp\n", "root/.profile": "", "bin/bash": "", "usr/sbin/cron": "",
		} {
			r.write(top+name, text, 0o755)
			require.NoError(r.t, os.Chmod(r.path(top+name), 0o755))
		}
		require.NoError(r.t, os.RemoveAll(r.path(top+"lib")))
		require.NoError(r.t, os.Symlink("usr/lib", r.path(top+"lib")))
		r.write("run/net-ens3.conf", "IPV4DNS0='10.0.0.53'\n", 0o644)
		for name, text := range map[string]string{"flags": "0x1003\n", "type": "1\n", "address": "52:54:00:00:00:01\n"} {
			r.write("sys/class/net/ens3/"+name, text, 0o644)
		}
	}
	boot := func(r *root, settings []Setting, o *Options) {
		t := r.t.(*testing.T)
		t.Helper()
		r.write("proc/mounts", "/dev/nbd0 /root ext4 rw 0 0\n", 0o644)
		r.write("proc/cmdline", "quiet\n", 0o644)
		data, err := Build(settings, nil, o)
		require.NoError(t, err)
		r.unpack(data)
		stubs := ""
		for _, name := range []string{"mount", "umount", "chroot"} {
			stubs += name + "() { echo " + name + " \"$@\" >>/calls; }\n"
		}
		// What sources it goes on as if nothing had happened.
		r.run("/bin/sh", "-c", stubs+"set -- one; root=mine; (set -- root /root; . /diskless/hook); [ $root,$1 = mine,one ]")
		require.Equal(t, "12.34 12.34\n", r.read("run/diskless/times"))
		require.Equal(t, "none", r.told(), r.read("run/diskless/log"))
	}
	// tree is the files of a directory, with their permissions.
	tree := func(r *root, dir string) map[string]string {
		out := map[string]string{}
		require.NoError(r.t, filepath.WalkDir(r.path(dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			require.NoError(r.t, err)
			name, err := filepath.Rel(r.path(dir), path)
			require.NoError(r.t, err)
			text, _ := os.Readlink(path)
			if info.Mode().IsRegular() {
				text = r.read(dir + "/" + name)
			}
			out[name] = info.Mode().String() + " " + text
			return nil
		}))
		return out
	}
	for _, shell := range shells {
		t.Run(shell, func(t *testing.T) {
			r, want := newRoot(t, shell), newRoot(t, shell)
			image(r, "root/")
			boot(r, files, options())
			require.Equal(t, "none", r.read("calls"))
			if shell != "busybox" { // which has no library in /lib
				return
			}
			image(want, "")
			want.machine("own", files, options())
			require.Contains(t, tree(r, "root/etc"), "cron.d/diskless")
			require.Equal(t, tree(want, "etc"), tree(r, "root/etc"))
			require.Equal(t, tree(want, "run/systemd"), tree(r, "run/systemd"))
		})
	}
	for name, test := range inside {
		t.Run(strings.ReplaceAll(name, "/", "_"), func(t *testing.T) {
			o, settings := options(), files
			if test.options != nil {
				test.options(o)
			}
			if test.settings != nil {
				settings = test.settings
			}
			r := newRoot(t, "busybox")
			image(r, "root/")
			if test.prepare != nil {
				test.prepare(r)
			}
			boot(r, settings, o)
			require.Contains(t, r.read("calls"), "chroot /root /bin/sh /run/diskless/machine before own\n")
		})
	}
}

// What had failed before it turns out that programs are needed is counted once.
func TestFailsOnceInside(t *testing.T) {
	r := newRoot(t, "busybox")
	for name, text := range map[string]string{"usr/lib/systemd/systemd": "", "etc/passwd": "root:x:0:0::/root:/bin/sh\n", "usr/bin/loadkeys": ""} {
		r.write("root/"+name, text, 0o755)
	}
	r.write("proc/mounts", "/dev/nbd0 /root ext4 rw 0 0\n", 0o644)
	r.write("proc/cmdline", "quiet\n", 0o644)
	data, err := Build([]Setting{{Name: "TIMEZONE", Value: "None/Such"}, {Name: "CONSOLE_KEYMAP", Value: "de"}}, nil, nil)
	require.NoError(t, err)
	r.unpack(data)
	// Inside all of it is done again.
	const stubs = "mount() { :; }\numount() { :; }\nchroot() { echo TIMEZONE >>/run/diskless/failed; }\n"
	r.run("/bin/sh", "-c", stubs+"set -- root /root; . /diskless/hook")
	require.Contains(t, r.told(), "<3>diskless: TIMEZONE ")
	require.Equal(t, "TIMEZONE\n", r.read("run/diskless/failed"))
}

// The scripts are what shellcheck finds nothing wrong with.
func TestShellcheck(t *testing.T) {
	path, err := exec.LookPath("shellcheck")
	if err != nil {
		skip(t, "install the package shellcheck")
	}
	for _, name := range []string{"hook", "machine", "commands", "tell", "initramfs-tools", "dracut-early", "dracut-root"} {
		// 1090, 1091: files of the machine's are sourced. 2015: A && B || C is meant so.
		out, err := exec.Command(path, "-s", "sh", "-e", "SC1090,SC1091,SC2015", "files/"+name).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}
