package boottest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/app"
	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// The stock initramfs of Debian and of dracut, with the example nbdattach
// loaded behind it in the place of nbd-client: the root stays when the server
// is asked to end and started again, and when it is killed. With caches
// dropped a file is read that was never read before, and an fsync that was
// under way is completed by the server that comes after.
func TestRestartUnderStockInitramfs(t *testing.T) {
	tools, dracut := vmtest.Stock(t, guest.InitramfsTools), vmtest.Stock(t, guest.Dracut)
	a, lineA := machine("stays01", "entry: tools")
	b, lineB := machine("stays02", "entry: dracut")
	s := makeSite(t)
	buildAttach(t, s.path("nbdattach"))
	program, err := os.ReadFile(s.path("nbdattach"))
	require.NoError(t, err)
	var added bytes.Buffer
	require.NoError(t, guest.AddFile(&added, "sbin/nbd-client", program))
	require.NoError(t, os.WriteFile(s.path("boot/nbdattach.img"), added.Bytes(), 0o644))
	for name, stock := range map[string]*guest.Stock{"tools": tools, "dracut": dracut} {
		require.NoError(t, os.Mkdir(s.path("boot/"+name), 0o755))
		s.copy(stock.Image, "boot/"+name+"/vmlinuz")
		s.copy(stock.Initrd, "boot/"+name+"/initrd")
	}
	file := s.configure(common + `  - {name: tools, kernel: tools/vmlinuz, initrd: [tools/initrd, nbdattach.img], image: disk, root: kept, args: [NBDATTACH=-t=2, KERNELARGS]}
  - {name: dracut, kernel: dracut/vmlinuz, initrd: [dracut/initrd, nbdattach.img], image: disk, root: ephemeral, initramfs: dracut, args: [NBDATTACH=-t=2, KERNELARGS]}
machines:
` + lineA + lineB)
	server := s.process(file)
	vmtest.Slots(t, 2)
	machines := []*vm.Running{s.start(a), s.start(b)}
	for _, r := range machines {
		s.boot(r, r.Machine())
	}

	restart := map[string]func(){
		"asked to end": func() {
			server.signal(syscall.SIGTERM)
			server.signal(syscall.SIGCONT)
		},
		"killed": func() { server.signal(syscall.SIGKILL) },
	}
	for _, how := range []string{"asked to end", "killed"} {
		// The server stands still, an fsync waits for it in each machine.
		var answers []<-chan error
		for _, r := range machines {
			vmtest.Do(t, shell(r), "sync")
			vmtest.Do(t, shell(r), "exec cp /srv/data/1048576 /run/new && cat /proc/sys/kernel/random/uuid >>/run/new")
		}
		server.signal(syscall.SIGSTOP)
		for _, r := range machines {
			vmtest.Do(t, shell(r), "exec (dd if=/run/new of=/var/new bs=1M conv=fsync; echo $? >/run/synced) >/dev/null 2>&1 &")
			vmtest.Do(t, shell(r), "exec until awk '{ exit $1 + $2 == 0 }' /sys/block/nbd0/inflight; do usleep 50000; done")
		}
		restart[how]()
		server.wait()
		for _, r := range machines {
			answers = append(answers, ask(r, "exec until [ -e /run/synced ]; do usleep 50000; done; read rc </run/synced; rm /run/synced; exit $rc"))
		}
		server = s.process(file)
		for i, answer := range answers {
			require.NoError(t, <-answer, "%s, %s: the fsync", machines[i].Machine().Name, how)
		}
		for _, r := range machines {
			vmtest.Do(t, shell(r), "drop")
			vmtest.Do(t, shell(r), "exec cmp /run/new /var/new")
		}
	}

	// Nobody has read this file so far.
	server.signal(syscall.SIGKILL)
	server.wait()
	var answers []<-chan error
	for _, r := range machines {
		answers = append(answers, ask(r, "exec echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /etc/unread.sha256"))
	}
	server = s.process(file)
	for i, answer := range answers {
		require.NoError(t, <-answer, machines[i].Machine().Name)
	}
	for _, r := range machines {
		log := vmtest.Do(t, shell(r), "exec dmesg | grep -e nbd -e error")
		require.Contains(t, log, "a connection is replaced")
		require.NotContains(t, log, "I/O error")
	}
}

// ask has a command run in a machine, and its end told later.
func ask(r *vm.Running, command string) <-chan error {
	out := make(chan error, 1)
	go func() { // ends with the answer, or the machine
		ctx, cancel := context.WithTimeout(context.Background(), vm.BootTimeout)
		defer cancel()
		_, err := shell(r).Do(ctx, command)
		out <- err
	}()
	return out
}

// process is the server in a process of its own, which can be killed.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
}

// serveEnv has this test's program be that server; it is the configuration.
const serveEnv = "DISKLESS_TEST_SERVE"

// process starts the server, and returns when it serves.
func (s *site) process(file string) *process {
	self, err := os.Executable()
	require.NoError(s.t, err)
	p := &process{s.t, exec.Command(self)}
	p.cmd.Env = append(os.Environ(), serveEnv+"="+file)
	p.cmd.Stderr = s
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, p.cmd.Start())
	s.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_, _ = p.cmd.Process.Wait()
		if s.t.Failed() {
			s.t.Logf("the log of server %d and those before:\n%s", p.cmd.Process.Pid, s.logged())
		}
	})
	said, err := io.ReadAll(out)
	require.NoError(s.t, err)
	require.Equal(s.t, "ready", string(said), "%s", s.logged())
	return p
}

func (p *process) signal(sig syscall.Signal) { require.NoError(p.t, p.cmd.Process.Signal(sig)) }

func (p *process) wait() { _ = p.cmd.Wait() }

// serveFile is the server's main function.
func serveFile(file string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := config.Load(file)
	if err == nil {
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		var a *app.App
		if a, err = app.New(ctx, cfg, log); err == nil {
			a.Ready = func() {
				_, _ = os.Stdout.WriteString("ready")
				_ = os.Stdout.Close()
			}
			err = a.Run(ctx, app.Sockets{})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
