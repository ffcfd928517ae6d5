package boottest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// A machine that loads one initramfs only, as U-Boot does (here PXELINUX reads
// what is for it), becomes a node like any other. It swaps over NBD, its SSH
// server shows the key that the server keeps for it and lets the administrator
// in, and it switches itself off.
func TestAddonMachine(t *testing.T) {
	m, line := machine("node05", "entry: tools, loader: u-boot")
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	admin, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	key, err := ssh.NewPublicKey(public)
	require.NoError(t, err)

	s := makeDebianSite(t)
	require.NoError(t, os.WriteFile(s.path("lts.conf"), []byte("[Default]\nPREINIT_01=\"passwd -d root; SHARED=yes\"\nPREINIT_02=\"echo \\$SHARED >/run/shared\"\n"), 0o644))
	s.serve("lts.conf: lts.conf\naddon: {authorized-keys: [" + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + "]}\n" +
		strings.NewReplacer("nbd: {}", "nbd: {swap: 256MiB}", "entries:\n", "  - {name: debian, file: debian.squashfs}\nentries:\n"+
			"  - {name: tools, kernel: debian/vmlinuz, initrd: [debian/initrd], image: debian, args: [quiet, "+patient+", KERNELARGS]}\n").Replace(common) +
		"machines:\n" + line)
	vmtest.Slots(t, 1)
	machine := s.start(m)

	sh := login(t, machine)
	require.Equal(t, "running\n", vmtest.Do(t, sh, "systemctl is-system-running --wait"))
	require.Equal(t, "yes\n", vmtest.Do(t, sh, "cat /run/shared"))
	stages := s.stages("node05")
	requireStages(t, stages, `tftp debian/vmlinuz`, `tftp diskless/joined/tools/machine-node05-.*`, `nbd debian~.*`, `nbd swap~.*@swap-node05\..*`, `booted up .*`)
	require.NotContains(t, strings.Join(stages, "\n"), "tftp debian/initrd")

	// What is put there comes back.
	require.Regexp(t, `^/dev/nbd1 +partition +256M +\d+\w* +-\d+\n$`, vmtest.Do(t, sh, "swapon --show --noheadings"))
	vmtest.Do(t, sh, "mount -t tmpfs many /mnt && systemd-run -q --wait -p MemoryHigh=24M sh -c 'yes swapped | head -c 48M >/mnt/many'")
	require.NotEqual(t, "0\n", vmtest.Do(t, sh, `awk '/^SwapTotal/ { t = $2 } /^SwapFree/ { print t - $2 }' /proc/meminfo`))
	require.Equal(t, vmtest.Do(t, sh, "yes swapped | head -c 48M | md5sum"), vmtest.Do(t, sh, "md5sum </mnt/many"))
	vmtest.Do(t, sh, "umount /mnt")

	addr := vmtest.Do(t, sh, `ip -4 -o addr show scope global | (read -r _ _ _ address _; printf %s "${address%/*}")`)
	var shown ssh.PublicKey
	client, err := ssh.Dial("tcp", net.JoinHostPort(addr, "22"), &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(admin)}, Timeout: time.Minute,
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			shown = key
			return nil
		},
	})
	require.NoError(t, err)
	session, err := client.NewSession()
	require.NoError(t, err)
	out, err := session.Output("hostname; ls /etc/ssh/ssh_host_*")
	require.NoError(t, err)
	require.Equal(t, "node05\n/etc/ssh/ssh_host_ed25519_key\n", string(out), "none of the image's keys, which all machines would have")
	require.NoError(t, client.Close())
	_ = sh.Tell("systemctl poweroff")
	ends(t, machine)
	require.NotRegexp(t, `(?i)failed deactivating swap|timed out`, machine.Transcript())

	var kept struct {
		Key string `json:"ssh_host_ed25519_key"`
	}
	data, err := os.ReadFile(s.path("state/identities/node05.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &kept))
	signer, err := ssh.ParsePrivateKey([]byte(kept.Key))
	require.NoError(t, err)
	require.Equal(t, signer.PublicKey().Marshal(), shown.Marshal())
}
