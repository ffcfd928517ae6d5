package dhcp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

// The tests below need a network of their own: the test binary starts itself
// again in new network (and user) namespaces, to run them there. Nothing is
// linked to the machine's network.

const inNamespace = "DHCP_TEST_IN_NAMESPACE"

func TestNamespace(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		testInNamespace(t)
		return
	}
	need(t, "ip", "nsenter", "busybox", "dnsmasq", "dhclient", "dhcrelay", "grub-emu", "/usr/lib/klibc/bin/ipconfig")
	cmd := exec.Command(os.Args[0], "-test.run=^TestNamespace$", "-test.v", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = namespaces()
	out, err := cmd.CombinedOutput()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOSPC) {
		skip(t, "no namespaces without privileges here: "+err.Error())
	}
	t.Logf("%s", out)
	require.NoError(t, err)
	require.Contains(t, string(out), "--- PASS: TestNamespace")
}

func namespaces() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

func testInNamespace(t *testing.T) {
	ns := newClientNS(t)
	run(t, "ip", "link", "set", "lo", "up")
	for _, name := range []string{"srv0", "srv1"} {
		run(t, "ip", "link", "add", name, "type", "veth", "peer", "name", "cli"+name[3:], "netns", strconv.Itoa(ns.pid))
		run(t, "ip", "link", "set", name, "up")
		ns.run(t, "ip", "link", "set", "cli"+name[3:], "up")
	}
	run(t, "ip", "addr", "add", "10.77.0.1/24", "dev", "srv0")
	run(t, "ip", "addr", "add", "10.78.0.1/24", "dev", "srv1")

	t.Run("udhcpc", func(t *testing.T) { testUdhcpc(t, ns) })
	t.Run("Prober", func(t *testing.T) { testProber(t, ns) })
	t.Run("dhclient", func(t *testing.T) { testDhclient(t, ns) })
	t.Run("ipconfig", func(t *testing.T) { testIPConfig(t, ns) })
	t.Run("dhcrelay", func(t *testing.T) {
		testRelay(t, ns, "far.example", "dhcrelay", "-4", "-d", "-a", "-id", "far0", "-iu", "cli0", "10.77.0.1")
	})
	t.Run("dnsmasq relay", func(t *testing.T) { // names no port
		testRelay(t, ns, "", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-facility=-", "--pid-file=", "--dhcp-relay=10.79.0.1,10.77.0.1")
	})
	t.Run("GRUB", testGRUB)
	t.Run("Proxy", func(t *testing.T) { testProxy(t, ns) })
	t.Run("ProbeNobody", testProbeNobody)
	t.Run("ProbeDnsmasq", func(t *testing.T) { testProbeDnsmasq(t, ns) })
}

// clientNS is a network namespace, kept by a process that sleeps.
type clientNS struct{ pid int }

func newClientNS(t *testing.T) clientNS {
	keeper := exec.Command("sleep", "1000")
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, keeper.Start())
	t.Cleanup(func() { keeper.Process.Kill(); keeper.Wait() })
	return clientNS{keeper.Process.Pid}
}

func (ns clientNS) command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(ns.pid), "-n", lookTool(name)}, args...)...)
}

func (ns clientNS) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := ns.command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
	return string(out)
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(lookTool(name), args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
}

// udhcpcScript sets the interface up as a system would, and writes down what
// udhcpc was told.
const udhcpcScript = `#!/bin/sh
case "$1" in
bound|renew)
	busybox ip addr replace "$ip/$mask" dev "$interface"
	{ echo "event='$1'"; set; } > "$OUT/$1.tmp"
	mv "$OUT/$1.tmp" "$OUT/$1"
	;;
deconfig)
	busybox ip addr flush dev "$interface"
	;;
esac
`

