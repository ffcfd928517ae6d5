package dhcp6

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
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// The tests below need a network of their own: the test binary starts itself
// again in new network (and user) namespaces, to run them there. Nothing is
// linked to the machine's network.

const inNamespace = "DHCP6_TEST_IN_NAMESPACE"

func TestNamespace(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		testInNamespace(t)
		return
	}
	need(t, "ip", "nsenter", "unshare", "dhclient", "dhcrelay", "dnsmasq", networkd)
	cmd := exec.Command(os.Args[0], "-test.run=^TestNamespace$", "-test.v", "-test.timeout=300s")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOSPC) {
		skip(t, "no namespaces without privileges here: "+err.Error())
	}
	t.Logf("%s", out)
	require.NoError(t, err)
	require.Contains(t, string(out), "--- PASS: TestNamespace")
}

func testInNamespace(t *testing.T) {
	ns := newClientNS(t)
	noDAD(t)
	run(t, "ip", "link", "set", "lo", "up")
	run(t, "ip", "link", "add", "srv0", "type", "veth", "peer", "name", "cli0", "netns", strconv.Itoa(ns.pid))
	run(t, "ip", "link", "set", "srv0", "up")
	run(t, "ip", "addr", "add", "fd00::1/64", "dev", "srv0", "nodad")
	run(t, "ip", "addr", "add", "10.77.0.1/24", "dev", "srv0")
	ns.run(t, "ip", "link", "set", "cli0", "up")

	ns.waitLinkLocal(t, "cli0")
	t.Run("dhclient", func(t *testing.T) { testDhclient(t, ns) })
	t.Run("dhclient's times", func(t *testing.T) { testDhclientTimes(t, ns) })
	t.Run("stateless", func(t *testing.T) { testDhclientStateless(t, ns) })
	t.Run("dhcrelay", func(t *testing.T) {
		testRelay(t, ns, "dhcrelay", "-6", "-d", "-I", "-l", "far0", "-u", "fd00::1%cli0")
	})
	t.Run("dnsmasq relay", func(t *testing.T) {
		testRelay(t, ns, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-facility=-", "--dhcp-relay=fd01::9,fd00::1")
	})
	t.Run("networkd", func(t *testing.T) { testNetworkd(t, ns) })
}

// noDAD has new interfaces use their addresses at once.
func noDAD(t *testing.T, command ...string) {
	t.Helper()
	args := append(command, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	run(t, args[0], args[1:]...)
}

// clientNS is a network namespace, kept by a process that sleeps.
type clientNS struct{ pid int }

func newClientNS(t *testing.T) clientNS {
	keeper := exec.Command("sleep", "1000")
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, keeper.Start())
	t.Cleanup(func() { keeper.Process.Kill(); keeper.Wait() })
	ns := clientNS{keeper.Process.Pid}
	noDAD(t, "nsenter", "-t", strconv.Itoa(ns.pid), "-n")
	return ns
}

func (ns clientNS) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(ns.pid), "-n", lookTool(name)}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (ns clientNS) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := ns.command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
	return string(out)
}

// start runs a program until the test ends or stop is called.
func (ns clientNS) start(t *testing.T, name string, args ...string) (stop func()) {
	t.Helper()
	cmd := ns.command(name, args...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	require.NoError(t, cmd.Start())
	stop = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Cleanup(stop)
	return stop
}

// hardwareAddr is that of the namespace's interface.
func (ns clientNS) hardwareAddr(t *testing.T, name string) net.HardwareAddr {
	fields := strings.Fields(ns.run(t, "ip", "-o", "link", "show", name))
	for i, f := range fields {
		if f == "link/ether" {
			hw, err := net.ParseMAC(fields[i+1])
			require.NoError(t, err)
			return hw
		}
	}
	t.Fatal(fields)
	return nil
}

// waitLinkLocal waits until a client can send.
func (ns clientNS) waitLinkLocal(t *testing.T, name string) {
	t.Helper()
	eventually(t, "link-local address", func() bool {
		out := ns.run(t, "ip", "-6", "-o", "addr", "show", "dev", name, "scope", "link")
		return strings.Contains(out, "fe80:") && !strings.Contains(out, "tentative")
	})
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(lookTool(name), args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
}

// heard is what a server was asked and has answered.
type heard struct {
	mu   sync.Mutex
	list []string
	last *Request
}

func (h *heard) seen(what string) func() bool {
	return func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, s := range h.list {
			if s == what {
				return true
			}
		}
		return false
	}
}

func (h *heard) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = nil
}

// netServer serves srv0 until the test ends.
func netServer(t *testing.T, h Handler) *heard {
	heard := &heard{}
	server := &Server{
		Interfaces: []string{"srv0"}, Handler: h,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		Trace: &Trace{Reply: func(r *Request, m *dhcpv6.Message, _ netip.AddrPort) {
			heard.mu.Lock()
			defer heard.mu.Unlock()
			heard.list = append(heard.list, r.MessageType.String())
			heard.last = r
		}},
	}
	conn, err := Listen("", "srv0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- server.Serve(conn) }()
	t.Cleanup(func() {
		require.NoError(t, server.Shutdown(context.Background()))
		require.Equal(t, ErrServerClosed, <-done)
	})
	return heard
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 60*time.Second, 20*time.Millisecond, what)
}

