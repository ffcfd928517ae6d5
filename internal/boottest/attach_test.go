package boottest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/squash"
)

// Devices that the example nbdattach attaches in a running machine, with one
// connection and with four: what is read and written is right, also when the
// server is cut in the middle of an fsync, or goes and comes back; a server
// that comes back with something else is not taken. Then the same program
// takes over the machine's own root, which nbd-client attached.
func TestAttach(t *testing.T) {
	kernel, initrd := vmtest.Guest(t)
	dir := t.TempDir()
	buildAttach(t, filepath.Join(dir, "nbdattach"))
	marker := random()
	tree, err := guest.Root(marker)
	require.NoError(t, err)
	require.NoError(t, squash.BuildFile(t.Context(), filepath.Join(dir, "root.squashfs"), squash.FromFS(tree), nil))
	web, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	hs := &http.Server{Handler: http.FileServer(http.Dir(dir))}
	go func() { _ = hs.Serve(web) }() // ends with Close
	t.Cleanup(func() { _ = hs.Close() })

	image := filepath.Join(dir, "disk")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 16<<20))
	disk := newBackend(t, nbd.Exports{"disk": nbd.HandlerFunc(func(context.Context, *nbd.Request) (nbd.Device, error) {
		return nbd.OpenFileRW(image)
	})})
	root := newBackend(t, nbd.Exports{"root": nbd.FileServer(filepath.Join(dir, "root.squashfs"))})

	vmtest.Slots(t, 1)
	m := vmtest.Start(t, vm.Machine{
		Name: "attach", User: &vm.User{Hostname: "attach"}, Kernel: kernel.Image, Initrd: initrd,
		Cmdline: vm.KernelArgs + " root=/dev/nbd0 nbdroot=10.0.2.2:" + root.port + "/root ip=dhcp ro overlayroot=tmpfs",
	})
	report := vmtest.Ready(t, m)
	require.Equal(t, marker, report.Marker)
	sh := shell(m)
	_, httpPort, _ := net.SplitHostPort(web.Addr().String())
	vmtest.Do(t, sh, "exec wget -q -O /tmp/nbdattach http://10.0.2.2:"+httpPort+"/nbdattach && chmod 755 /tmp/nbdattach")
	// sum is what the guest reads, a while later.
	sum := func(offset int) <-chan string {
		out := make(chan string, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), vm.BootTimeout)
			defer cancel()
			s, err := sh.Do(ctx, fmt.Sprintf("exec dd if=/dev/nbd1 bs=1M count=1 skip=%d 2>/dev/null | sha256sum", offset))
			if err != nil {
				s = err.Error()
			}
			out <- strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), "-"))
		}()
		return out
	}
	put := func(offset int) string {
		data := bytes.Repeat([]byte(random()), 1<<20/16)
		f, err := os.OpenFile(image, os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteAt(data, int64(offset)<<20)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		return hash(data)
	}

	for _, conns := range []int{1, 4} {
		want := put(0)
		require.Equal(t, "/dev/nbd1\n", vmtest.Do(t, sh, fmt.Sprintf(
			"exec /tmp/nbdattach 10.0.2.2 -N disk %s -C %d -t 2 -persist -systemd-mark", disk.port, conns)))
		require.Equal(t, conns, disk.opened())
		require.Equal(t, want, <-sum(0))

		// An fsync is at the server when that is cut, without an answer.
		vmtest.Do(t, sh, "exec cp /srv/data/1048576 /tmp/new && echo $$ >>/tmp/new")
		reached, release := disk.holdFlush()
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), vm.BootTimeout)
			defer cancel()
			_, err := sh.Do(ctx, "exec dd if=/tmp/new of=/dev/nbd1 bs=1M seek=4 conv=fsync")
			done <- err
		}()
		<-reached
		disk.cut()
		release()
		disk.serve()
		require.NoError(t, <-done)
		content := vmtest.Do(t, sh, "exec sha256sum /tmp/new; wc -c </tmp/new")
		var size int
		var digest string
		_, err := fmt.Sscanf(content, "%s /tmp/new\n%d", &digest, &size)
		require.NoError(t, err)
		onDisk, err := os.ReadFile(image)
		require.NoError(t, err)
		require.Equal(t, digest, hash(onDisk[4<<20:][:size]), "what was synced is on the server")

		// The server goes in good order, and something is read while it is away.
		want = put(8 + conns)
		disk.shutdown()
		got := sum(8 + conns)
		disk.serve()
		require.Equal(t, want, <-got)

		vmtest.Do(t, sh, "exec kill $(grep -l nbdattach /proc/[0-9]*/comm | cut -d/ -f3) && while [ -e /sys/block/nbd1/pid ]; do usleep 50000; done")
		disk.requireLeft(t)
	}

	// The same name, but another size: not a byte of it is taken.
	vmtest.Do(t, sh, "exec /tmp/nbdattach 10.0.2.2 "+disk.port+" nbd1 -N disk -t 2")
	disk.shutdown()
	got := sum(1)
	require.NoError(t, os.Truncate(image, 17<<20))
	disk.serve()
	require.Equal(t, hash(nil), <-got, "nothing but an error comes")
	vmtest.Do(t, sh, "exec while [ -e /sys/block/nbd1/pid ]; do usleep 50000; done; dmesg | grep 'not the same as before'")

	// The root, attached by nbd-client, which is not there any more.
	vmtest.Do(t, sh, "exec /tmp/nbdattach -adopt 10.0.2.2 -N root -t 2 "+root.port+" /dev/nbd0")
	vmtest.Do(t, sh, "drop")
	for _, stop := range []func(){root.shutdown, root.cut} {
		stop()
		sums := make(chan string, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), vm.BootTimeout)
			defer cancel()
			s, err := sh.Do(ctx, "sha")
			sums <- fmt.Sprint(s, err)
		}()
		root.serve()
		require.Regexp(t, `^ok \d+\n<nil>$`, <-sums)
		vmtest.Do(t, sh, "drop")
	}
}

