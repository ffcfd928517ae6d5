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
	need(t, "ip", "nsenter", "busybox", "dnsmasq")
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