// A real client on a real interface: broadcasts, unicast renewal, release.
func testUdhcpc(t *testing.T, ns clientNS) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	require.NoError(t, os.WriteFile(script, []byte(udhcpcScript), 0o755))
	mac, err := net.ParseMAC("02:00:00:00:77:01")
	require.NoError(t, err)
	ns.run(t, "ip", "link", "set", "cli0", "address", mac.String())

	pool := &Pool{
		Prefix: netip.MustParsePrefix("10.77.0.0/24"), ServerID: ip("10.77.0.1"), Router: ip("10.77.0.254"),
		DNS: []netip.Addr{ip("10.77.0.2")}, Domain: "lab.example",
		Ranges:       []Range{{ip("10.77.0.100"), ip("10.77.0.199")}},
		Reservations: []Reservation{{HardwareAddr: mac, Hostname: "node-77"}},
	}
	rules := BootRules{{Match: Match{Archs: []iana.Arch{iana.INTEL_X86PC}}, Boot: Boot{File: "undionly.kpxe", RootPath: "/srv/root"}}}
	type sent struct {
		r     *Request
		reply *dhcpv4.DHCPv4
		to    netip.AddrPort
	}
	replies, silent := make(chan sent, 100), make(chan *Request, 100)
	server := &Server{
		Interfaces: []string{"srv0"},
		Handler:    &BootPolicy{Next: pool, Boot: rules.Boot},
		Logger:     slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		Trace: &Trace{
			Reply:   func(r *Request, reply *dhcpv4.DHCPv4, to netip.AddrPort) { replies <- sent{r, reply, to} },
			NoReply: func(r *Request, _ error) { silent <- r },
		},
	}
	done := make(chan error, 1)
	go func() { done <- server.ListenAndServe() }()
	defer func() {
		require.NoError(t, server.Shutdown(context.Background()))
		require.Equal(t, ErrServerClosed, <-done)
	}()

	udhcpc := func(out string, args ...string) *exec.Cmd {
		require.NoError(t, os.MkdirAll(out, 0o755))
		cmd := ns.command("busybox", append([]string{"udhcpc", "-f", "-s", script, "-T", "1", "-t", "20", "-n"}, args...)...)
		cmd.Env = append(os.Environ(), "OUT="+out)
		return cmd
	}
	bound := func(out, event string) map[string]string {
		data, err := os.ReadFile(filepath.Join(out, event))
		require.NoError(t, err)
		vars := map[string]string{}
		for line := range strings.Lines(string(data)) {
			if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				vars[k] = strings.Trim(v, "'")
			}
		}
		return vars
	}

	// As a PXE ROM.
	rom := filepath.Join(dir, "rom")
	out, err := udhcpc(rom, "-q", "-i", "cli0", "-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x5d:0000",
		"-O", "bootfile", "-O", "tftp", "-O", "rootpath", "-O", "hostname").CombinedOutput()
	require.NoError(t, err, "%s", out)
	got := bound(rom, "bound")
	addr := got["ip"]
	require.True(t, pool.inRanges(ip(addr)))
	for k, want := range map[string]string{
		"subnet": "255.255.255.0", "mask": "24", "router": "10.77.0.254", "dns": "10.77.0.2", "domain": "lab.example",
		"hostname": "node-77", "serverid": "10.77.0.1", "siaddr": "10.77.0.1", "boot_file": "undionly.kpxe",
		"bootfile": "undionly.kpxe", "tftp": "10.77.0.1", "rootpath": "/srv/root", "lease": "43200", "broadcast": "10.77.0.255",
	} {
		require.Equal(t, want, got[k], "%s in %v", k, got)
	}
	offer, ack := <-replies, <-replies
	for _, s := range []sent{offer, ack} {
		require.Equal(t, addr+":68", s.to.String(), "without the broadcast flag, to its hardware address")
		require.Equal(t, "srv0", s.r.Interface.Name)
		require.Equal(t, "255.255.255.255:67", s.r.Local.String())
	}

	// As the system: another client-id, the same address; then renewing.
	system := filepath.Join(dir, "system")
	cmd := udhcpc(system, "-i", "cli0", "-B", "-x", "0x3d:ff00000001000200", "-R")
	require.NoError(t, cmd.Start())
	for range 2 { // OFFER, ACK
		s := <-replies
		require.Equal(t, addr, s.reply.YourIPAddr.String())
		require.Equal(t, "255.255.255.255:68", s.to.String(), "with the broadcast flag")
	}
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(system, "bound")); return err == nil }, 30*time.Second, 20*time.Millisecond)
	require.Equal(t, addr, bound(system, "bound")["ip"])
	require.NoError(t, cmd.Process.Signal(syscall.SIGUSR1))
	renewed := <-replies
	require.Equal(t, addr+":68", renewed.to.String(), "a renewal is answered by unicast")
	require.Equal(t, "10.77.0.1:67", renewed.r.Local.String())
	require.Equal(t, dhcpv4.MessageTypeAck, renewed.reply.MessageType())
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(system, "renew")); return err == nil }, 30*time.Second, 20*time.Millisecond)
	lease, err := pool.LeaseByAddr(t.Context(), ip(addr))
	require.NoError(t, err)
	require.Equal(t, mac, lease.HardwareAddr)

	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM)) // -R: it releases
	cmd.Wait()
	require.Equal(t, dhcpv4.MessageTypeRelease, (<-silent).MessageType())
	_, err = pool.LeaseByAddr(t.Context(), ip(addr))
	require.Error(t, err)

	// Nobody is served on the other interface. (udhcpc may have renewed twice:
	// the first answer is lost when it is faster than udhcpc's change of sockets.)
	for len(replies) > 0 {
		require.Equal(t, addr+":68", (<-replies).to.String())
	}
	err = udhcpc(filepath.Join(dir, "other"), "-q", "-i", "cli1", "-t", "2").Run()
	require.Error(t, err)
	require.Empty(t, replies)
	require.Empty(t, silent)
}

