package boottest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// UEFI's own PXE client loads iPXE, which gets its script.
func TestUEFIiPXE(t *testing.T) {
	m, line := machine("efi01", "entry: live")
	m.Firmware = vm.UEFI
	s := newSite(t, "machines:\n"+line)
	vmtest.Slots(t, 1)

	r := vmtest.Ready(t, s.start(m))
	s.requireGuest(r, m)
	s.requireOverlayInMemory(r)
	requireStages(t, s.stages("efi01"),
		`dhcp [\d.]+ -> snponly.efi`, `tftp snponly.efi`, `dhcp [\d.]+ -> http://[\d.]+:8080/boot.ipxe`, `http boot.ipxe`, `http vmlinuz`, `nbd demo~\w+`)
}

// The distribution's signed GRUB knows one file name for all: two machines
// that ask for it get two roots.
func TestUEFIGRUB(t *testing.T) {
	a, lineA := machine("grub01", "entry: desk, loader: grub")
	b, lineB := machine("grub02", "entry: clean, loader: grub")
	a.Firmware, b.Firmware = vm.UEFI, vm.UEFI
	s := newSite(t, "machines:\n"+lineA+lineB)
	vmtest.Slots(t, 2)

	one, two := s.start(a), s.start(b)
	first, second := s.boot(one, a), s.boot(two, b)
	require.NotEqual(t, first.Export, second.Export)
	vmtest.Do(t, shell(one), "write nonce only-mine")
	vmtest.Do(t, shell(two), "drop")
	_, err := shell(two).Do(t.Context(), "read nonce")
	require.Error(t, err)
	for _, name := range []string{"grub01", "grub02"} {
		requireStages(t, s.stages(name), `dhcp [\d.]+ -> grubnetx64.efi`, `tftp grubnetx64.efi`, `tftp grub/grub.cfg`, `tftp vmlinuz`, `tftp initrd.img`, `nbd disk~.*`)
	}
}
