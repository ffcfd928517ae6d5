package netroot_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"

	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/netroot"
)

// cpio makes an archive of names, each with a few bytes of content.
func cpio(names ...string) []byte {
	var b bytes.Buffer
	for _, name := range append(names, "TRAILER!!!") {
		content := name[:len(name)%7]
		if name == "TRAILER!!!" {
			content = ""
		}
		fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00", 1, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
		b.Write(make([]byte, (4-b.Len()%4)%4))
		b.WriteString(content)
		b.Write(make([]byte, (4-b.Len()%4)%4))
	}
	b.Write(make([]byte, (512-b.Len()%512)%512))
	return b.Bytes()
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func good() []byte {
	return cpio("usr/lib/modules/6.1/kernel/fs/squashfs/squashfs.ko", "usr/lib/modules/6.1/kernel/drivers/block/nbd.ko.xz", "usr/lib/modules/6.1/kernel/fs/overlayfs/overlay.ko.zst",
		"usr/lib/modules/6.1/kernel/fs/nfs/nfs.ko", "usr/lib/modules/6.1/kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko", "bin/nbd-client", "usr/bin/nfsmount")
}

// healthy is a root that nothing is wrong with.
func healthy() fstest.MapFS {
	m := fstest.MapFS{
		"boot/vmlinuz-6.1.0-9-amd64": {Data: []byte("kernel")}, "boot/initrd.img-6.1.0-9-amd64": {Data: append(cpio("kernel/x86/microcode/x.bin"), gzipped(good())...)},
		"usr/lib/modules/6.1.0-9-amd64/modules.builtin": {Data: []byte("kernel/fs/ext4/ext4.ko\n")}, "lib": {Data: []byte("usr/lib"), Mode: fs.ModeSymlink},
		"usr/sbin/init": {}, "sbin": {Data: []byte("usr/sbin"), Mode: fs.ModeSymlink}, "etc/machine-id": {}, "etc/fstab": {Data: []byte("# nothing\nproc /proc proc defaults 0 0\n")},
		"etc/network/interfaces": {Data: []byte("auto lo\niface lo inet loopback\niface eth0 inet manual\n")},
	}
	for _, dir := range []string{"dev", "proc", "run", "sys", "tmp"} {
		m[dir] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	}
	return m
}

func check(t testing.TB, tree fstest.MapFS, root netroot.Root) []netroot.Finding {
	t.Helper()
	list, err := netroot.Check(t.Context(), squash.FromFS(tree), &netroot.Options{Root: root})
	require.NoError(t, err)
	return list
}

// Each finding, and that its rules leave nothing to be found.
func TestCheck(t *testing.T) {
	require.Empty(t, check(t, healthy(), netroot.NBD))
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s), Mode: 0o640} }
	initrd := func(b []byte) func(fstest.MapFS) {
		return func(m fstest.MapFS) { m["boot/initrd.img-6.1.0-9-amd64"] = &fstest.MapFile{Data: b} }
	}
	add := func(name string, f *fstest.MapFile) func(fstest.MapFS) { return func(m fstest.MapFS) { m[name] = f } }
	without := func(name string) func(fstest.MapFS) { return func(m fstest.MapFS) { delete(m, name) } }
	for _, tt := range []struct {
		change  func(fstest.MapFS)
		name    string
		message string
		words   bool // there are no rules for it
	}{
		{without("usr/sbin/init"), "init", "no program to start", true},
		{without("boot/vmlinuz-6.1.0-9-amd64"), "kernel", "no kernel in /boot", true},
		{without("usr/lib/modules/6.1.0-9-amd64/modules.builtin"), "modules", "6.1.0-9-amd64, has no modules", true},
		{without("boot/initrd.img-6.1.0-9-amd64"), "initrd", "no initrd", true},
		{func(m fstest.MapFS) {
			m["boot/vmlinuz-6.1.0-10-amd64"], m["usr/lib/modules/6.1.0-10-amd64/modules.builtin"] = text("newer"), text("")
		}, "initrd", "vmlinuz-6.1.0-10-amd64, has no initrd", true},
		{initrd(bytes.ReplaceAll(good(), []byte("squashfs.ko"), []byte("squashfz.ko"))), "initrd-modules", "squashfs", true},
		{initrd(bytes.ReplaceAll(good(), []byte("net/ethernet"), []byte("nat/ethernet"))), "initrd-network", "no driver of a network card", true},
		{initrd(bytes.ReplaceAll(good(), []byte("nbd-client"), []byte("nbd-klient"))), "initrd-program", "no nbd-client", true},
		{initrd([]byte("something else")), "initrd", "cannot be looked into", true},
		{initrd(good()[:300]), "initrd", "cut short", true},
		{without("proc"), "directories", "/proc is missing", false},
		{add("etc/fstab", text("UUID=1-2 / ext4 defaults 0 1\nproc /proc proc defaults 0 0\n/dev/sda2 none swap sw 0 0")), "fstab", "UUID=1-2 on /", false},
		{add("etc/fstab", text("/swapfile none swap sw 0 0\n")), "fstab", "on no disk", false},
		{add("etc/fstab", text("LABEL=home /home ext4 defaults 0 2\n")), "fstab", "LABEL=home on /home", false},
		{add("swapfile", text("large")), "swap", "5 bytes", false},
		{add("etc/network/interfaces", text("auto eth0\niface eth0 inet static\n  address 192.0.2.1\n  mtu 9000\nallow-hotplug eth1\niface eth1 inet dhcp\n")), "interfaces", "eth0, eth1", false},
		{add("etc/network/interfaces.d/card", text("iface ens3 inet6 auto\n")), "interfaces", "ens3", false},
		{add("usr/sbin/NetworkManager", text("")), "networkmanager", "take the card over", false},
		{add("etc/systemd/network/10-wired.network", text("[Match]\nName=en*\n[Network]\nDHCP=yes\n")), "networkd", "systemd-networkd", false},
		{add("etc/netplan/50-cloud-init.yaml", text("network: {}")), "netplan", "netplan", true},
		{add("etc/machine-id", text("0123456789abcdef0123456789abcdef\n")), "machine-id", "0123456789abcdef0123456789abcdef", false},
		{add("etc/machine-id", text("uninitialized\n")), "machine-id", "first boot", false},
		{func(m fstest.MapFS) {
			delete(m, "etc/machine-id")
			m["usr/lib/systemd/systemd"] = text("")
		}, "machine-id", "it is missing", false},
		{add("var/lib/dbus/machine-id", text("0123\n")), "machine-id", "D-Bus", false},
		{add("etc/ssh/ssh_host_ed25519_key", text("secret")), "host-keys", "1 host keys", false},
		{add("etc/hostname", text("builder\n")), "hostname", `"builder"`, false},
		{add("etc/resolv.conf", text("nameserver 192.0.2.53\n")), "resolv.conf", "the machine that built", true},
		{func(m fstest.MapFS) {
			m["etc/resolv.conf"], m["usr/lib/systemd/systemd-resolved"] = text("nameserver 192.0.2.53\n"), text("")
		}, "resolv.conf", "the machine that built", false},
		{add("etc/cron.daily/mlocate", text("")), "jobs", "at once", false},
		{add("etc/systemd/system/timers.target.wants/apt-daily.timer", &fstest.MapFile{Data: []byte("/lib/systemd/system/apt-daily.timer"), Mode: fs.ModeSymlink}), "jobs", "at once", false},
		{add("etc/cron.monthly/debsums", text("")), "jobs", "at once", false},
		{add("etc/cron.weekly/index", text("#!/bin/sh\nnice updatedb --output=/var/lib/db\n")), "jobs", "at once", false},
		{add("etc/cron.daily/files", text("#!/bin/sh\n/usr/bin/updatedb.findutils\n")), "jobs", "at once", false},
		{add("etc/cron.d/files", text("5 4 * * * root updatedb\n")), "jobs", "at once", false},
		{add("etc/crontab", text("17 * * * * root run-parts /etc/cron.hourly\n0 3 * * * root updatedb\n")), "jobs", "at once", false},
		{add("var/spool/cron/crontabs/root", text("0 3 * * * updatedb\n")), "jobs", "at once", false},
		{add("usr/lib/systemd/system/timers.target.wants/man-db.timer", &fstest.MapFile{Data: []byte("../man-db.timer"), Mode: fs.ModeSymlink}), "jobs", "at once", false},
		{func(m fstest.MapFS) {
			m["etc/systemd/system/timers.target.wants/files.timer"] = &fstest.MapFile{Data: []byte("/lib/systemd/system/files.timer"), Mode: fs.ModeSymlink}
			m["usr/lib/systemd/system/files.timer"], m["etc/systemd/system/index.service"] = text("[Timer]\nUnit=index.service\n"), text("[Service]\nExecStart=/usr/bin/updatedb\n")
		}, "jobs", "at once", false},
		{add("etc/systemd/system/data.mount", text("[Mount]\nWhat=UUID=1-2\nWhere=/data\nType=ext4\n")), "units", "UUID=1-2", false},
		{add("usr/lib/systemd/system/scratch.mount", text("[Mount]\nWhat = /dev/sdb1\nWhere = /scratch\n")), "units", "/dev/sdb1", false},
		{add("etc/systemd/system/dev-sda2.swap", text("[Swap]\nWhat=/dev/sda2\n")), "units", "/dev/sda2", false},
		{add("var/log/syslog.2.gz", text("old")), "logs", "1 logs of the machine", false},
		{add("var/log/apt/term.log", text("old")), "logs", "3 bytes", false},
		{add("var/log/apt/eipp.log.xz", text("old")), "logs", "1 logs", false},
		{add("var/log/syslog", text("old")), "logs", "1 logs", false},
		{add("var/log/installer/cdebconf/questions.dat", text("old")), "logs", "1 logs", false},
		{add("var/log/journal/0123/system@1-2[3].journal~", text("old")), "logs", "1 logs", false},
		{add(".dockerenv", text("")), "container", "for a container", false},
		{add("tmp/.X0", text("")), "leftovers", "1 files", false},
		{add("var/lib/systemd/random-seed", text("x")), "random-seed", "same random numbers", false},
		{add("etc/udev/rules.d/70-persistent-net.rules", text("x")), "udev-names", "cards of one machine", false},
		{add("var/lib/dhcp/dhclient.leases", text("x")), "leases", "addresses of one", false},
	} {
		tree := healthy()
		tt.change(tree)
		list := check(t, tree, netroot.NBD)
		require.NotEmpty(t, list, tt.message)
		var all strings.Builder
		for i, f := range list {
			require.Equal(t, tt.name, f.Name, "%+v", f)
			require.NotEmpty(t, f.Remedy)
			require.Equal(t, tt.words, f.Rules == nil, "%+v", f)
			require.True(t, i == 0 || f.Severity <= list[i-1].Severity)
			fmt.Fprintln(&all, f.Message)
		}
		require.Contains(t, all.String(), tt.message)
		rules := netroot.Remedies(list)
		after, err := netroot.Check(t.Context(), rules.Apply(squash.FromFS(tree)), nil)
		require.NoError(t, err)
		if tt.words {
			require.Equal(t, list, after)
		} else {
			require.Empty(t, after, "%+v", after)
		}
	}
}

