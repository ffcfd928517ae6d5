package boottest

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// The initramfs that an administrator has, from Debian's packages unchanged:
// both take the root's name, with generation, root and token, from the
// arguments that were written for them.
func TestStockInitramfs(t *testing.T) {
	tools, dracut := vmtest.Stock(t, guest.InitramfsTools), vmtest.Stock(t, guest.Dracut)
	a, lineA := machine("stock01", "entry: tools")
	b, lineB := machine("stock02", "entry: dracut")
	s := newSite(t, `  - {name: tools, kernel: tools/vmlinuz, initrd: [tools/initrd], image: disk, root: ephemeral, args: [KERNELARGS]}
  - {name: dracut, kernel: dracut/vmlinuz, initrd: [dracut/initrd], image: disk, root: ephemeral, initramfs: dracut, args: [KERNELARGS]}
machines:
`+lineA+lineB)
	for name, stock := range map[string]*guest.Stock{"tools": tools, "dracut": dracut} {
		require.NoError(t, os.Mkdir(s.path("boot/"+name), 0o755))
		s.copy(stock.Image, "boot/"+name+"/vmlinuz")
		s.copy(stock.Initrd, "boot/"+name+"/initrd")
	}
	vmtest.Slots(t, 2)

	one, two := s.start(a), s.start(b)
	for _, r := range []*vm.Running{one, two} {
		g := vmtest.Ready(t, r)
		s.requireGuest(g, r.Machine())
		s.requireDisk(g, r.Machine().Name)
	}
}
