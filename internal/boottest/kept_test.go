package boottest

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// Machines over PXELINUX, each with a writable root of its own over one image
// and one entry: what a machine keeps is there after a reboot and after a
// loss of power, no other machine sees it, a reset makes it go away, and the
// image never changes.
func TestPXELINUXRoots(t *testing.T) {
	a, lineA := machine("desk01", "entry: desk, loader: pxelinux")
	a.UUID = "00000000-0000-0000-0000-000000000000" // none: PXELINUX asks by the hardware address first
	b, lineB := machine("desk02", "entry: desk, loader: pxelinux")
	c, lineC := machine("clean01", "entry: clean, loader: pxelinux")
	s := newSite(t, "machines:\n"+lineA+lineB+lineC)
	before := digest(t, s.path("demo.ext4"))
	vmtest.Slots(t, 2)

	one, two := s.start(a), s.start(b)
	first := s.boot(one, a)
	require.Empty(t, first.Nonce)
	requireStages(t, s.stages("desk01"),
		`dhcp [\d.]+ -> pxelinux.0`, `tftp pxelinux.0`, `tftp ldlinux.c32`, `tftp pxelinux.cfg/01-`+strings.ReplaceAll(a.HardwareAddr().String(), ":", "-"), `tftp vmlinuz`, `tftp initrd.img`, `nbd disk~.*`)
	vmtest.Do(t, shell(one), "write nonce kept-over-reboots")

	// The same entry at the same time on another machine.
	require.Empty(t, s.boot(two, b).Nonce)
	vmtest.Do(t, shell(two), "drop")
	_, err := shell(two).Do(t.Context(), "read nonce")
	require.ErrorIs(t, err, guest.ErrCommand, "desk02 sees nothing of desk01's")
	two.Kill()

	// A reboot: the next boot has the next token, and the data.
	vmtest.Do(t, shell(one), "reboot")
	second := s.boot(one, a)
	require.Equal(t, "kept-over-reboots", second.Nonce)
	require.NotEqual(t, first.Export, second.Export)

	// The power goes right after a sync; nothing tells the server.
	vmtest.Do(t, shell(one), "write nonce kept-over-power-loss")
	one.Kill()
	one = s.start(a)
	require.Equal(t, "kept-over-power-loss", s.boot(one, a).Nonce)

	// A reset cuts the machine off and the next boot begins clean.
	require.NoError(t, s.app.Roots.Reset(t.Context(), "desk01"))
	one.Kill()
	one = s.start(a)
	require.Empty(t, s.boot(one, a).Nonce)
	one.Kill()

	// An ephemeral root comes back clean, though the old connection of a
	// machine that lost power still looks alive.
	three := s.start(c)
	last := s.boot(three, c)
	require.Empty(t, last.Nonce)
	vmtest.Do(t, shell(three), "write nonce gone-after-power-loss")
	require.Equal(t, 1, established(t, last.IP))
	three.Kill()
	require.Equal(t, 1, established(t, last.IP), "the server has not heard that the machine is gone")
	three = s.start(c)
	again := s.boot(three, c)
	require.Empty(t, again.Nonce)
	require.Equal(t, last.IP, again.IP)
	require.Equal(t, 1, established(t, last.IP), "the old connection was cut: only the new one is left")
	require.Contains(t, s.logged(), "boot fenced off")
	_, err = shell(three).Do(t.Context(), "read nonce")
	require.ErrorIs(t, err, guest.ErrCommand)

	require.Equal(t, before, digest(t, s.path("demo.ext4")), "the image's bytes never change")
}

// boot waits for userland and asserts what every boot of a writable root shows.
func (s *site) boot(r *vm.Running, m vm.Machine) *guest.Report {
	s.t.Helper()
	report := vmtest.Ready(s.t, r)
	s.requireGuest(report, m)
	s.requireDisk(report, m.Name)
	return report
}

func shell(r *vm.Running) *guest.Shell { return &guest.Shell{Console: r} }

// established is how many TCP connections from a machine to our NBD port the
// kernel of this host holds for alive.
func established(t *testing.T, prefix string) int {
	t.Helper()
	addr := netip.MustParsePrefix(prefix).Addr().As4()
	remote := fmt.Sprintf("%02X%02X%02X%02X:", addr[3], addr[2], addr[1], addr[0]) // as the table has it, also behind ::ffff:
	n := 0
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, err := os.ReadFile(table)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			// local address, remote address, state 01: ESTABLISHED
			if len(f) > 3 && strings.HasSuffix(f[1], ":2A39") && strings.Contains(f[2], remote) && f[3] == "01" {
				n++
			}
		}
	}
	return n
}

// damage changes one byte in the first quarter of an image, among its programs:
// its middle may be the file that no boot reads.
func damage(t *testing.T, file string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], info.Size()/4)
	require.NoError(t, err)
	b[0] ^= 0xff
	_, err = f.WriteAt(b[:], info.Size()/4)
	require.NoError(t, err)
	require.NoError(t, os.Chtimes(file, time.Now(), time.Now()))
}