func TestCheckSharedRoot(t *testing.T) {
	tree := healthy()
	list := check(t, tree, netroot.NFS)
	require.Len(t, list, 5)
	for _, f := range list {
		require.Equal(t, f.Name == "shared-etc", f.Rules == nil, "%+v", f)
	}
	image := &memory{}
	require.NoError(t, squash.Build(t.Context(), image, netroot.Remedies(list).Apply(squash.FromFS(tree)), nil))
	f, err := squash.Open(bytes.NewReader(image.b))
	require.NoError(t, err)
	b, err := f.ReadFile("etc/fstab")
	require.NoError(t, err)
	require.Equal(t, `# nothing
proc /proc proc defaults 0 0
tmpfs /tmp tmpfs nosuid,nodev,mode=1777 0 0
tmpfs /var/tmp tmpfs nosuid,nodev,mode=1777 0 0
tmpfs /var/log tmpfs nosuid,nodev,mode=0755 0 0
tmpfs /media tmpfs nosuid,nodev,mode=0755 0 0
`, string(b))
	after, err := netroot.Check(t.Context(), f, &netroot.Options{Root: netroot.NFS})
	require.NoError(t, err)
	require.Len(t, after, 1)
	require.Equal(t, "shared-etc", after[0].Name, "an empty machine-id is not enough where systemd can write to it")
	require.Contains(t, after[0].Remedy, "read-only")

	tree["etc/machine-id"], tree["etc/ssh/ssh_host_rsa_key"] = &fstest.MapFile{Data: []byte("0123456789abcdef0123456789abcdef\n")}, &fstest.MapFile{}
	for _, f := range check(t, tree, netroot.NFS) {
		require.NotContains(t, f.Remedy, "makes its own")
		if f.Name == "host-keys" {
			require.Contains(t, f.Remedy, "where the others do not see them")
		}
	}

	delete(tree, "boot/initrd.img-6.1.0-9-amd64")
	tree["boot/initrd.img-6.1.0-9-amd64"] = &fstest.MapFile{Data: cpio("lib/modules/6.1/kernel/drivers/net/virtio_net.ko")}
	list = check(t, tree, netroot.NFS)
	require.Equal(t, []string{"initrd-modules", "initrd-program"}, []string{list[0].Name, list[1].Name})
	require.Contains(t, list[0].Message, "nfs")
}