// script is what dhclient runs: it writes down what it was told, and with a
// file of the name "used" it says that the address is in use.
const script = `#!/bin/sh
{ echo "addr='$new_ip6_address'"; echo "dns='$new_dhcp6_name_servers'"; echo "url='$new_dhcp6_bootfile_url'"; } >DIR/$reason.tmp
mv DIR/$reason.tmp DIR/$reason
case $reason in
BOUND6) test ! -e DIR/used || { rm DIR/used; exit 3; } ;;
esac
exit 0
`

// dhclient returns the arguments of ISC's client, without and with its state,
// and what it was told.
func dhclient(t *testing.T, iface string) (args func(...string) []string, told func(reason string) map[string]string, dir string) {
	dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "script"), []byte(strings.ReplaceAll(script, "DIR", dir)), 0o755))
	config := "option dhcp6.bootfile-url code 59 = text;\nalso request dhcp6.bootfile-url;\n" +
		"option dhcp6.arch code 61 = unsigned integer 16;\nsend dhcp6.arch 7;\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o644))
	args = func(more ...string) []string {
		return append(append([]string{"-6"}, more...), "-sf", filepath.Join(dir, "script"), "-lf", filepath.Join(dir, "leases"),
			"-pf", filepath.Join(dir, "pid"), "-cf", filepath.Join(dir, "config"), iface)
	}
	told = func(reason string) map[string]string {
		data, _ := os.ReadFile(filepath.Join(dir, reason))
		vars := map[string]string{}
		for line := range strings.Lines(string(data)) {
			if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				vars[k] = strings.Trim(v, "'")
			}
		}
		return vars
	}
	return args, told, dir
}

// ISC's client, as it starts, finds its address in use, starts again and ends:
// SOLICIT, REQUEST, DECLINE, CONFIRM, RELEASE.
func testDhclient(t *testing.T, ns clientNS) {
	pool := testPool(func(p *Pool) { p.DNS = []netip.Addr{ip("fd00::53")} })
	heard := netServer(t, &BootPolicy{Next: pool, Boot: rules.Boot})
	args, told, dir := dhclient(t, "cli0")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "used"), nil, 0o644))
	stop := ns.start(t, "dhclient", args("-d")...)
	eventually(t, "an address that the client finds in use", heard.seen("DECLINE"))
	refused := told("BOUND6")["addr"]
	eventually(t, "another address", func() bool { return told("BOUND6")["addr"] != refused })
	got := told("BOUND6")
	require.Equal(t, "fd00::53", got["dns"])
	require.Equal(t, "tftp://[fd00::1]/snponly.efi", strings.Trim(got["url"], `"`))
	stop()

	heard.reset()
	stop = ns.start(t, "dhclient", args("-d")...)
	eventually(t, "is the address still good?", heard.seen("CONFIRM"))
	stop()
	l, err := pool.LeaseByAddr(t.Context(), ip(got["addr"]))
	require.NoError(t, err)
	require.Equal(t, ns.hardwareAddr(t, "cli0"), l.HardwareAddr)
	ns.run(t, "dhclient", args("-r")...)
	eventually(t, "the answer to a release", heard.seen("RELEASE"))
	_, err = pool.LeaseByAddr(t.Context(), ip(got["addr"]))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// RENEW, and where that is not answered, REBIND.
func testDhclientTimes(t *testing.T, ns clientNS) {
	pool := testPool(func(p *Pool) { p.LeaseTime = 12 * time.Second })
	var renewals atomic.Int32
	heard := netServer(t, HandlerFunc(func(ctx context.Context, r *Request) (*dhcpv6.Message, error) {
		if r.MessageType == renew && renewals.Add(1) > 1 {
			return nil, dhcp.ErrDrop
		}
		return pool.ServeDHCP(ctx, r)
	}))
	args, _, _ := dhclient(t, "cli0")
	defer ns.start(t, "dhclient", args("-d")...)()
	eventually(t, "a lease is renewed", heard.seen("RENEW"))
	eventually(t, "by any server", heard.seen("REBIND"))
}

func testDhclientStateless(t *testing.T, ns clientNS) {
	netServer(t, &BootPolicy{Next: &Stateless{ServerID: self, DNS: []netip.Addr{ip("fd00::54")}}, Boot: rules.Boot})
	args, told, _ := dhclient(t, "cli0")
	defer ns.start(t, "dhclient", args("-S", "-d")...)()
	eventually(t, "options", func() bool { return told("RENEW6")["dns"] == "fd00::54" })
}

