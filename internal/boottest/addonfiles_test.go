package boottest

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// Settings that need none of the root's programs before init are made by the
// initramfs's own shell, and nothing is mounted for them. The machine is all
// that it would be otherwise.
func TestAddonFiles(t *testing.T) {
	m, line := machine("node07", "entry: tools")
	s := newDebianSite(t, "lts.conf", `[Default]
HOSTS_01_API="10.9.8.7 api.cluster"
DNS_SERVER="10.9.8.1"
TIMEZONE="Europe/Berlin"
LANG="C.UTF-8"
CRONTAB_01="@reboot root echo cron >/run/cron"
MASK_SYSTEM_SERVICES="dpkg-db-backup.timer"
RCFILE_01_LOGIN="passwd -d root"
`, "  - {name: tools, kernel: debian/vmlinuz, initrd: [debian/initrd], image: debian, args: [quiet, PATIENT, KERNELARGS]}\n", line)
	vmtest.Slots(t, 1)
	r := s.start(m)
	var stages []string
	require.Eventually(t, func() bool {
		stages = append(stages, s.stages("node07")...)
		return slices.ContainsFunc(stages, func(stage string) bool { return strings.HasPrefix(stage, "booted") })
	}, 2*vm.BootTimeout, 100*time.Millisecond)
	requireStages(t, stages, `nbd debian~.*`, `booted up .*s after its kernel, root ready in [\d.]+s`)

	sh := login(t, r)
	require.Equal(t, "running\n", vmtest.Do(t, sh, "systemctl is-system-running --wait"))
	require.Equal(t, "/run/diskless/machine\n", vmtest.Do(t, sh, "ls -d /run/diskless/machine* /run/diskless/mounts* 2>/dev/null || :"), "nothing was mounted to make the settings")
	for command, want := range map[string]string{
		"hostname":                 "node07\n",
		"getent hosts api.cluster": "10.9.8.7        api.cluster\n",
		"cat /etc/resolv.conf":     "nameserver 10.9.8.1\n",
		"date +%Z | tr -d S":       "CET\n",
		"cat /etc/default/locale":  "LANG=\"C.UTF-8\"\n",
		"until [ -s /run/cron ]; do sleep 1; done; cat /run/cron": "cron\n",
		"cd /etc/ssh; ls ssh_host_*":                              "ssh_host_ed25519_key\n",
		"stat -c '%a %U' /etc/ssh/ssh_host_ed25519_key":           "600 root\n",
		"systemctl is-enabled dpkg-db-backup.timer || :":          "masked-runtime\n",
		"findmnt -no FSTYPE /":                                    "overlay\n",
		"findmnt -rno TARGET -R / | sort | uniq -d":               "",
	} {
		require.Equal(t, want, vmtest.Do(t, sh, command), command)
	}
	id, err := os.ReadFile(s.path("state/identities/node07.json"))
	require.NoError(t, err)
	require.Contains(t, string(id), strings.TrimSpace(vmtest.Do(t, sh, "cat /etc/machine-id")))
	require.NoError(t, sh.Tell("systemctl poweroff"))
	ends(t, r)
}