type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, end-int64(len(m.b)))...)
	}
	return copy(m.b[off:], p), nil
}

// Initrds in every compression, with an uncompressed archive before them.
func TestCheckCompressedInitrds(t *testing.T) {
	var zs, x bytes.Buffer
	zw, err := zstd.NewWriter(&zs)
	require.NoError(t, err)
	_, err = zw.Write(good())
	require.NoError(t, err)
	require.NoError(t, zw.Close())
	xw, err := xz.NewWriter(&x)
	require.NoError(t, err)
	_, err = xw.Write(good())
	require.NoError(t, err)
	require.NoError(t, xw.Close())
	for name, b := range map[string][]byte{"none": good(), "gzip": gzipped(good()), "zstd": zs.Bytes(), "xz": x.Bytes()} {
		for _, before := range [][]byte{nil, cpio("early"), append(cpio("early"), make([]byte, 512)...)} {
			tree := healthy()
			tree["boot/initrd.img-6.1.0-9-amd64"] = &fstest.MapFile{Data: slices.Concat(before, b)}
			require.Empty(t, check(t, tree, netroot.NBD), name)
		}
	}
}

// In an archive a further name of a file has no content of its own.
func TestCheckLinkedInitrd(t *testing.T) {
	bad := bytes.ReplaceAll(good(), []byte("squashfs.ko"), []byte("squashfz.ko"))
	for first, want := range map[string]string{"boot/initrd-6.1.0-9-amd64": "initrd-modules", "ostree/objects/1234": "initrd"} {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		write := func(h tar.Header, data []byte) {
			h.Mode, h.Size = 0o644, int64(len(data))
			require.NoError(t, w.WriteHeader(&h))
			_, err := w.Write(data)
			require.NoError(t, err)
		}
		write(tar.Header{Name: first, Typeflag: tar.TypeReg}, bad)
		write(tar.Header{Name: "boot/initrd.img-6.1.0-9-amd64", Typeflag: tar.TypeLink, Linkname: first}, nil)
		tree := healthy()
		delete(tree, "boot/initrd.img-6.1.0-9-amd64")
		write(tar.Header{Name: "usr/lib/modules/6.1.0-9-amd64/", Typeflag: tar.TypeDir}, nil)
		for name, f := range tree {
			switch {
			case f.Mode.IsDir():
				write(tar.Header{Name: name + "/", Typeflag: tar.TypeDir}, nil)
			case f.Mode&fs.ModeSymlink != 0:
				write(tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: string(f.Data)}, nil)
			default:
				write(tar.Header{Name: name, Typeflag: tar.TypeReg}, f.Data)
			}
		}
		require.NoError(t, w.Close())
		list, err := netroot.Check(t.Context(), squash.Tar(&archive), nil)
		require.NoError(t, err)
		require.Len(t, list, 1, "%+v", list)
		require.Equal(t, want, list[0].Name)
		require.Nil(t, list[0].Rules)
	}
}