// An address that a machine has is found, by ARP and by ping; one that nobody
// has, or only the client itself, is free.
func testProber(t *testing.T, ns clientNS) {
	ns.run(t, "ip", "addr", "add", "10.77.0.55/24", "dev", "cli0")
	defer ns.run(t, "ip", "addr", "del", "10.77.0.55/24", "dev", "cli0")
	iface, err := net.InterfaceByName("srv0")
	require.NoError(t, err)
	ask := func(addr string, hw net.HardwareAddr, change ...func(*dhcpv4.DHCPv4)) bool {
		r := &Request{DHCPv4: message(discover, hw, bareSystem, change...), Interface: iface}
		used, err := new(Prober).InUse(t.Context(), r, ip(addr))
		require.NoError(t, err)
		return used
	}
	require.True(t, ask("10.77.0.55", macA))
	require.False(t, ask("10.77.0.56", macA))
	require.True(t, ask("10.77.0.55", macA, relay("10.77.0.2")))
	require.False(t, ask("10.77.0.56", macA, relay("10.77.0.2")))
	fields := strings.Fields(ns.run(t, "ip", "-o", "link", "show", "cli0"))
	hw, err := net.ParseMAC(fields[slices.Index(fields, "link/ether")+1])
	require.NoError(t, err)
	require.False(t, ask("10.77.0.55", hw), "the client itself has it")
}

// netServer serves srv0 until the test ends.
func netServer(t *testing.T, h Handler, interfaces ...string) {
	server := &Server{Interfaces: interfaces, Handler: h, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))}
	done := make(chan error, 1)
	var conns []net.PacketConn
	for _, name := range interfaces {
		conn, err := Listen("", name)
		require.NoError(t, err)
		conns = append(conns, conn)
	}
	go func() { done <- server.serveAll(conns) }()
	t.Cleanup(func() {
		require.NoError(t, server.Shutdown(context.Background()))
		require.Equal(t, ErrServerClosed, <-done)
	})
}

