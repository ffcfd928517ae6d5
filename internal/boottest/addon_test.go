package boottest

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// patient has systemd wait for devices that come late on a busy host.
const patient = "systemd.default_timeout_start_sec=900"

// node is an lts.conf as a cluster has it, with a mistake or two.
const node = `[Default]
LATER="expanded on $(uname -s)"
KEEP_SYSTEM_SERVICES="dpkg-db-backup.timer"
PREINIT_01_LOGIN="passwd -d root"
PREINIT_02_ORDER="echo preinit $LATER $HOSTNAME >>/run/order"
INIT_COMMAND_01="echo init-command >>/run/order"
ODD="it's 100% \"odd\", \$HOME; \\ Grüße"
PREINIT_03_ODD="printf %s \"\$ODD\" >/run/odd"
HOSTS_01_API="10.9.8.7 api.cluster"
FSTAB_01_SCRATCH="tmpfs /srv/scratch tmpfs size=1M,mode=0700 0 0"
CRONTAB_01="@reboot root echo cron >/run/cron"
MODULE_01="dummy numdummies=2"
DNS_SERVER="10.9.8.1"
SEARCH_DOMAIN="cluster.example"
TIMEZONE="Europe/Berlin"
LANG="C.UTF-8"
CONSOLE_KEYMAP="de"
RCFILE_01_MODULES="modprobe -a br_netfilter overlay"
RCFILE_02_FORWARD="sysctl -w net.ipv4.ip_forward=1"

[node01]
RCFILE_10_JOIN="echo joined with token-of-node01 >>/run/joined"

[node02]
PREINIT_90_BROKEN="echo nothing here; exit 3"
FSTAB_90_BROKEN="none /srv/none nosuchfs defaults 0 0"
RCFILE_90_BROKEN="kubeadm join"

`