// What is built into the kernel need not be in the initrd.
func TestCheckBuiltinModules(t *testing.T) {
	tree := healthy()
	tree["boot/initrd.img-6.1.0-9-amd64"].Data = cpio("bin/nbd-client", "usr/lib/modules/6.1/kernel/fs/overlayfs/overlay.ko")
	list := check(t, tree, netroot.NBD)
	require.Len(t, list, 2, "%+v", list)
	require.Contains(t, list[0].Message, "nbd, squashfs")
	tree["usr/lib/modules/6.1.0-9-amd64/modules.builtin"].Data = []byte("kernel/fs/squashfs/squashfs.ko\nkernel/drivers/block/nbd.ko\nkernel/drivers/net/ethernet/intel/e1000e/e1000e.ko\n")
	require.Empty(t, check(t, tree, netroot.NBD))
	tree["usr/lib/modules/6.1.0-10-amd64/modules.builtin"] = tree["usr/lib/modules/6.1.0-9-amd64/modules.builtin"]
	tree["usr/lib/modules/6.1.0-9-amd64/modules.builtin"] = &fstest.MapFile{}
	require.Len(t, check(t, tree, netroot.NBD), 2, "another kernel's")
	tree = healthy()
	tree["lib"].Data = []byte("/usr/lib")
	require.Empty(t, check(t, tree, netroot.NBD), "the target of a link from the root on")
}