func netPool() *Pool {
	return &Pool{
		Prefix: netip.MustParsePrefix("10.77.0.0/24"), ServerID: ip("10.77.0.1"), Router: ip("10.77.0.254"),
		Ranges: []Range{{ip("10.77.0.100"), ip("10.77.0.199")}}, InUse: new(Prober).InUse,
	}
}

// ISC's client: with a client identifier of its own, a DECLINE and a RELEASE.
func testDhclient(t *testing.T, ns clientNS) {
	pool := netPool()
	netServer(t, pool, "srv0")
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\ncase $reason in BOUND|RENEW|REBOOT) ip addr replace $new_ip_address/24 dev $interface; echo $new_ip_address $new_routers >"+dir+"/$reason ;; esac\n"), 0o755))
	args := []string{"-4", "-d", "-1", "-sf", script, "-lf", filepath.Join(dir, "leases"), "-pf", filepath.Join(dir, "pid"), "-cf", "/dev/null", "cli0"}
	cmd := ns.command("dhclient", args...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, "BOUND")); return err == nil }, 60*time.Second, 20*time.Millisecond)
	data, err := os.ReadFile(filepath.Join(dir, "BOUND"))
	require.NoError(t, err)
	fields := strings.Fields(string(data))
	require.Equal(t, "10.77.0.254", fields[1])
	l, err := pool.LeaseByAddr(t.Context(), ip(fields[0]))
	require.NoError(t, err)
	require.NotEmpty(t, l.HardwareAddr)
	cmd.Process.Kill()
	cmd.Wait()
	ns.run(t, "dhclient", append([]string{"-r"}, args[2:]...)...)
	require.Eventually(t, func() bool {
		_, err := pool.LeaseByAddr(context.Background(), l.Addr)
		return err != nil
	}, 10*time.Second, 10*time.Millisecond, "released")
	ns.run(t, "ip", "addr", "flush", "dev", "cli0")
}

// The client of an initramfs.
func testIPConfig(t *testing.T, ns clientNS) {
	pool := netPool()
	netServer(t, &BootPolicy{Next: pool, Boot: BootRules{{Boot: Boot{RootPath: "10.77.0.1:/srv/root", Hostname: "node-1"}}}.Boot}, "srv0")
	out := ns.run(t, "/usr/lib/klibc/bin/ipconfig", "-t", "20", "-c", "dhcp", "-d", "cli0")
	require.Contains(t, out, "rootserver: 10.77.0.1 rootpath: 10.77.0.1:/srv/root")
	require.Contains(t, out, "node-1")
	ns.run(t, "ip", "addr", "flush", "dev", "cli0")
	ns.run(t, "ip", "link", "set", "cli0", "up")
}

// A client on another subnet, through ISC's relay with option 82, while the
// server serves two interfaces.
func testRelay(t *testing.T, ns clientNS, domain, relay string, args ...string) {
	far := newClientNS(t)
	ns.run(t, "ip", "link", "add", "far0", "type", "veth", "peer", "name", "cli9", "netns", strconv.Itoa(far.pid))
	ns.run(t, "ip", "addr", "add", "10.79.0.1/24", "dev", "far0")
	ns.run(t, "ip", "link", "set", "far0", "up")
	ns.run(t, "ip", "addr", "add", "10.77.0.2/24", "dev", "cli0")
	defer ns.run(t, "ip", "addr", "del", "10.77.0.2/24", "dev", "cli0")
	far.run(t, "ip", "link", "set", "cli9", "up")
	run(t, "ip", "route", "add", "10.79.0.0/24", "via", "10.77.0.2")

	pool := &Pool{
		Prefix: netip.MustParsePrefix("10.79.0.0/24"), ServerID: ip("10.77.0.1"), Ranges: []Range{{ip("10.79.0.100"), ip("10.79.0.199")}},
		Classes: []Class{{Name: "port", Match: Match{CircuitIDs: []string{"far0"}}, Options: dhcpv4.Options{15: []byte("far.example")}}},
	}
	netServer(t, First(netPool(), pool), "srv0", "srv1")
	defer run(t, "ip", "route", "del", "10.79.0.0/24")
	defer ns.run(t, "ip", "link", "del", "far0")
	cmd := ns.command(relay, args...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	require.NoError(t, cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\ntest \"$1\" = bound && echo $ip $domain\nexit 0\n"), 0o755))
	out, err := far.command("busybox", "udhcpc", "-f", "-q", "-n", "-t", "30", "-T", "1", "-i", "cli9", "-s", script).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Regexp(t, `10\.79\.0\.1\d\d ?`+domain+`\n`, string(out))
}

