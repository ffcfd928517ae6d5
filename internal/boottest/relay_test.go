package boottest

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// Machines on another network, whose router relays DHCP: a card's iPXE and
// UEFI's PXE client boot as they do next door, through the router.
func TestRelay(t *testing.T) {
	vmtest.Need(t, "dnsmasq-base", "ovmf", "ipxe")
	r := newRig(t)
	far := &vm.Lab{Bridge: "lab1", Prefix: netip.MustParsePrefix("192.168.68.99/24")}
	require.NoError(t, far.Up(t.Context()))
	t.Cleanup(func() { require.NoError(t, far.Close()) })
	router(t, r.lab, far)

	r.pool.Prefix, r.pool.Router = far.Network().Masked(), netip.MustParseAddr("192.168.68.1")
	r.rules = dhcp.BootRules{
		{Match: dhcp.Match{Platforms: []dhcp.Platform{dhcp.PlatformIPXE}}, Boot: dhcp.Boot{File: "boot.ipxe"}},
		{Match: dhcp.Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: dhcp.Boot{File: "snponly.efi"}},
	}
	r.mount("", "/usr/lib/ipxe")
	r.tree.Source = &pxecfg.Machines{Unknown: r.live()}
	machines := map[string]netip.Addr{"relay-ipxe": netip.MustParseAddr("192.168.68.31"), "relay-uefi": netip.MustParseAddr("192.168.68.32")}
	for name, addr := range machines {
		r.pool.Reservations = append(r.pool.Reservations,
			dhcp.Reservation{HardwareAddr: vm.Machine{Name: name}.HardwareAddr(), Addr: addr, Hostname: name})
	}
	r.serve()
	vmtest.Slots(t, 2)

	start := func(m vm.Machine) *vm.Running {
		m.Tap = vmtest.Tap(t, far)
		return vmtest.Start(t, m)
	}
	one, two := start(vm.Machine{Name: "relay-ipxe"}), start(vm.Machine{Name: "relay-uefi", Firmware: vm.UEFI})
	for _, m := range []*vm.Running{one, two} {
		g, addr := requireGuest(t, m, m.Machine().Name, r.marker), machines[m.Machine().Name]
		require.Equal(t, addr.String()+"/24", g.IP)
		_, found := r.names(addr, "")
		require.Subset(t, found, []string{"boot.ipxe", "vmlinuz", "initrd.img"})
	}
	_, found := r.names(machines["relay-uefi"], "snponly.efi")
	require.NotEmpty(t, found)
}

// router connects the far network to the near one by a host that routes and
// relays DHCP to the near network's server; this host has no address in the
// far network any more.
func router(t *testing.T, near, far *vm.Lab) {
	t.Helper()
	host := exec.Command("sleep", "600")
	host.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, host.Start())
	t.Cleanup(func() {
		_ = host.Process.Kill()
		_ = host.Wait()
	})
	pid := strconv.Itoa(host.Process.Pid)
	inside := func(args ...string) []string { return append([]string{"nsenter", "-t", pid, "-n"}, args...) }
	for _, args := range [][]string{
		{"ip", "link", "add", "near0", "type", "veth", "peer", "name", "eth0", "netns", pid},
		{"ip", "link", "set", "near0", "master", near.Name(), "up"},
		{"ip", "link", "add", "far0", "type", "veth", "peer", "name", "eth1", "netns", pid},
		{"ip", "link", "set", "far0", "master", far.Name(), "up"},
		{"ip", "addr", "del", far.Network().String(), "dev", far.Name()},
		{"ip", "route", "add", far.Network().Masked().String(), "via", "192.168.67.2"},
		inside("ip", "addr", "add", "192.168.67.2/24", "dev", "eth0"),
		inside("ip", "addr", "add", "192.168.68.1/24", "dev", "eth1"),
		inside("ip", "link", "set", "eth0", "up"),
		inside("ip", "link", "set", "eth1", "up"),
		inside("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"),
	} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		require.NoError(t, err, "%q: %s", args, out)
	}
	args := inside("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-facility=-",
		"--dhcp-relay=192.168.68.1,"+near.Addr().String())
	relay := exec.Command(args[0], args[1:]...)
	relay.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	relay.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	relay.Stdout, relay.Stderr = &said, &said
	require.NoError(t, relay.Start())
	t.Cleanup(func() {
		_ = relay.Process.Kill()
		_ = relay.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	// It has the port once it holds it in its namespace.
	require.Eventually(t, func() bool {
		table, _ := os.ReadFile("/proc/" + pid + "/net/udp")
		return bytes.Contains(table, []byte(":0043 "))
	}, 30*time.Second, 20*time.Millisecond)
}