// What all machines would do at once, or wait for, by what is in the files; and
// what only looks like it.
func TestCheckUnitsAndJobs(t *testing.T) {
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s), Mode: 0o644} }
	to := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s), Mode: fs.ModeSymlink | 0o777} }
	tree := healthy()
	for name, f := range map[string]*fstest.MapFile{
		"etc/crontab":        text("# updatedb at night\n17 * * * * root run-parts /etc/cron.hourly\n"),
		"etc/cron.daily/own": text("#!/bin/sh\n# like updatedb\n. /etc/updatedb.conf\n"),
		"etc/systemd/system/timers.target.wants/own.timer": to("../own.timer"), "etc/systemd/system/own.timer": text("[Timer]\n"), "etc/systemd/system/own.service": text("[Service]\nExecStart=/bin/true\n"),
		"usr/lib/systemd/system/timers.target.wants/fstrim.timer": to("../fstrim.timer"), "etc/systemd/system/fstrim.timer": to("/dev/null"),
		"usr/lib/systemd/system/index.timer":       text("[Timer]\n"), // nothing starts it
		"usr/lib/systemd/system/index.service":     text("[Service]\nExecStart=updatedb\n"),
		"usr/lib/systemd/system/tmp.mount":         text("[Mount]\nWhat=tmpfs\nWhere=/tmp\nType=tmpfs\n"),
		"usr/lib/systemd/system/srv.mount":         text("[Mount]\nWhat=192.0.2.1:/srv\nWhere=/srv\nType=nfs\n"),
		"etc/systemd/system/dev-nbd1.swap":         text("[Swap]\nWhat=/dev/nbd1\n"),
		"usr/lib/systemd/system/old.mount":         text("[Mount]\nWhat=/dev/sda1\nWhere=/old\n"),
		"etc/systemd/system/old.mount":             to("/dev/null"),
		"var/large":                                {Data: make([]byte, 1<<20)},
		"etc/systemd/system/local-fs.target.wants": {Mode: fs.ModeDir | 0o755},
	} {
		tree[name] = f
	}
	require.Empty(t, check(t, tree, netroot.NBD))

	tree["etc/crontab"] = text("MAILTO=root\n0 3 * * * root updatedb\n17 * * * * root run-parts /etc/cron.hourly\n")
	tree[`etc/systemd/system/data-a\x2db.mount`] = text("[Mount]\nWhat=/dev/disk/by-label/data\nWhere=/data/a-b\n")
	tree[`etc/systemd/system/local-fs.target.requires/data-a\x2db.mount`] = to(`../data-a\x2db.mount`)
	tree["etc/fstab"] = text("/var/swap\\040of/one none swap sw 0 0\n")
	tree["etc/systemd/system/opt-swap.swap"] = text("[Swap]\nWhat=/opt/swap\n")
	tree["var/swap of/one"], tree["opt/swap"] = tree["var/large"], tree["var/large"]
	list := check(t, tree, netroot.NBD)
	var got []string
	for _, f := range list {
		got = append(got, f.Name+" "+f.Path)
	}
	slices.Sort(got)
	require.Equal(t, []string{"fstab etc/fstab", "jobs etc/crontab", "swap opt/swap", "swap var/swap of/one", `units etc/systemd/system/data-a\x2db.mount`, "units etc/systemd/system/opt-swap.swap"}, got)

	image := &memory{}
	require.NoError(t, squash.Build(t.Context(), image, netroot.Remedies(list).Apply(squash.FromFS(tree)), nil))
	f, err := squash.Open(bytes.NewReader(image.b))
	require.NoError(t, err)
	after, err := netroot.Check(t.Context(), f, nil)
	require.NoError(t, err)
	require.Empty(t, after)
	b, err := f.ReadFile("etc/crontab")
	require.NoError(t, err)
	require.Equal(t, "MAILTO=root\n# by all at once: 0 3 * * * root updatedb\n17 * * * * root run-parts /etc/cron.hourly\n", string(b))
	target, err := f.ReadLink(`etc/systemd/system/data-a\x2db.mount`)
	require.NoError(t, err)
	require.Equal(t, "/dev/null", target)
	for _, name := range []string{`etc/systemd/system/local-fs.target.requires/data-a\x2db.mount`, "opt/swap", "var/swap of/one"} {
		_, err = f.Lstat(name)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
	_, err = f.Stat("var/large")
	require.NoError(t, err)
}

