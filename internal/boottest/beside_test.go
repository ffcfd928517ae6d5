package boottest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// Beside a DHCP server that is not ours no lease is known: every loader finds
// its machine by the name, or the query, with which it asks, and each machine
// gets a root of its own.
func TestBesideAnotherDHCPServer(t *testing.T) {
	a, lineA := machine("beside-ipxe", "entry: desk")
	b, lineB := machine("beside-pxelinux", "entry: desk")
	c, lineC := machine("beside-grub", "entry: clean")
	b.Client, c.Firmware = vm.PlainPXE, vm.UEFI
	vmtest.Need(t)
	var options []string
	for _, m := range []struct {
		vm.Machine
		file string
	}{
		{a, "http://192.168.67.1:8080/boot.ipxe"},
		{b, "pxelinux.0,,192.168.67.1"},
		{c, "grubnetx64.efi,,192.168.67.1"},
	} {
		options = append(options, fmt.Sprintf("--dhcp-host=%s,%s,set:%[2]s", m.HardwareAddr(), m.Name),
			fmt.Sprintf("--dhcp-boot=tag:%s,%s", m.Name, m.file))
	}
	s := newSiteBeside(t, "machines:\n"+lineA+lineB+lineC, options...)
	vmtest.Slots(t, 2)

	three, one := s.start(c), s.start(a)
	s.boot(one, a)
	one.Kill()
	two := s.start(b)
	s.boot(two, b)
	s.boot(three, c)
	dashes := func(m vm.Machine) string { return strings.ReplaceAll(m.HardwareAddr().String(), ":", "-") }
	requireStages(t, s.stages(a.Name), `http boot.ipxe`)
	requireStages(t, s.stages(b.Name), `tftp pxelinux.cfg/01-`+dashes(b))
	requireStages(t, s.stages(c.Name), `tftp grub/grub.cfg-`+c.HardwareAddr().String())
	require.Empty(t, s.app.Strangers())
}
