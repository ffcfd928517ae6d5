package boottest

import (
	"net/netip"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// A fixed address and a host name among the kernel arguments, each initramfs
// in its own form: not those that DHCP gave the firmware.
func TestStaticAddress(t *testing.T) {
	tools, dracut := vmtest.Stock(t, guest.InitramfsTools), vmtest.Stock(t, guest.Dracut)
	r := newRig(t)
	server := r.lab.Addr()
	static := func(c pxecfg.Client) *pxecfg.StaticIP {
		return &pxecfg.StaticIP{Addr: netip.PrefixFrom(c.IP, 24), Gateway: server, Hostname: c.Hostname}
	}
	r.rules = dhcp.BootRules{{Boot: dhcp.Boot{File: "http://" + server.String() + "/boot.ipxe"}}}
	var machines []pxecfg.Machine
	add := func(last byte, name string, stock *guest.Stock, root func(c pxecfg.Client) pxecfg.Root) (vm.Machine, pxecfg.Client) {
		r.mount(name, path.Dir(stock.Image))
		m := vm.Machine{Name: "dhcp-" + name}
		c := r.add(m, last)
		c.IP, c.Hostname = r.addr(last+100), "static-"+name
		machines = append(machines, pxecfg.Machine{MAC: c.MAC, Source: &pxecfg.Config{Entries: []pxecfg.Entry{{
			Label: "static", Kernel: name + "/vmlinuz", Initrd: []string{name + "/initrd"},
			Root: root(c), Args: strings.Fields(vm.KernelArgs),
		}}}})
		return m, c
	}
	a, ca := add(26, "tools", tools, func(c pxecfg.Client) pxecfg.Root {
		return pxecfg.NBDInitramfsTools{Server: server, Export: "demo", ReadOnly: true, Overlay: "tmpfs", IP: static(c)}
	})
	b, cb := add(27, "dracut", dracut, func(c pxecfg.Client) pxecfg.Root {
		return pxecfg.NBDDracut{Server: server, Export: "demo", FSType: "squashfs", ReadOnly: true, IP: static(c)}
	})
	r.tree.Source = &pxecfg.Machines{List: machines}
	r.serve()
	vmtest.Slots(t, 2)

	one, two := r.start(a), r.start(b)
	r.requireGuest(vmtest.Ready(t, one), ca)
	g := vmtest.Ready(t, two)
	r.requireImage(g, cb)
	require.Equal(t, []string{"squashfs", "ro", "readonly"}, []string{g.Root, g.Mode, g.Write})
	for _, m := range []*vm.Running{one, two} {
		require.Contains(t, vmtest.Do(t, shell(m), "exec ip route"), "default via "+server.String())
	}
}