// The name servers of the machine that built the tree go, and those that the
// initramfs was given come, if any.
func TestRemedyResolvConf(t *testing.T) {
	tree := healthy()
	tree["etc/resolv.conf"], tree["usr/lib/systemd/systemd"] = &fstest.MapFile{Data: []byte("nameserver 192.0.2.53\n"), Mode: 0o644}, &fstest.MapFile{}
	list := check(t, tree, netroot.NBD)
	require.Len(t, list, 1)
	require.Nil(t, list[0].Rules, "nobody would fill it after another initramfs")
	tree["boot/initrd.img-6.1.0-9-amd64"].Data = append(cpio("scripts/functions"), gzipped(good())...)
	for _, root := range []netroot.Root{netroot.NBD, netroot.NFS} {
		for _, f := range check(t, tree, root) {
			require.Equal(t, f.Name == "shared-etc", f.Rules == nil, "%+v", f)
		}
	}
	image := &memory{}
	require.NoError(t, squash.Build(t.Context(), image, netroot.Remedies(check(t, tree, netroot.NBD)).Apply(squash.FromFS(tree)), nil))
	f, err := squash.Open(bytes.NewReader(image.b))
	require.NoError(t, err)
	after, err := netroot.Check(t.Context(), f, nil)
	require.NoError(t, err)
	require.Empty(t, after)
	target, err := f.ReadLink("etc/resolv.conf")
	require.NoError(t, err)
	require.Equal(t, "../run/resolv.conf", target)
	built, err := f.ReadFile("etc/resolv.conf.built")
	require.NoError(t, err)
	require.Equal(t, "nameserver 192.0.2.53\n", string(built))
	unit, err := f.ReadFile("etc/systemd/system/sysinit.target.wants/diskless-resolv.service") // through the link
	require.NoError(t, err)

	_, command, ok := strings.Cut(string(unit), "ExecStart=/bin/sh -c '")
	require.True(t, ok)
	command = strings.TrimSuffix(command, "'\n")
	require.NotContains(t, command, "'")
	require.NotContains(t, command, "%")
	if runtime.GOOS == "windows" {
		t.Skip("no /bin/sh")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "resolv.conf.built"), built, 0o644))
	command = strings.NewReplacer("$$", "$", "/run/", dir+"/", "/etc/", dir+"/").Replace(command)
	for _, tt := range []struct {
		env  []string
		want string
	}{
		{[]string{"IPV4DNS0=10.0.0.1", "IPV4DNS1=0.0.0.0", "DNSDOMAIN=lab.example"}, "nameserver 10.0.0.1\nsearch lab.example\n"},
		{[]string{"IPV4DNS0=10.0.0.1", "IPV4DNS1=10.0.0.2", "DNSDOMAIN="}, "nameserver 10.0.0.1\nnameserver 10.0.0.2\n"},
		{[]string{"IPV4DNS0=0.0.0.0", "IPV4DNS1=0.0.0.0", "DNSDOMAIN=lab"}, "nameserver 192.0.2.53\n"},
		{[]string{}, "nameserver 192.0.2.53\n"},
	} {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, tt.env...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		b, err := os.ReadFile(filepath.Join(dir, "resolv.conf"))
		require.NoError(t, err)
		require.Equal(t, tt.want, string(b))
	}
}

