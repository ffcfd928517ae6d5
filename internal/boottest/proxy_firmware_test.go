package boottest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// httpBoot leaves OVMF nothing but HTTP Boot.
var httpBoot = []string{"-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n"}

// Beside a server that gives addresses and nothing else, our ProxyDHCP alone
// boots a plain BIOS PXE client, with a boot program of its own, and UEFI's
// HTTP Boot.
func TestProxyDHCPFirmware(t *testing.T) {
	vmtest.Need(t, "pxelinux", "syslinux-common", "ovmf", "ipxe")
	a, lineA := machine("proxy-pxe", "entry: live, loader: pxelinux")
	b, lineB := machine("proxy-http", "entry: live")
	a.Client = vm.PlainPXE
	b.Firmware, b.Args = vm.UEFI, httpBoot
	var options []string
	for _, m := range []vm.Machine{a, b} {
		options = append(options, fmt.Sprintf("--dhcp-host=%s,%s", m.HardwareAddr(), m.Name))
	}
	s := makeSite(t)
	stranger(t, s.lab, options...)
	s.serve(strings.Replace(common, "subnet: NET, ranges: [RANGE]", "proxy: true", 1) + "machines:\n" + lineA + lineB)
	vmtest.Slots(t, 2)

	for m, r := range map[string]*vm.Running{b.Name: s.start(b), a.Name: s.start(a)} {
		requireGuest(t, r, m, s.marker)
	}
	// Without a lease of ours a machine is known where it says its name.
	requireStages(t, s.stages(a.Name), `dhcp proxy -> pxelinux.0`, `tftp pxelinux.cfg/01-.*`)
	requireStages(t, s.stages(b.Name), `dhcp proxy -> http://[\d.]+:8080/snponly.efi`, `dhcp proxy -> http://[\d.]+:8080/boot.ipxe`, `http boot.ipxe`)
}

// requireGuest asserts that the machine has come up from the image of this test.
func requireGuest(t *testing.T, m *vm.Running, name, marker string) *guest.Report {
	t.Helper()
	g := vmtest.Ready(t, m)
	require.Equal(t, []string{name, marker}, []string{g.Hostname, g.Marker})
	return g
}
