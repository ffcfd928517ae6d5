package boottest

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// The names that loaders ask for, against what package pxecfg says: each
// machine has to walk its whole ladder, for every name is missing but the last.

// Arguments that mean something to one or the other loader, in which they have
// to arrive as they are. Each loader gets those beside them that it can carry.
var odd = []string{"t.a=$x;{}%41%n#<>|&*?[]()~!^@`", "--t.b", "t.c==,:+-", "t.d=p q"}

const uuid = "8b1f2a3c-4d5e-2f60-9a7b-52540067a001" // as SMBIOS has it

// PXELINUX, from a directory and with option 209.
func TestPXELINUXNames(t *testing.T) {
	vmtest.Need(t, "pxelinux", "syslinux-common")
	r := newRig(t)
	m := vm.Machine{Name: "names-pxelinux", UUID: uuid, Client: vm.PlainPXE}
	c := r.add(m, 21)
	c.ConfigFile = "site.cfg"
	const file = "ltsp/amd64/pxelinux.0"
	r.mount("ltsp/amd64", "/usr/lib/PXELINUX")
	r.mount("ltsp/amd64", "/usr/lib/syslinux/modules/bios")
	r.rules = dhcp.BootRules{{Boot: dhcp.Boot{File: file}}}
	r.reply = func(next dhcp.Handler) dhcp.Handler {
		return dhcp.HandlerFunc(func(ctx context.Context, q *dhcp.Request) (*dhcpv4.DHCPv4, error) {
			reply, err := next.ServeDHCP(ctx, q)
			if reply != nil {
				reply.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(209), []byte(c.ConfigFile)))
			}
			return reply, err
		})
	}
	r.tree.Source = &pxecfg.Machines{Unknown: r.live(append(odd, `t.e='\`, "t.f=${y}ü")...)}
	r.serve()
	vmtest.Slots(t, 1)

	g := vmtest.Ready(t, r.start(m))
	r.requireGuest(g, c)
	require.Contains(t, g.Cmdline, " "+strings.Join(odd[:3], " ")+` t.d="p q" t.e='\ t.f=${y}ü`)
	want := c.Requests(file)
	require.Len(t, want, 12)
	all, found := r.names(c.IP, "cfg")
	require.Equal(t, want, all)
	require.Equal(t, want[11:], found)
	require.Equal(t, options{block: 1408, window: 1}, r.negotiated(c.IP, "vmlinuz"))
}

// iPXE from TFTP, of a machine that only its UUID is known of.
func TestIPXENames(t *testing.T) {
	r := newRig(t)
	m := vm.Machine{Name: "names-ipxe", UUID: uuid}
	c := r.add(m, 22)
	r.rules = dhcp.BootRules{{Boot: dhcp.Boot{File: "boot.ipxe"}}}
	r.tree.Source = &pxecfg.Machines{List: []pxecfg.Machine{{UUID: m.UUID, Source: r.live(append(odd, `t.e='\`)...)}}}
	r.serve()
	vmtest.Slots(t, 1)

	g := vmtest.Ready(t, r.start(m))
	r.requireGuest(g, c)
	require.Contains(t, g.Cmdline, " "+strings.Join(odd[:3], " ")+` t.d="p q" t.e='\`)
	// The script that all machines share asks for the machine's own.
	want := append([]string{"boot.ipxe"}, c.IPXENames()[:2]...)
	all, found := r.names(c.IP, ".ipxe")
	require.Equal(t, want, all)
	require.Equal(t, []string{"boot.ipxe", "uuid-" + uuid + ".ipxe"}, found)
	require.Equal(t, options{block: 1432, window: 1}, r.negotiated(c.IP, "vmlinuz"))
}

// GRUB as grub-mknetdir makes it, for BIOS and UEFI side by side: DHCP chooses
// by architecture.
func TestGRUBNames(t *testing.T) {
	vmtest.Need(t, "grub-pc-bin", "grub-efi-amd64-bin", "grub-common")
	r := newRig(t)
	dir := t.TempDir()
	out, err := exec.Command("grub-mknetdir", "--net-directory="+dir, "--subdir=grub").CombinedOutput()
	require.NoError(t, err, string(out))
	r.mount("", dir)
	bios := vm.Machine{Name: "names-grub-bios", UUID: uuid, Client: vm.PlainPXE}
	efi := vm.Machine{Name: "names-grub-efi", UUID: uuid[:35] + "2", Firmware: vm.UEFI}
	cb, ce := r.add(bios, 23), r.add(efi, 24)
	r.rules = dhcp.BootRules{
		{Match: dhcp.Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: dhcp.Boot{File: "grub/x86_64-efi/core.efi"}},
		{Match: dhcp.Match{Archs: []iana.Arch{iana.INTEL_X86PC}}, Boot: dhcp.Boot{File: "grub/i386-pc/core.0"}},
	}
	r.tree.Source = &pxecfg.Machines{Unknown: r.live(append(odd, "t.f=${y}ü")...)}
	r.serve()
	vmtest.Slots(t, 2)

	one, two := r.start(bios), r.start(efi)
	for m, c := range map[*vm.Running]pxecfg.Client{one: cb, two: ce} {
		g := vmtest.Ready(t, m)
		r.requireGuest(g, c)
		// GRUB has its own place for the quotes, with the same meaning.
		require.Contains(t, g.Cmdline, " "+strings.Join(odd[:3], " ")+` "t.d=p q" t.f=${y}ü`)
	}
	for _, c := range []pxecfg.Client{cb, ce} {
		// At the last name there is a dispatcher, which asks once more, for
		// the name that GRUB's own variables can spell.
		want := under("grub/", append(c.GRUBNames(), c.GRUBAliases()[0]))
		require.Len(t, want, 12)
		all, found := r.names(c.IP, "grub.cfg")
		require.Equal(t, want, all)
		require.Equal(t, []string{"grub/grub.cfg"}, found)
		require.Equal(t, options{block: 1024, window: 1}, r.negotiated(c.IP, "vmlinuz"), "GRUB")
	}
	require.Equal(t, options{block: 1468, window: 4}, r.negotiated(ce.IP, "grub/x86_64-efi/core.efi"), "EDK2")
}