// The links that rules make lead where systemd looks.
func TestRemedyLinks(t *testing.T) {
	tree := healthy()
	tree["etc/resolv.conf"], tree["usr/lib/systemd/systemd-resolved"] = &fstest.MapFile{Data: []byte("nameserver 192.0.2.53\n")}, &fstest.MapFile{}
	tree["var/lib/dbus/machine-id"] = &fstest.MapFile{Data: []byte("0123\n")}
	tree["etc/systemd/system/timers.target.wants/apt-daily.timer"] = &fstest.MapFile{Data: []byte("/lib/systemd/system/apt-daily.timer"), Mode: fs.ModeSymlink}
	links := make(map[string]string)
	for e, err := range netroot.Remedies(check(t, tree, netroot.NBD)).Apply(squash.FromFS(tree)).Entries(t.Context()) {
		require.NoError(t, err)
		if e.Mode&fs.ModeSymlink != 0 && strings.Count(e.Path, "/") > 0 {
			links[e.Path] = e.Target
		}
	}
	require.Equal(t, map[string]string{
		"etc/resolv.conf":                    "../run/systemd/resolve/stub-resolv.conf",
		"var/lib/dbus/machine-id":            "/etc/machine-id",
		"etc/systemd/system/apt-daily.timer": "/dev/null",
	}, links)
}

func TestExcludes(t *testing.T) {
	rules := &squash.Rules{Exclude: netroot.Excludes()}
	src := fstest.MapFS{}
	for _, name := range []string{"home/ann/x", "home/.cache", "etc/ssh/ssh_host_rsa_key", "var/log/syslog.1", "tmp/.X11-unix/X0", "root/.ssh/id"} {
		src[name] = &fstest.MapFile{}
	}
	kept := []string{".", "etc", "etc/passwd", "etc/ssh", "home", "root", "tmp", "var", "var/log", "var/log/syslog"}
	src["etc/passwd"], src["var/log/syslog"] = &fstest.MapFile{}, &fstest.MapFile{}
	var got []string
	for e, err := range rules.Apply(squash.FromFS(src)).Entries(t.Context()) {
		require.NoError(t, err)
		got = append(got, e.Path)
	}
	slices.Sort(got)
	require.Equal(t, kept, got)
}