// buildAttach builds the example as its documentation says.
func buildAttach(t *testing.T, out string) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		vmtest.Skip(t, "no go command: %v", err)
	}
	cmd := exec.Command("go", "build", "-ldflags=-s", "-o", out, "github.com/seed-3ec230fa/diskless/examples/nbdattach")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, string(said))
}

// backend is a server on a port of this host, that can stop and come back.
type backend struct {
	t       *testing.T
	handler nbd.Handler
	port    string

	mu     sync.Mutex
	srv    *nbd.Server
	count  int // connections to the export, so far
	causes []error
	flush  chan struct{} // is sent to when a flush has come
	free   chan struct{} // what a flush waits for
}

func newBackend(t *testing.T, h nbd.Handler) *backend {
	b := &backend{t: t, handler: h, port: "0"}
	b.serve()
	t.Cleanup(b.cut)
	return b
}

func (b *backend) serve() {
	l, err := net.Listen("tcp", "127.0.0.1:"+b.port)
	require.NoError(b.t, err)
	_, b.port, _ = net.SplitHostPort(l.Addr().String())
	srv := &nbd.Server{
		Handler: nbd.Filtered(b.handler, func(d nbd.Device) nbd.Device { return &held{nbd.Pass{Device: d}, b} }), Handover: true,
		Trace: &nbd.Trace{
			ExportOpened: func(nbd.ConnInfo, nbd.OpenInfo) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.count++
			},
			ConnClosed: func(_ nbd.ConnInfo, _ nbd.ConnStats, cause error) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.causes = append(b.causes, cause)
			},
		},
	}
	b.mu.Lock()
	b.srv = srv
	b.count, b.causes = 0, nil
	b.mu.Unlock()
	go func() { _ = srv.Serve(l) }() // ends with the server
}

// cut ends all connections without an answer, as the end of a process does.
func (b *backend) cut() {
	_ = b.srv.Close()
}

// shutdown is what a server does that is asked to end.
func (b *backend) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), vm.BootTimeout)
	defer cancel()
	require.NoError(b.t, b.srv.Shutdown(ctx))
}

func (b *backend) opened() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

// requireLeft asserts that the connections ended with the client's leave.
func (b *backend) requireLeft(t *testing.T) {
	t.Helper()
	b.shutdown()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.NotEmpty(t, b.causes)
	for _, cause := range b.causes {
		require.NoError(t, cause)
	}
	b.mu.Unlock()
	b.serve()
	b.mu.Lock()
}

// holdFlush holds the next flush: reached is sent to when it has come, and it
// goes on with release.
func (b *backend) holdFlush() (reached <-chan struct{}, release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flush, b.free = make(chan struct{}, 1), make(chan struct{})
	return b.flush, sync.OnceFunc(func() { close(b.free) })
}

// held is a device whose flushes holdFlush holds.
type held struct {
	nbd.Pass
	b *backend
}

func (d *held) Sync() error {
	d.b.mu.Lock()
	flush, free := d.b.flush, d.b.free
	d.b.flush = nil
	d.b.mu.Unlock()
	if flush != nil {
		flush <- struct{}{}
		<-free
	}
	return d.Pass.Sync()
}

func hash(p []byte) string {
	h := sha256.Sum256(p)
	return hex.EncodeToString(h[:])
}