// A stock Debian with nothing of ours installed boots to a login as a node of
// a cluster: from an image with an overlay in memory, through iPXE and
// initramfs-tools, and through GRUB and dracut. What its file of settings says
// has happened; a mistake in it is told by name and stops nothing; a reboot
// comes back clean, on a newer image; and it switches itself off.
func TestAddonNode(t *testing.T) {
	a, lineA := machine("node01", "entry: tools")
	b, lineB := machine("node02", "entry: dracut") // and a look around on the way
	s := newDebianSite(t, "lts.conf", node, `  - {name: tools, kernel: debian/vmlinuz, initrd: [debian/initrd], image: debian, args: [quiet, PATIENT, KERNELARGS]}
  - {name: dracut, kernel: dracut/vmlinuz, initrd: [dracut/initrd], image: debian, initramfs: dracut, args: [quiet, diskless.break, PATIENT, KERNELARGS]}
`, lineA+lineB+"addon: {overlay-label: changes}\n")
	vmtest.Slots(t, 2)
	one, two := s.start(a), s.start(b)

	looksAround(t, two)
	sh := login(t, one)
	id := s.requireNode(sh, "node01", "overlay")
	require.Equal(t, "tmpfs\n", vmtest.Do(t, sh, "findmnt -no FSTYPE /run/diskless/rw"), "it has no such disk")
	require.Equal(t, "joined with token-of-node01\n", vmtest.Do(t, sh, "cat /run/joined"))
	require.Equal(t, "running\n", vmtest.Do(t, sh, "systemctl is-system-running --wait"))
	requireStages(t, s.stages("node01"), `dhcp .*`, `http debian/vmlinuz`, `http debian/initrd`, `http diskless/modules-.*`, `http diskless/machine-node01-.*`, `nbd debian~.*`, `booted up .*s after its kernel, root ready in [\d.]+s`)
	t.Log("seconds since the kernel's start, before and behind the add-on:", vmtest.Do(t, sh, "cat /run/diskless/times"))
	first := vmtest.Do(t, sh, "cat /proc/cmdline")

	// The other one, with what is broken.
	other := login(t, two)
	otherID := s.requireNode(other, "node02", "overlay")
	require.NotEqual(t, id, otherID)
	_, err := other.Do(t.Context(), "cat /run/joined")
	require.ErrorIs(t, err, guest.ErrCommand, "the token is another machine's")
	out, err := other.Do(t.Context(), "systemctl is-system-running --wait")
	require.ErrorIs(t, err, guest.ErrCommand)
	require.Equal(t, "degraded\n", out)
	require.Equal(t, []string{"srv-none.mount"}, strings.Fields(vmtest.Do(t, other, "systemctl list-units --failed --plain --no-legend | cut -d' ' -f1")))
	shown := 0 // on the console, which may lose characters
	for _, told := range []string{"PREINIT_90_BROKEN failed with status 3: nothing here", "FSTAB_90_BROKEN cannot be mounted: ", "RCFILE_90_BROKEN failed with status 127: "} {
		if strings.Contains(two.Transcript(), "diskless: "+told) {
			shown++
		}
		require.Contains(t, vmtest.Do(t, other, "journalctl -b -t diskless -o cat --no-pager"), told)
	}
	require.NotZero(t, shown, "of the messages")
	requireStages(t, s.stages("node02"), `booted up .*, 3 settings failed`)

	// A newer image; what was written is gone.
	for _, sh := range []*guest.Shell{sh, other} {
		vmtest.Do(t, sh, "echo gone >/written")
	}
	newer(t, s.path("debian.squashfs"))
	reboots(t, sh, other)
	looksAround(t, two)
	sh, other = login(t, one), login(t, two)
	require.Equal(t, id, s.requireNode(sh, "node01", "overlay"), "it is the same machine")
	require.Equal(t, otherID, s.requireNode(other, "node02", "overlay"))
	require.NotEqual(t, first, vmtest.Do(t, sh, "cat /proc/cmdline"), "another generation of the image")
	require.Equal(t, "joined with token-of-node01\n", vmtest.Do(t, sh, "cat /run/joined"))
	for _, sh := range []*guest.Shell{sh, other} {
		_, err = sh.Do(t.Context(), "cat /written")
		require.ErrorIs(t, err, guest.ErrCommand)
		require.NoError(t, sh.Tell("systemctl poweroff"))
	}
	ends(t, one)
	ends(t, two)
}

