package boottest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// The initramfs that an administrator has, from Debian's packages unchanged:
// both take the root's name, with generation, root and token, from the
// arguments that were written for them.
func TestStockInitramfs(t *testing.T) {
	for _, tt := range []struct {
		generator guest.Generator
		entry     string
	}{
		{guest.InitramfsTools, "clean"},
		{guest.Dracut, "dracut"},
	} {
		t.Run(string(tt.generator), func(t *testing.T) {
			stock := vmtest.Stock(t, tt.generator)
			m, line := machine("stock01", "entry: "+tt.entry)
			s := newSite(t, "  - {name: dracut, kernel: vmlinuz, initrd: [initrd.img], image: disk, root: ephemeral, initramfs: dracut, args: [KERNELARGS]}\n"+
				"machines:\n"+line)
			s.copy(stock.Image, "boot/vmlinuz")
			s.copy(stock.Initrd, "boot/initrd.img")
			vmtest.Slots(t, 1)

			one := s.start(m)
			r := vmtest.Ready(t, one)
			require.Equal(t, s.marker, r.Marker)
			require.Regexp(t, `^ok \d+$`, r.Sums)
			require.Equal(t, "ok", r.Write)
			s.requireDisk(r, m.Name)
			vmtest.Do(t, shell(one), "write nonce gone")
			one.Kill()
			require.Empty(t, vmtest.Ready(t, s.start(m)).Nonce, "ephemeral, and the old connection is cut")
		})
	}
}
