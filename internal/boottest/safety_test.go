package boottest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/app"
	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// Where another DHCP server answers, ours does not start, unless it is told to.
func TestAnotherDHCPServer(t *testing.T) {
	lab := vmtest.Lab(t)
	stranger(t, lab)

	configure := func(policy string) *config.Config {
		c, err := config.New(config.Config{
			Server: config.Server{Address: config.Addr{Addr: lab.Addr()}},
			DHCP: &config.DHCP{Interface: lab.Name(), Subnet: config.Prefix{Prefix: lab.Network().Masked()},
				Ranges: []config.Range{{From: lab.Addr().Next(), To: lab.Addr().Next()}}, OtherServer: policy},
		})
		require.NoError(t, err)
		return c
	}
	run := func(policy string) (started bool, log string, err error) {
		var out bytes.Buffer
		a, err := app.New(t.Context(), configure(policy), slog.New(slog.NewTextHandler(&out, nil)))
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		a.Ready = func() { started = true; cancel() }
		err = a.Run(ctx, app.Sockets{})
		return started, out.String(), err
	}
	started, _, err := run("refuse")
	require.False(t, started)
	require.ErrorContains(t, err, "another server answers on "+lab.Name()+": 192.168.67.77")
	require.ErrorContains(t, err, "dhcp.enabled: false", "it says how to run beside it")

	started, log, err := run("ignore")
	require.NoError(t, err)
	require.True(t, started)
	require.Contains(t, log, "192.168.67.77")
}

// stranger runs dnsmasq as a machine of its own on the lab's network.
func stranger(t *testing.T, lab *vm.Lab, more ...string) {
	t.Helper()
	vmtest.Need(t, "dnsmasq-base", "iproute2")
	host := exec.Command("sleep", "600")
	host.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, host.Start())
	t.Cleanup(func() {
		_ = host.Process.Kill()
		_ = host.Wait()
	})
	pid := strconv.Itoa(host.Process.Pid)
	inside := []string{"nsenter", "-t", pid, "-n"}
	for _, args := range [][]string{
		{"ip", "link", "add", "other0", "type", "veth", "peer", "name", "eth0", "netns", pid},
		{"ip", "link", "set", "other0", "master", lab.Name(), "up"},
		append(inside, "ip", "addr", "add", "192.168.67.77/24", "dev", "eth0"),
		append(inside, "ip", "link", "set", "eth0", "up"),
	} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		require.NoError(t, err, "%q: %s", args, out)
	}
	dnsmasq := exec.Command("nsenter", append([]string{"-t", pid, "-n", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root",
		"--log-facility=-", "--interface=eth0", "--bind-interfaces", "--leasefile-ro", "--no-ping", "--dhcp-range=192.168.67.80,192.168.67.90,1h"}, more...)...)
	dnsmasq.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	dnsmasq.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	dnsmasq.Stdout, dnsmasq.Stderr = &said, &said
	require.NoError(t, dnsmasq.Start())
	t.Cleanup(func() {
		_ = dnsmasq.Process.Kill()
		_ = dnsmasq.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	// It has the port once it holds it in its namespace.
	require.Eventually(t, func() bool {
		table, _ := os.ReadFile(fmt.Sprintf("/proc/%s/net/udp", pid))
		return bytes.Contains(table, []byte(":0043 "))
	}, 30*time.Second, 20*time.Millisecond)
	_, err := net.InterfaceByName("other0")
	require.NoError(t, err)
}