// The same settings in an ltsp.conf make the same machine of a root that is the
// machine's own, through PXELINUX, and of an image that was copied to memory,
// through UEFI and GRUB: it runs without the server, and its changes go to its
// disk. A reboot finds what was written, and nothing is added a second time.
func TestAddonRoots(t *testing.T) {
	a, lineA := machine("node03", "entry: own, loader: pxelinux")
	b, lineB := machine("node04", "entry: memory, loader: grub")
	b.Firmware, b.Memory = vm.UEFI, 1024
	b.Args = []string{"-drive", "if=virtio,format=raw,file=" + labelled(t, "changes")}
	s := newDebianSite(t, "ltsp.conf", strings.Replace(node, "[Default]", "[clients]", 1)+"[node04]\nIMAGE_TO_RAM=1\n", `  - {name: own, kernel: debian/vmlinuz, initrd: [debian/initrd], image: debian-disk, root: kept, args: [quiet, PATIENT, KERNELARGS]}
  - {name: memory, kernel: debian/vmlinuz, initrd: [debian/initrd], image: debian, args: [quiet, PATIENT, KERNELARGS]}
`, lineA+lineB+"addon: {overlay-label: changes, overlay-kept: true}\n")
	vmtest.Slots(t, 2)
	one, two := s.start(a), s.start(b)

	sh := login(t, one)
	id := s.requireNode(sh, "node03", "ext4")
	require.Equal(t, "running\n", vmtest.Do(t, sh, "systemctl is-system-running --wait"))
	vmtest.Do(t, sh, "echo kept >/written")
	hosts := vmtest.Do(t, sh, "cat /etc/hosts /etc/fstab")
	reboots(t, sh)

	other := login(t, two)
	otherID := s.requireNode(other, "node04", "overlay")
	require.NotEqual(t, id, otherID)
	require.Equal(t, "/dev/disk/by-label/changes ext4\n", vmtest.Do(t, other, "findmnt -rno SOURCE,FSTYPE /run/diskless/rw"))
	require.Regexp(t, `^/dev/loop\d+\n$`, vmtest.Do(t, other, "findmnt -no SOURCE /run/diskless/ro"))
	require.Equal(t, "0\n", vmtest.Do(t, other, "cat /sys/block/nbd0/size"), "the connection is closed")
	require.Zero(t, established(t, vmtest.Do(t, other, `ip -4 -o addr show scope global | (read -r _ _ _ address _; printf %s "$address")`)))
	vmtest.Do(t, other, "echo kept >/written")
	otherHosts := vmtest.Do(t, other, "cat /etc/hosts /etc/fstab")
	reboots(t, other)

	for _, again := range []struct {
		*vm.Running
		root, id, hosts string
	}{{one, "ext4", id, hosts}, {two, "overlay", otherID, otherHosts}} {
		sh := login(t, again.Running)
		require.Equal(t, again.id, s.requireNode(sh, again.Machine().Name, again.root))
		require.Equal(t, "kept\n", vmtest.Do(t, sh, "cat /written"))
		require.Equal(t, again.hosts, vmtest.Do(t, sh, "cat /etc/hosts /etc/fstab"))
		_ = sh.Tell("systemctl poweroff")
		ends(t, again.Running)
	}
}

// labelled makes a disk with an empty file system of that name.
func labelled(t *testing.T, label string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Truncate(file, 256<<20))
	out, err := exec.Command("sh", "-c", `PATH=$PATH:/usr/sbin:/sbin; exec mke2fs -q -F -t ext4 -L "$1" "$2"`, "sh", label, file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return file
}

// newDebianSite is makeDebianSite and serveDebian.
func newDebianSite(t *testing.T, file, settings, entries, machines string) *site {
	s := makeDebianSite(t)
	s.serveDebian(file, settings, entries, machines)
	return s
}

// makeDebianSite makes a network, and a minimal Debian to boot.
func makeDebianSite(t *testing.T) *site {
	debian, dracut := vmtest.Debian(t), vmtest.Stock(t, guest.Dracut)
	s := makeSite(t)
	for _, dir := range []string{"boot/debian", "boot/dracut"} {
		require.NoError(t, os.Mkdir(s.path(dir), 0o755))
	}
	s.copy(debian.Image, "boot/debian/vmlinuz")
	s.copy(debian.Initrd, "boot/debian/initrd")
	s.copy(dracut.Image, "boot/dracut/vmlinuz")
	s.copy(dracut.Initrd, "boot/dracut/initrd")
	require.NoError(t, os.Symlink(debian.SquashFS, s.path("debian.squashfs")))
	require.NoError(t, os.Symlink(debian.Ext4, s.path("debian.ext4")))
	return s
}

// serveDebian serves it, as the images debian and debian-disk, with a file of
// settings.
func (s *site) serveDebian(file, settings, entries, machines string) {
	require.NoError(s.t, os.WriteFile(s.path(file), []byte(settings), 0o644))
	s.serve(file + ": " + file + strings.Replace(common, "entries:\n", "  - {name: debian, file: debian.squashfs}\n  - {name: debian-disk, file: debian.ext4}\nentries:\n"+strings.ReplaceAll(entries, "PATIENT", patient), 1) + "machines:\n" + machines)
}

