package boottest

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/etcdtest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// Two servers give addresses of one subnet, with their leases in etcd. The one
// that the ROM got its address from is killed as soon as it has sent the ACK:
// the machine boots on, and has one address from the ROM to the system.
func TestServerDiesInTheMiddleOfABoot(t *testing.T) {
	m, line := machine("survivor", "entry: desk")
	m.Client = vm.PlainPXE
	vmtest.Need(t, "iproute2")
	s := makeSite(t)
	s.serve(strings.Replace(common, "dhcp: {", "dhcp: {enabled: false, ", 1) + "machines:\n" + line)
	etcd := etcdtest.StartAt(t, s.lab.Addr().String())
	vmtest.Slots(t, 1)

	w := &acks{site: s, machine: m.HardwareAddr().String()}
	for n := range 2 {
		self, other := s.lab.Addr().Next(), s.lab.Addr().Next().Next()
		if n == 1 {
			self, other = other, self
		}
		file := s.path(fmt.Sprintf("dhcp%d.yaml", n))
		text := strings.NewReplacer("SELF", self.String(), "OTHER", other.String(), "ADDR", s.lab.Addr().String(), "ETCD", etcd.URLs()[0],
			"NET", s.lab.Network().Masked().String(), "RANGE", strings.TrimSuffix(s.lab.Network().Masked().Addr().String(), "0")).Replace(`
server: {address: SELF}
dhcp:
  interface: eth0
  subnet: NET
  ranges: [RANGE100-RANGE150]
  etcd: {endpoints: ["ETCD"], name: dhcp-SELF, servers: [OTHER]}
tftp: {enabled: false, address: ADDR}
http: {enabled: false, url: "http://ADDR:8080"}
entries:
  - {name: desk, kernel: vmlinuz}
machines:
` + line)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		w.start(n, s.neighbour(n, self), file)
	}

	r := s.start(m)
	s.boot(r, m)
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Log("ACKs:", w.seen)
	require.GreaterOrEqual(t, len(w.seen), 2, "the ROM and the initramfs ask")
	for _, a := range w.seen[1:] {
		require.NotEqual(t, w.seen[0].server, a.server, "the first one is dead")
		require.Equal(t, w.seen[0].addr, a.addr)
	}
}

// acks is what the machine was granted, by which of the servers.
type acks struct {
	site    *site
	machine string

	mu        sync.Mutex
	processes [2]*exec.Cmd
	seen      []ack
}

type ack struct {
	server int
	addr   string
}

// start runs a server with that configuration, and returns when it serves.
func (w *acks) start(n int, inside []string, file string) {
	t := w.site.t
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(inside[0], append(inside[1:], self)...)
	cmd.Env = append(os.Environ(), serveEnv+"="+file)
	cmd.Stderr = &ackWriter{w, n, ""}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	w.mu.Lock()
	w.processes[n] = cmd
	w.mu.Unlock()
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	said := make([]byte, len("ready"))
	_, err = out.Read(said)
	require.NoError(t, err, "%s", w.site.logged())
	require.Equal(t, "ready", string(said))
}

// ackWriter takes a server's log.
type ackWriter struct {
	w    *acks
	n    int
	line string // that is not whole yet
}

var ackLine = regexp.MustCompile(`reply=ACK mac=(\S+) addr=(\S+)`)

func (a *ackWriter) Write(p []byte) (int, error) {
	a.line += string(p)
	for {
		line, rest, whole := strings.Cut(a.line, "\n")
		if !whole {
			return len(p), nil
		}
		a.line = rest
		fmt.Fprintf(a.w.site, "dhcp%d: %s\n", a.n, line)
		if f := ackLine.FindStringSubmatch(line); f != nil && f[1] == a.w.machine {
			a.w.mu.Lock()
			if a.w.seen = append(a.w.seen, ack{a.n, f[2]}); len(a.w.seen) == 1 {
				_ = a.w.processes[a.n].Process.Kill()
			}
			a.w.mu.Unlock()
		}
	}
}

// neighbour makes a host in the network, eth0 being its interface, and returns
// the command that runs others there.
func (s *site) neighbour(n int, addr netip.Addr) (inside []string) {
	t := s.t
	host := exec.Command("sleep", "600")
	host.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, host.Start())
	t.Cleanup(func() {
		_ = host.Process.Kill()
		_ = host.Wait()
	})
	pid, link := strconv.Itoa(host.Process.Pid), fmt.Sprintf("host%d", n)
	inside = []string{"nsenter", "-t", pid, "-n"}
	for _, args := range [][]string{
		{"ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pid},
		{"ip", "link", "set", link, "master", s.lab.Name(), "up"},
		append(inside, "ip", "addr", "add", fmt.Sprintf("%s/%d", addr, s.lab.Network().Bits()), "dev", "eth0"),
		append(inside, "ip", "link", "set", "eth0", "up"),
	} {
		require.Eventually(t, func() bool { // the namespace is made after the process
			out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			if err != nil {
				t.Logf("%q: %s", args, out)
			}
			return err == nil
		}, 10*time.Second, 100*time.Millisecond)
	}
	return inside
}
