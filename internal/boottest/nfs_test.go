package boottest

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// Two machines run on one tree over NFS, a minimal Debian as it was made: what
// is one machine's own is in its memory, the rest both have, and what the tree
// says of itself stays. Both stop on the way for a look around, one comes back
// clean from a reboot, and both switch themselves off.
func TestAddonNFS(t *testing.T) {
	debian := vmtest.Debian(t)
	a, lineA := machine("node05", "entry: nfs")
	b, lineB := machine("node06", "entry: nfs")
	s := makeDebianSite(t)
	tree := vmtest.NFS(t, s.lab.Addr(), func(dir string) error { return debian.Unpack(t.Context(), dir) })
	before := treeFiles(t, tree)
	s.serveDebian("lts.conf", node, `  - {name: nfs, kernel: debian/vmlinuz, initrd: [debian/initrd], args: [root=/dev/nfs, "nfsroot=ADDR:`+tree+`", ip=dhcp, rw, quiet, diskless.break, PATIENT, KERNELARGS]}
`, lineA+lineB)
	vmtest.Slots(t, 2)
	one, two := s.start(a), s.start(b)

	looksAround(t, one)
	looksAround(t, two)
	sh, other := login(t, one), login(t, two)
	id := s.requireNode(sh, "node05", "nfs")
	require.NotEqual(t, id, s.requireNode(other, "node06", "nfs"))
	for _, sh := range []*guest.Shell{sh, other} {
		for _, dir := range []string{"tmp", "var/tmp", "var/run", "var/lock", "var/log", "media", "var/lib/systemd"} {
			require.Equal(t, "tmpfs\n", vmtest.Do(t, sh, "stat -L -f -c %T /"+dir), dir)
		}
		require.Regexp(t, `^/dev/nfs|`+regexp.QuoteMeta(s.lab.Addr().String()+":"+tree), vmtest.Do(t, sh, "findmnt -no SOURCE /"))
		require.Equal(t, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n", vmtest.Do(t, sh, "cat /proc/swaps"))
		require.Contains(t, vmtest.Do(t, sh, "ip -4 -o addr show scope global"), "valid_lft forever")
		require.Contains(t, vmtest.Do(t, sh, "cat /run/systemd/network/00-diskless-*.network"), "Unmanaged=yes")
		require.Equal(t, "running\n", vmtest.Do(t, sh, "systemctl is-system-running --wait"))
	}
	vmtest.Do(t, sh, "echo mine | tee /tmp/file /etc/file /var/log/file; echo ours >/srv/file; sync")
	for _, name := range []string{"/tmp/file", "/etc/file", "/var/log/file"} {
		_, err := other.Do(t.Context(), "cat "+name)
		require.ErrorIs(t, err, guest.ErrCommand, name)
	}
	require.Equal(t, "ours\n", vmtest.Do(t, other, "cat /srv/file"))

	reboots(t, sh)
	looksAround(t, one)
	sh = login(t, one)
	require.Equal(t, id, s.requireNode(sh, "node05", "nfs"))
	require.Equal(t, "ours\n", vmtest.Do(t, sh, "cat /tmp/file /etc/file /var/log/file /srv/file 2>/dev/null || :"))
	for _, sh := range []*guest.Shell{sh, other} {
		require.NoError(t, sh.Tell("systemctl poweroff"))
	}
	ends(t, one)
	ends(t, two)
	require.Equal(t, before, treeFiles(t, tree))
}

// treeFiles is what settings make of a root, and must not of a shared one.
func treeFiles(t *testing.T, tree string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range []string{"etc/machine-id", "etc/hostname", "etc/hosts", "etc/fstab", "etc/resolv.conf", "etc/default/locale", "etc/shadow", "etc/cron.d/diskless"} {
		data, err := os.ReadFile(filepath.Join(tree, name))
		if err != nil {
			require.ErrorIs(t, err, os.ErrNotExist)
			continue
		}
		files[name] = string(data)
	}
	return files
}

// looksAround types a command into the shell before the switch to the new root,
// and lets the boot go on.
func looksAround(t *testing.T, r *vm.Running) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), vm.BootTimeout)
	defer cancel()
	line, err := r.Expect(ctx, `The new root is /.*\. Leave this shell to go on\.`)
	require.NoError(t, err)
	root := regexp.MustCompile(`root is (/\w+)`).FindStringSubmatch(line)[1]
	require.NoError(t, r.Send("read -r name <"+root+"/etc/hostname; echo \"look: $name $((6*7))\""))
	_, err = r.Expect(ctx, `^(.*[#$] )?look: `+r.Machine().Name+" 42$")
	require.NoError(t, err)
	require.NoError(t, r.Send("exit"))
}
