package vm

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// helper makes the test binary do something else in a process of its own: it
// is started as if it had never been isolated.
func helper(t *testing.T, what string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelper$")
	cmd.Env = []string{"VM_HELPER=" + what}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, outside+"=") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Stderr = os.Stderr
	t.Cleanup(func() {
		if cmd.Process != nil && cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return cmd
}

func TestHelper(t *testing.T) {
	switch os.Getenv("VM_HELPER") {
	case "exit":
		os.Exit(7)
	case "wait":
		fmt.Println("up", isolated())
		select {}
	case "machine":
		m, err := Start(t.Context(), Machine{User: &User{}, Args: []string{"-S"}})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("qemu", m.cmd.Process.Pid)
		select {}
	}
}

func needNamespaces(t *testing.T) {
	if isolated() {
		return
	}
	if os.Getenv("DISKLESS_REQUIRE") == "all" {
		t.Fatal("DISKLESS_REQUIRE=all, but there are no namespaces")
	}
	t.Skip("no namespaces here")
}

func TestIsolatedExitCode(t *testing.T) {
	needNamespaces(t)
	err := helper(t, "exit").Run()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 7, exit.ExitCode())
}

func TestIsolatedSignal(t *testing.T) {
	needNamespaces(t)
	cmd := helper(t, "wait")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "up true\n", line)
	require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, 128+int(unix.SIGTERM), exit.ExitCode())
}

// TestNothingStays kills the first process, which cannot clean up after that,
// and sees that neither the second one nor its machine is left.
func TestNothingStays(t *testing.T) {
	needNamespaces(t)
	if missing := Missing("qemu-system-x86", "ipxe-qemu"); len(missing) > 0 {
		if os.Getenv("DISKLESS_REQUIRE") == "all" {
			t.Fatal("DISKLESS_REQUIRE=all, but missing: ", missing)
		}
		t.Skip("missing: ", missing)
	}
	cmd := helper(t, "machine")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var pid int
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	_, err = fmt.Sscanf(line, "qemu %d", &pid)
	require.NoError(t, err, line)
	require.True(t, alive(pid))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.Eventually(t, func() bool { return !alive(pid) }, time.Minute, 20*time.Millisecond)
}

// alive says whether a process runs; one that nobody has waited for does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func TestLabStaysAway(t *testing.T) {
	t.Setenv(outside, "")
	require.ErrorIs(t, (&Lab{}).Up(t.Context()), ErrNotIsolated)
}

// up makes a lab, or skips.
func up(t *testing.T) *Lab {
	needNamespaces(t)
	l := &Lab{}
	if err := l.Up(t.Context()); err != nil {
		if os.Getenv("DISKLESS_REQUIRE") == "all" {
			t.Fatal("DISKLESS_REQUIRE=all, but ", err)
		}
		t.Skip(err)
	}
	return l
}

func TestLab(t *testing.T) {
	l := up(t)
	bridge, err := l.Interface()
	require.NoError(t, err)
	before := bridge.HardwareAddr
	tap, err := l.Tap(t.Context())
	require.NoError(t, err)
	other, err := l.Tap(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, tap, other)
	bridge, err = l.Interface()
	require.NoError(t, err)
	require.Equal(t, before, bridge.HardwareAddr, "its address does not change as ports come")
	ln, err := net.Listen("tcp", net.JoinHostPort(l.Addr().String(), "0"))
	require.NoError(t, err)
	ln.Close()
	require.Error(t, (&Lab{}).Up(t.Context()), "a bridge of that name is there")
	bridge, err = l.Interface()
	require.NoError(t, err, "and is left alone")
	require.Equal(t, before, bridge.HardwareAddr)

	require.NoError(t, l.Close())
	for _, name := range []string{l.Name(), tap, other} {
		_, err := net.InterfaceByName(name)
		require.Error(t, err, name)
	}
}

// TestRouter solicits a router and hears the advertisement.
func TestRouter(t *testing.T) {
	l := up(t)
	defer l.Close()
	// A port that is up gives the bridge its carrier.
	tap, err := l.Tap(t.Context())
	require.NoError(t, err)
	f, err := openTap(tap)
	require.NoError(t, err)
	defer f.Close()
	bridge, err := l.Interface()
	require.NoError(t, err)

	conn, err := net.ListenPacket("ip6:ipv6-icmp", "::")
	require.NoError(t, err)
	defer conn.Close()
	p := ipv6.NewPacketConn(conn)
	require.NoError(t, p.SetControlMessage(ipv6.FlagHopLimit, true))
	require.NoError(t, p.SetMulticastLoopback(true))
	require.NoError(t, p.JoinGroup(bridge, &net.IPAddr{IP: net.IPv6linklocalallnodes}))
	require.NoError(t, p.SetMulticastInterface(bridge))
	var only ipv6.ICMPFilter
	only.SetAll(true)
	only.Accept(ipv6.ICMPTypeRouterAdvertisement)
	require.NoError(t, p.SetICMPFilter(&only))
	require.NoError(t, p.SetReadDeadline(time.Now().Add(time.Minute)))

	solicitation := []byte{133, 0, 0, 0, 0, 0, 0, 0}
	_, err = p.WriteTo(solicitation, nil, &net.IPAddr{IP: net.IPv6linklocalallrouters, Zone: bridge.Name})
	require.NoError(t, err)
	var buf [1500]byte
	n, cm, from, err := p.ReadFrom(buf[:])
	require.NoError(t, err)
	require.Equal(t, 16, n)
	require.Equal(t, byte(134), buf[0])
	require.Equal(t, []byte{64, 0, 0, 0}, buf[4:8], "no flags, and no default router")
	require.Equal(t, 255, cm.HopLimit)
	require.Equal(t, "fe80::1%"+bridge.Name, from.String())
}

// openTap is what QEMU does with a tap.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