// grubConfig asks until its card is on a network where there is a server.
const grubConfig = `
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
	if net_dhcp; then
		net_ls_addr
		net_ls_routes
		echo "$net_emu0_dhcp_next_server,$net_emu0_dhcp_hostname,$net_emu0_dhcp_domain,$net_emu0_dhcp_rootpath"
		halt
	fi
	sleep 1
done
halt
`

// GRUB's own client, as where a loader without a lease of the firmware's asks.
func testGRUB(t *testing.T) {
	if err := syscall.Access("/dev/net/tun", 6); err != nil {
		skip(t, "grub-emu makes a network device of its own, of /dev/net/tun: "+err.Error())
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "grub.cfg"), []byte(grubConfig), 0o644))
	var said logBuffer
	grub := exec.Command(lookTool("grub-emu"), "-d", dir)
	grub.Env = append(os.Environ(), "TERM=vt100")
	grub.Stdout, grub.Stderr = &said, &said
	require.NoError(t, grub.Start())
	exited := make(chan error, 1)
	go func() { exited <- grub.Wait() }()
	defer grub.Process.Kill()
	require.Eventually(t, func() bool { _, err := net.InterfaceByName("tap0"); return err == nil }, time.Minute, 10*time.Millisecond, "GRUB says: %s", &said)
	run(t, "ip", "addr", "add", "10.80.0.1/24", "dev", "tap0")
	run(t, "ip", "link", "set", "tap0", "up")

	mac := net.HardwareAddr{0, 1, 2, 3, 4, 5} // which GRUB's emulated card has
	pool := &Pool{
		Prefix: netip.MustParsePrefix("10.80.0.0/24"), ServerID: ip("10.80.0.1"), Router: ip("10.80.0.254"), Domain: "lab.example",
		Reservations: []Reservation{{HardwareAddr: mac, Addr: ip("10.80.0.7"), Hostname: "node-80"}},
	}
	rules := BootRules{{Match: Match{Platforms: []Platform{PlatformLinux}}, Boot: Boot{RootPath: "/srv/root"}}}
	netServer(t, &BootPolicy{Next: pool, Boot: rules.Boot}, "tap0")
	select {
	case err := <-exited:
		require.NoError(t, err, "GRUB says: %s", &said)
	case <-time.After(time.Minute):
		require.Fail(t, "GRUB got no address", "it says: %s", &said)
	}
	require.Contains(t, said.String(), "10.80.0.1,node-80,lab.example,/srv/root")
	require.Contains(t, said.String(), "10.80.0.7")
	require.Contains(t, said.String(), "gw 10.80.0.254")
	l, err := pool.LeaseByHardwareAddr(t.Context(), mac)
	require.NoError(t, err)
	require.Equal(t, ip("10.80.0.7"), l.Addr)
}

