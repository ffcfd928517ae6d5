package boottest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// Beside a server that gives addresses and nothing else, our ProxyDHCP alone
// tells a BIOS card's iPXE and UEFI what to boot. vm.PlainPXE knows no
// ProxyDHCP: it takes next-server from whoever gave the address.
func TestProxyDHCP(t *testing.T) {
	a, lineA := machine("proxy-ipxe", "entry: live")
	b, lineB := machine("proxy-uefi", "entry: clean")
	b.Firmware = vm.UEFI
	vmtest.Need(t)
	var options []string
	for _, m := range []vm.Machine{a, b} {
		options = append(options, fmt.Sprintf("--dhcp-host=%s,%s", m.HardwareAddr(), m.Name))
	}
	s := makeSite(t)
	stranger(t, s.lab, options...)
	addresses := "subnet: NET, ranges: [RANGE]"
	require.Contains(t, common, addresses)
	s.serve(strings.Replace(common, addresses, "proxy: true", 1) + "machines:\n" + lineA + lineB)
	vmtest.Slots(t, 2)

	two, one := s.start(b), s.start(a)
	s.requireGuest(vmtest.Ready(t, one), a)
	s.boot(two, b)
	script := `dhcp proxy -> http://[\d.]+:8080/boot.ipxe`
	requireStages(t, s.stages(a.Name), script, `http boot.ipxe`)
	requireStages(t, s.stages(b.Name), `dhcp proxy -> snponly.efi`, script, `http boot.ipxe`)
}
