package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestAcrossALink runs in a network of its own, which it enters by starting
// itself again: an Ethernet of two ends, the server's with two addresses, and
// port 69.
func TestAcrossALink(t *testing.T) {
	const inside = "TFTP_TEST_NAMESPACE"
	if os.Getenv(inside) != "" {
		testLink(t)
		return
	}
	need(t, "ip", "nsenter", "curl", "busybox")
	cmd := exec.Command(os.Args[0], "-test.run=^TestAcrossALink$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		cannot(t, "this user may not make network namespaces")
	}
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestAcrossALink")
}

func testLink(t *testing.T) {
	sh := func(line string) {
		t.Helper()
		out, err := exec.Command("sh", "-ec", line).CombinedOutput()
		require.NoError(t, err, "%s: %s", line, out)
	}
	// The other end lives in the namespace of a process that does nothing.
	far := exec.Command("sleep", "300")
	far.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is about this thread
	defer runtime.UnlockOSThread()
	require.NoError(t, far.Start())
	defer func() { far.Process.Kill(); far.Wait() }()
	pid := strconv.Itoa(far.Process.Pid)
	there := "nsenter -n -t " + pid + " "
	sh("ip link set lo up; ip link add v0 index 7 type veth peer name v1 index 7 netns " + pid)
	sh("ip link set v0 addrgenmode none; ip addr add 192.0.2.1/24 brd + dev v0; ip addr add 192.0.2.2/24 brd + dev v0; ip link set v0 up; ip addr add fe80::1/64 dev v0 nodad")
	sh(there + "ip link set v1 addrgenmode none;" + there + "ip addr add 192.0.2.10/24 brd + dev v1;" + there + "ip link set v1 up;" + there + "ip addr add fe80::2/64 dev v1 nodad;" + there + "ip route add default dev v1")

	file := content(100_000)
	var res results
	s := &Server{Handler: FileServerFS(fstest.MapFS{"f": {Data: file}}), Trace: res.trace(), Logger: discard()}
	ended := make(chan error, 1)
	go func() { ended <- s.ListenAndServe() }()
	defer func() {
		require.NoError(t, s.Shutdown(context.Background()))
		require.ErrorIs(t, <-ended, ErrServerClosed)
	}()

	// A client on the other end sees whom it is answered by.
	client := func(network string) *wire {
		w := &wire{t: t, conn: listenIn(t, pid, network)}
		t.Cleanup(func() { w.conn.Close() })
		return w
	}
	w := client("udp4")
	for { // until it listens
		w.send(netip.MustParseAddrPort("192.0.2.1:69"), request(1, "none", "octet"))
		require.NoError(t, w.conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		if _, err := w.conn.Read(make([]byte, 100)); err == nil {
			break
		}
	}
	for _, c := range []struct {
		network, server string
		block           int
	}{
		{"udp4", "192.0.2.1", 1500 - 20 - 8 - 4},
		{"udp4", "192.0.2.2", 1500 - 20 - 8 - 4},
		{"udp6", "fe80::1%7", 1500 - 40 - 8 - 4},
	} {
		asked := netip.AddrPortFrom(netip.MustParseAddr(c.server), 69)
		w = client(c.network)
		w.send(asked, request(1, "f", "octet", "tsize", "0", "blksize", "8192"))
		op, _, oack := w.recv()
		require.EqualValues(t, 6, op)
		require.Contains(t, string(oack), fmt.Sprintf("blksize\x00%d\x00", c.block))
		require.Equal(t, asked.Addr().WithZone(""), w.tid.Addr().WithZone(""), "the answer comes from the address asked")
		w.ack(0)
		require.True(t, bytes.Equal(file, w.rest(1, c.block)))
		w = client(c.network)
		w.send(asked, request(1, "none", "octet"))
		w.fail(CodeNotFound, "file not found")
		require.Equal(t, asked.Addr().WithZone(""), w.tid.Addr().WithZone(""))
	}

	dir := t.TempDir()
	for i, client := range []string{
		"curl -sS --max-time 60 --tftp-blksize 8192 -o %s tftp://192.0.2.1/f",
		"curl -sS --max-time 60 --tftp-blksize 8192 -o %s tftp://192.0.2.2/f",
		"curl -sS --max-time 60 --tftp-blksize 8192 -o %s tftp://[fe80::1%%25v1]/f",
		"busybox tftp -b 8192 -g -r f -l %s 192.0.2.1",
		"busybox tftp -b 8192 -g -r f -l %s 192.0.2.2",
	} {
		got := filepath.Join(dir, strconv.Itoa(i))
		sh(there + fmt.Sprintf(client, got))
		b, err := os.ReadFile(got)
		require.NoError(t, err)
		require.True(t, bytes.Equal(file, b), client)
	}
	snmp, err := os.ReadFile("/proc/thread-self/net/snmp")
	require.NoError(t, err)
	require.Equal(t, "0", snmpValue(t, string(snmp), "Ip:", "FragCreates"), "no packet was fragmented")

	// A request to everybody is for nobody, and the server goes on.
	w = client("udp4")
	for _, everybody := range []string{"192.0.2.255:69", "255.255.255.255:69"} {
		w.send(netip.MustParseAddrPort(everybody), request(1, "none", "octet"))
	}
	w.send(netip.MustParseAddrPort("192.0.2.1:69"), request(1, "none", "octet", "x", "y"))
	w.fail(CodeNotFound, "file not found")
	require.NoError(t, w.conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	_, err = w.conn.Read(make([]byte, 100))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

// listenIn opens a UDP socket in the network namespace of a process.
func listenIn(t *testing.T, pid, network string) *net.UDPConn {
	t.Helper()
	type result struct {
		conn *net.UDPConn
		err  error
	}
	c := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		fd, err := unix.Open("/proc/"+pid+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(fd)
			err = unix.Setns(fd, unix.CLONE_NEWNET)
		}
		var conn *net.UDPConn
		if err == nil {
			conn, err = net.ListenUDP(network, nil)
		}
		c <- result{conn, err}
	}()
	r := <-c
	require.NoError(t, r.err)
	return r.conn
}

// snmpValue finds a counter in /proc/net/snmp.
func snmpValue(t *testing.T, text, proto, name string) string {
	t.Helper()
	var rows [][]string
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == proto {
			rows = append(rows, f)
		}
	}
	require.Len(t, rows, 2)
	for i, n := range rows[0] {
		if n == name {
			return rows[1][i]
		}
	}
	t.Fatalf("no counter %s", name)
	return ""
}