// newer replaces an image by one of the same files and other bytes.
func newer(t *testing.T, file string) {
	t.Helper()
	in, err := os.Open(file)
	require.NoError(t, err)
	defer in.Close()
	out, err := os.Create(file + ".new")
	require.NoError(t, err)
	_, err = io.Copy(out, in)
	require.NoError(t, err)
	_, err = out.Write(make([]byte, 4096)) // behind the file system
	require.NoError(t, err)
	require.NoError(t, out.Close())
	require.NoError(t, os.Rename(file+".new", file))
}

// login waits for the system's login prompt and logs in as root.
func login(t *testing.T, r *vm.Running) *guest.Shell {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*vm.BootTimeout)
	defer cancel()
	// Something else may stand before these, whose end of line was lost.
	_, err := r.Expect(ctx, `Debian GNU/Linux \d+ `+r.Machine().Name+` ttyS0`)
	require.NoError(t, err)
	require.NoError(t, r.Send("root"))
	_, err = r.Expect(ctx, `permitted by applicable law`)
	require.NoError(t, err)
	require.NoError(t, r.Send("stty -echo; dmesg -n 1; "+guest.Listen))
	return &guest.Shell{Console: r}
}

// reboots has machines reboot. The shell may not live to tell that it has begun.
func reboots(t *testing.T, machines ...*guest.Shell) {
	t.Helper()
	for _, sh := range machines {
		require.NoError(t, sh.Tell("systemctl reboot"))
	}
}

// ends waits until a machine has switched itself off.
func ends(t *testing.T, r *vm.Running) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), vm.BootTimeout)
	defer cancel()
	select {
	case <-r.Done():
		require.NoError(t, r.Wait())
	case <-ctx.Done():
		t.Fatal("it hangs instead of switching itself off")
	}
	require.NotContains(t, r.Transcript(), "I/O error")
}

// requireNode asserts what the settings that all nodes have in common make of a
// machine, and returns its machine-id.
func (s *site) requireNode(sh *guest.Shell, name, root string) (id string) {
	t := s.t
	t.Helper()
	for command, want := range map[string]string{
		"hostname":                 `node0\d\n`,
		"cat /run/order":           `init-command\npreinit expanded on Linux ` + name + `\n`,
		"cat /run/odd":             regexp.QuoteMeta(`it's 100% "odd", $HOME; \ Grüße`),
		"getent hosts api.cluster": `10\.9\.8\.7 +api\.cluster\n`,
		"findmnt -no FSTYPE,OPTIONS /srv/scratch": `tmpfs +.*size=1024k.*\n`,
		// It starts when it does.
		"until [ -s /run/cron ]; do sleep 1; done; cat /run/cron": "cron\n",
		"ls /sys/class/net":                               `(.*\n)*dummy1\n(.*\n)*`,
		"cat /etc/resolv.conf":                            "(# diskless\n)?nameserver 10.9.8.1\nsearch cluster.example\n",
		"date +%Z":                                        `CES?T\n`,
		"cat /etc/default/locale":                         "LANG=\"C.UTF-8\"\n",
		"cat /etc/vconsole.conf":                          "KEYMAP=\"de\"\n",
		"cat /proc/sys/net/ipv4/ip_forward":               "1\n",
		"ls -d /sys/module/br_netfilter":                  ".*\n",
		"findmnt -no FSTYPE /":                            root + "\n",
		"systemctl is-enabled nbd-client.service || true": "masked-runtime\n",
		"systemctl is-enabled dpkg-db-backup.timer":       "enabled\n",
		"systemctl show -P Result diskless.service":       "success\n",
	} {
		require.Regexp(t, "^"+want+"$", vmtest.Do(t, sh, command), command)
	}
	if root == "overlay" {
		require.Equal(t, "masked-runtime\n", vmtest.Do(t, sh, "systemctl is-enabled apt-daily.timer || true"))
		require.Equal(t, "squashfs\n", vmtest.Do(t, sh, "findmnt -no FSTYPE /run/diskless/ro"))
	}
	id = vmtest.Do(t, sh, "cat /etc/machine-id")
	require.Regexp(t, `^[0-9a-f]{32}\n$`, id)
	return id
}