// Both of a proxy's ports on two interfaces, with one call.
func testProxy(t *testing.T, ns clientNS) {
	rules := BootRules{{Match: Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: Boot{File: "snponly.efi"}}}
	server := &Server{
		Interfaces: []string{"srv0", "srv1"}, ProxyPort: true,
		Handler: &Proxy{ServerID: ip("10.77.0.1"), Boot: rules.Boot}, Logger: slog.New(slog.DiscardHandler),
	}
	done := make(chan error, 1)
	go func() { done <- server.ListenAndServe() }()
	ns.run(t, "ip", "addr", "add", "10.77.0.2/24", "dev", "cli0")
	ns.run(t, "ip", "addr", "add", "10.78.0.2/24", "dev", "cli1")
	defer ns.run(t, "ip", "addr", "flush", "dev", "cli0")
	defer ns.run(t, "ip", "addr", "flush", "dev", "cli1")
	dir := t.TempDir()
	ask := func(m *dhcpv4.DHCPv4, to string) (reply *dhcpv4.DHCPv4) {
		in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
		require.NoError(t, os.WriteFile(in, m.ToBytes(), 0o600))
		host, port, _ := strings.Cut(to, ":")
		// Again and again, for the server may not be listening yet.
		require.Eventually(t, func() bool {
			_ = ns.command("bash", "-c", fmt.Sprintf("exec 3<>/dev/udp/%s/%s && cat %s >&3 && timeout 1 dd bs=4096 count=1 <&3 >%s", host, port, in, out)).Run()
			data, _ := os.ReadFile(out)
			var err error
			reply, err = dhcpv4.FromBytes(data)
			return err == nil
		}, 30*time.Second, 10*time.Millisecond)
		require.Equal(t, m.TransactionID, reply.TransactionID)
		return reply
	}
	offer := ask(message(discover, macA, UEFIFirmware(iana.EFI_X86_64)), "10.77.0.1:67")
	require.Equal(t, dhcpv4.MessageTypeOffer, offer.MessageType())
	require.Empty(t, offer.BootFileName)
	for _, to := range []string{"10.77.0.1:4011", "10.78.0.1:4011"} {
		ack := ask(message(request, macB, UEFIFirmware(iana.EFI_X86_64)), to)
		require.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType())
		require.Equal(t, "snponly.efi", ack.BootFileName)
	}
	require.NoError(t, server.Shutdown(t.Context()))
	require.Equal(t, ErrServerClosed, <-done)
}

func testProbeNobody(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 1200*time.Millisecond)
	defer cancel()
	offers, err := Probe(ctx, "srv0")
	require.NoError(t, err)
	require.Empty(t, offers)

	run(t, "ip", "link", "set", "srv1", "down")
	_, err = Probe(ctx, "srv1")
	require.ErrorIs(t, err, syscall.ENETDOWN)
	require.ErrorContains(t, err, "ip link set srv1 up")
}

// A foreign server is found, also while port 68 is in use here.
func testProbeDnsmasq(t *testing.T, ns clientNS) {
	busy, err := net.ListenPacket("udp4", ":68")
	require.NoError(t, err)
	defer busy.Close()
	ns.run(t, "ip", "addr", "add", "10.77.0.9/24", "dev", "cli0")
	cmd := ns.command("dnsmasq", "--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--user=", "--group=", "--pid-file=",
		"--interface=cli0", "--bind-interfaces", "--no-ping", "--dhcp-authoritative",
		"--dhcp-range=10.77.0.20,10.77.0.30,1h", "--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"))
	var log logBuffer
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()

	// It may not be listening yet: the probe repeats itself.
	offers, err := Probe(context.Background(), "srv0")
	require.NoError(t, err)
	require.Len(t, offers, 1, "dnsmasq says: %s", &log)
	iface := strings.Fields(ns.run(t, "ip", "-o", "link", "show", "cli0"))
	require.Equal(t, "10.77.0.9", offers[0].ServerID.String())
	require.Equal(t, "10.77.0.9", offers[0].Source.String())
	require.Contains(t, iface, offers[0].HardwareAddr.String())
	require.True(t, netip.MustParsePrefix("10.77.0.16/28").Contains(offers[0].Addr), fmt.Sprint(offers[0].Addr))
}