// A client on another link, through a relay.
func testRelay(t *testing.T, ns clientNS, relay string, args ...string) {
	far := newClientNS(t)
	ns.run(t, "ip", "link", "add", "far0", "type", "veth", "peer", "name", "cli9", "netns", strconv.Itoa(far.pid))
	defer ns.run(t, "ip", "link", "del", "far0")
	ns.run(t, "ip", "addr", "add", "fd01::9/64", "dev", "far0", "nodad")
	ns.run(t, "ip", "link", "set", "far0", "up")
	ns.run(t, "ip", "addr", "add", "fd00::2/64", "dev", "cli0", "nodad")
	defer ns.run(t, "ip", "addr", "del", "fd00::2/64", "dev", "cli0")
	far.run(t, "ip", "link", "set", "cli9", "up")
	far.waitLinkLocal(t, "cli9")

	pool := testPool(func(p *Pool) {
		p.Prefix = netip.MustParsePrefix("fd01::/64")
		p.Ranges = []dhcp.Range{{First: ip("fd01::100"), Last: ip("fd01::1ff")}}
	})
	heard := netServer(t, First(testPool(), pool))
	ns.start(t, relay, args...)
	dhclientArgs, told, _ := dhclient(t, "cli9")
	far.start(t, "dhclient", dhclientArgs("-d")...)
	eventually(t, "an address through "+relay, func() bool { return told("BOUND6")["addr"] != "" })
	l, err := pool.LeaseByAddr(t.Context(), ip(told("BOUND6")["addr"]))
	require.NoError(t, err)
	require.Equal(t, far.hardwareAddr(t, "cli9"), l.HardwareAddr)
	heard.mu.Lock()
	defer heard.mu.Unlock()
	require.Len(t, heard.last.Relays, 1)
	require.Equal(t, "fd01::9", heard.last.LinkAddr().String())
	_, hw := heard.last.Relays[0].Options.ClientLinkLayerAddress()
	t.Logf("interface-id %q, link-layer address %v", heard.last.InterfaceID(), hw)
	if relay == "dnsmasq" {
		require.Equal(t, l.HardwareAddr, hw, "RFC 6939")
	} else {
		require.NotEmpty(t, heard.last.InterfaceID())
	}
}

const networkd = "/lib/systemd/systemd-networkd"

// systemd-networkd as it runs in a container: IPv4 and IPv6 at the same time,
// with DUIDs of systemd's own, is one machine. Without udev it takes interfaces
// as they are where /sys cannot be written.
const networkdScript = `
mount -t tmpfs tmpfs /run && mount -t sysfs -o ro sysfs /sys || exit 77
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
cat >/run/systemd/network/10-cli0.network <<X
[Match]
Name=cli0
[Network]
DHCP=yes
IPv6AcceptRA=no
[DHCPv6]
WithoutRA=solicit
RapidCommit=no
X
chown -R systemd-network /run/systemd
SYSTEMD_LOG_TARGET=console exec ` + networkd

func testNetworkd(t *testing.T, ns clientNS) {
	if os.Getuid() != 0 {
		skip(t, "systemd-networkd changes to a user of its own: only as root")
	}
	store := &dhcp.MemoryStore{}
	pool := testPool(func(p *Pool) { p.Store = store })
	heard := netServer(t, pool)
	pool4 := &dhcp.Pool{
		Prefix: netip.MustParsePrefix("10.77.0.0/24"), ServerID: ip("10.77.0.1"), Store: store,
		Ranges: []dhcp.Range{{First: ip("10.77.0.100"), Last: ip("10.77.0.199")}},
	}
	server4 := &dhcp.Server{Interfaces: []string{"srv0"}, Handler: pool4, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	conn, err := dhcp.Listen("", "srv0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- server4.Serve(conn) }()
	defer func() {
		require.NoError(t, server4.Shutdown(context.Background()))
		require.Equal(t, dhcp.ErrServerClosed, <-done)
	}()

	ns.run(t, "ip", "addr", "flush", "dev", "cli0", "scope", "global")
	stop := ns.start(t, "unshare", "-m", "sh", "-c", networkdScript)
	defer stop()
	hw := ns.hardwareAddr(t, "cli0")
	eventually(t, "both addresses", func() bool {
		leases, err := store.LeasesByOwner(context.Background(), string(hw))
		return err == nil && len(leases) == 2
	})
	leases, err := store.LeasesByOwner(t.Context(), string(hw))
	require.NoError(t, err)
	for _, l := range leases {
		if l.Addr.Is6() {
			require.EqualValues(t, dhcpv6.DUID_EN, l.ClientID[1], "systemd's own DUID")
		}
		// It has configured what it was given.
		eventually(t, l.Addr.String(), func() bool {
			return strings.Contains(ns.run(t, "ip", "-o", "addr", "show", "dev", "cli0"), fmt.Sprintf(" %v/", l.Addr))
		})
	}
	require.True(t, heard.seen("REQUEST")())
}
