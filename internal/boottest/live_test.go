package boottest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// Debian live's initramfs, unchanged: it copies the image into memory over
// HTTP, and nothing of the server's is needed afterwards.
func TestLiveBoot(t *testing.T) {
	stock := vmtest.Stock(t, guest.LiveBoot)
	r := newRigWith(t, stock.Image, stock.Initrd)
	m := vm.Machine{Name: "live-boot", Memory: 768}
	c := r.add(m, 25)
	base := "http://" + r.lab.Addr().String()
	r.rules = dhcp.BootRules{{Boot: dhcp.Boot{File: base + "/boot.ipxe"}}}
	r.tree.Source = &pxecfg.Config{Entries: []pxecfg.Entry{{
		Label: "live", Kernel: "vmlinuz", Initrd: []string{"initrd.img"},
		Root: pxecfg.HTTPLiveBoot{URL: base + "/demo.squashfs"},
		Args: strings.Fields(vm.KernelArgs),
	}}}
	r.serve()
	vmtest.Slots(t, 1)

	g := vmtest.Ready(t, r.start(m))
	r.requireGuest(g, c)
	require.Regexp(t, `^/dev/loop\d+$`, g.Device)
	all, found := r.names(c.IP, "")
	require.Equal(t, []string{"boot.ipxe", "vmlinuz", "initrd.img", "demo.squashfs"}, all)
	require.Equal(t, all, found)
}
