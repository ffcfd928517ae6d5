package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// The ten-second look goes the whole way and says first what it is not.
func TestDemo(t *testing.T) {
	start := time.Now()
	out, errs, err := run(t, "demo")
	require.NoError(t, err, errs)
	t.Logf("took %s", time.Since(start))
	require.True(t, strings.HasPrefix(out, "No kernel runs in this"))
	requireInOrder(t, out, "DISCOVER", "boot file pxelinux.0", "not there, next", "pxelinux.cfg/01-52-54-00-67-00-01: found",
		"attached demo~", "/etc/motd in the root", "wrote 512 bytes", "node02 reads the same block: 512 zero bytes", "Nothing was left behind")
	// The TFTP server reports a file once its last ACK is in: the machine may be ahead of that.
	requireInOrder(t, out, "node01: vmlinuz", "node02: vmlinuz")
	requireInOrder(t, out, "node01: initrd.img", "node02: initrd.img")
}

// What `make boot` shows, and the same without root: a real kernel says from
// its NBD root what it found, beside what the servers saw.
func TestDemoVM(t *testing.T) {
	vmtest.Need(t)
	vmtest.Guest(t)
	for way, stages := range map[string][]string{
		"user": {"server  http", "boot.ipxe", "vmlinuz", "initrd.img", "server  nbd", "console", "DISKLESS ready"},
		"pxe":  {"server  dhcp", "server  http", "boot.ipxe", "vmlinuz", "initrd.img", "server  nbd", "console", "DISKLESS ready"},
	} {
		t.Run(way, func(t *testing.T) {
			if tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err == nil {
				require.NoError(t, tun.Close())
			} else if way == "pxe" {
				vmtest.Skip(t, "%v", err)
			}
			vmtest.Slots(t, 1)
			before := leftovers(t)
			out, errs, err := run(t, "demo", "--vm="+way)
			require.NoError(t, err, "%s%s", out, errs)
			requireInOrder(t, out, append(stages, "node01 (", "root overlay over squashfs", "files ok ")...)
			require.Equal(t, before, leftovers(t), "nothing stays behind")
		})
	}
}

// leftovers are the temporary files of demos.
func leftovers(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"diskless-demo-*", "diskless-vm-*"} {
		found, err := filepath.Glob(filepath.Join(os.TempDir(), pattern))
		require.NoError(t, err)
		all = append(all, found...)
	}
	return all
}

func requireInOrder(t *testing.T, text string, wants ...string) {
	t.Helper()
	at := 0
	for _, want := range wants {
		i := strings.Index(text[at:], want)
		require.GreaterOrEqual(t, i, 0, "%q after\n%s", want, text[:at])
		at += i
	}
}