func TestKernels(t *testing.T) {
	tree := fstest.MapFS{}
	for _, v := range []string{"6.1.0-9-amd64", "6.1.0-18-amd64", "6.1.0-18-cloud-amd64", "6.10.3", "6.9", "6.10-rc2", "6.10", "5.10.0-20-amd64"} {
		tree["boot/vmlinuz-"+v] = &fstest.MapFile{Data: []byte("kernel " + v)}
		tree["boot/initrd.img-"+v] = &fstest.MapFile{Data: []byte("initrd " + v)}
	}
	delete(tree, "boot/initrd.img-6.9")
	tree["boot/initramfs-6.9.img"] = &fstest.MapFile{Data: []byte("initrd 6.9")}
	delete(tree, "boot/initrd.img-6.10")
	tree["boot/vmlinuz"] = &fstest.MapFile{Data: []byte("vmlinuz-6.10"), Mode: fs.ModeSymlink}
	tree["boot/vmlinuz-6.9.old"], tree["boot/config-6.9"] = &fstest.MapFile{}, &fstest.MapFile{}
	kernels, err := netroot.Kernels(t.Context(), tree)
	require.NoError(t, err)
	var got []string
	for _, k := range kernels {
		got = append(got, k.Version+" "+k.Initrd)
		require.Equal(t, sha256.Sum256(tree[k.Path].Data), k.Digest)
		require.EqualValues(t, len(tree[k.Path].Data), k.Size)
		if k.Initrd != "" {
			require.Equal(t, sha256.Sum256(tree[k.Initrd].Data), k.InitrdDigest)
		}
	}
	require.Equal(t, []string{
		"6.10.3 boot/initrd.img-6.10.3", "6.10 ", "6.10-rc2 boot/initrd.img-6.10-rc2", "6.9 boot/initramfs-6.9.img",
		"6.1.0-18-cloud-amd64 boot/initrd.img-6.1.0-18-cloud-amd64", "6.1.0-18-amd64 boot/initrd.img-6.1.0-18-amd64", "6.1.0-9-amd64 boot/initrd.img-6.1.0-9-amd64", "5.10.0-20-amd64 boot/initrd.img-5.10.0-20-amd64",
	}, got)

	dir := t.TempDir()
	require.NoError(t, netroot.CopyKernel(t.Context(), tree, kernels[0], dir))
	b, err := os.ReadFile(filepath.Join(dir, "initrd.img-6.10.3"))
	require.NoError(t, err)
	require.Equal(t, "initrd 6.10.3", string(b))
	tree["boot/vmlinuz-6.9"].Data = []byte("another")
	require.ErrorContains(t, netroot.CopyKernel(t.Context(), tree, kernels[3], dir), "list the kernels again")
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, list, 3, "two files, and the initrd that came before: nothing half done")

	_, err = netroot.Kernels(t.Context(), fstest.MapFS{"boot/config": {}})
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = netroot.Kernels(t.Context(), fstest.MapFS{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	one, err := netroot.Kernels(t.Context(), fstest.MapFS{"boot/vmlinuz": {}, "boot/initrd.img": {}})
	require.NoError(t, err)
	require.Equal(t, "boot/initrd.img", one[0].Initrd)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	_, err = netroot.Kernels(ctx, tree)
	require.ErrorIs(t, err, io.ErrClosedPipe)
}

// An initrd is whatever an image says it is.
func FuzzCheckInitrd(f *testing.F) {
	f.Add(good())
	f.Add(gzipped(good()))
	f.Add(append(cpio("early"), gzipped(good())...))
	f.Add([]byte("\xfd7zXZ\x00"))
	f.Add([]byte("\x02\x21\x4c\x18\x08\x00\x00\x00abcdefgh"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := netroot.Check(t.Context(), squash.FromFS(fstest.MapFS{"boot/vmlinuz-1": {}, "boot/initrd.img-1": {Data: b}}), nil); err != nil {
			t.Fatal(err)
		}
	})
}

func ExampleCheck() {
	src := squash.FromFS(fstest.MapFS{
		"usr/lib/systemd/systemd": {}, "dev": {Mode: fs.ModeDir}, "proc": {Mode: fs.ModeDir}, "run": {Mode: fs.ModeDir}, "sys": {Mode: fs.ModeDir}, "tmp": {Mode: fs.ModeDir},
		"etc/machine-id": {Data: []byte("0123456789abcdef0123456789abcdef\n")},
	})
	findings, err := netroot.Check(context.Background(), src, &netroot.Options{Root: netroot.NBD})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range findings {
		fmt.Printf("%v: %s\n\t%s\n", f.Severity, f.Message, f.Remedy)
	}
	findings, err = netroot.Check(context.Background(), netroot.Remedies(findings).Apply(src), nil)
	fmt.Println(len(findings), err)
	// Output:
	// missing: there is no kernel in /boot
	// 	install a kernel in the tree (Debian: linux-image-amd64), or boot one from elsewhere that has its modules in the tree
	// harmful: all machines would have the machine-id 0123456789abcdef0123456789abcdef: the same DHCP client-id, the same journal
	// 	make it an empty file: over that systemd keeps the machine's own in memory
	// 1 <nil>
}

func ExampleKernels() {
	image := fstest.MapFS{ // of squash.Open, or os.DirFS
		"boot/vmlinuz-6.1.0-9-amd64": {Data: []byte("k9")}, "boot/initrd.img-6.1.0-9-amd64": {Data: []byte("i9")},
		"boot/vmlinuz-6.1.0-18-amd64": {Data: []byte("k18")}, "boot/initrd.img-6.1.0-18-amd64": {Data: []byte("i18")},
	}
	kernels, err := netroot.Kernels(context.Background(), image)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, k := range kernels {
		fmt.Printf("%s %s %d %.4x\n", k.Version, k.Initrd, k.Size, k.Digest)
	}
	// Output:
	// 6.1.0-18-amd64 boot/initrd.img-6.1.0-18-amd64 3 362eb7f8
	// 6.1.0-9-amd64 boot/initrd.img-6.1.0-9-amd64 2 c3c81c2b
}
