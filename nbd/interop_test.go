package nbd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pojntfx/go-nbd/pkg/backend"
	goserver "github.com/pojntfx/go-nbd/pkg/server"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

func run(t testing.TB, tool string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %v\n%s", tool, args, out)
	return string(out)
}

// image serves a file of an odd size read-only as "image", and a writable copy
// of it as "disk".
func image(t *testing.T) (addr, path, disk string, content []byte) {
	content = pattern(9<<20 + 512)
	copy(content[1<<20:], make([]byte, 3<<20))
	path, disk = tempFile(t, content), tempFile(t, content)
	addr = nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: nbd.Exports{
		"image": nbd.FileServer(path),
		"disk": nbd.HandlerFunc(func(context.Context, *nbd.Request) (nbd.Device, error) {
			return nbd.OpenFileRW(disk)
		}),
	}})
	return addr, path, disk, content
}

func TestNbdinfo(t *testing.T) {
	tool := needTool(t, "nbdinfo")
	addr, _, _, content := image(t)
	type export struct {
		Name     string `json:"export-name"`
		Size     int    `json:"export-size"`
		ReadOnly bool   `json:"is_read_only"`
		Flush    bool   `json:"can_flush"`
		FUA      bool   `json:"can_fua"`
		Multi    bool   `json:"can_multi_conn"`
		Min      int    `json:"block_size_minimum"`
		Max      int    `json:"block_size_maximum"`
	}
	var got struct {
		Protocol string
		Exports  []export
	}
	show := func(args ...string) []export {
		got.Exports = nil
		require.NoError(t, json.Unmarshal([]byte(run(t, tool, append(args, "--json")...)), &got))
		require.Equal(t, "newstyle-fixed", got.Protocol)
		return got.Exports
	}
	ro := export{"image", len(content), true, false, false, true, 1, 32 << 20}
	rw := export{"disk", len(content), false, true, true, true, 1, 32 << 20}
	require.Equal(t, []export{ro}, show("nbd://"+addr+"/image"))
	require.Equal(t, []export{rw}, show("nbd://"+addr+"/disk"))
	require.Equal(t, []export{rw, ro}, show("nbd://"+addr, "--list"))

	out, err := exec.Command(tool, "nbd://"+addr+"/none").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "No such file or directory for export")
}

func TestNbdcopy(t *testing.T) {
	tool := needTool(t, "nbdcopy")
	addr, _, disk, content := image(t)
	for _, args := range [][]string{{}, {"--connections=4", "--request-size=1048576"}, {"--synchronous"}, {"--request-size=4096"}} {
		out := filepath.Join(t.TempDir(), "copy")
		run(t, tool, append(args, "nbd://"+addr+"/image", out)...)
		got, err := os.ReadFile(out)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, got), "%v", args)
	}
	other := pattern(len(content) + 1)[1:]
	run(t, tool, "--flush", tempFile(t, other), "nbd://"+addr+"/disk")
	got, err := os.ReadFile(disk)
	require.NoError(t, err)
	require.True(t, bytes.Equal(other, got))
}

func TestQemu(t *testing.T) {
	tool := needTool(t, "qemu-img", "qemu-io")
	addr, path, disk, content := image(t)
	url := "nbd://" + addr
	run(t, tool, "compare", "-f", "raw", "-F", "raw", path, url+"/image")
	require.Contains(t, run(t, tool, "info", url+"/disk"), fmt.Sprintf("(%d bytes)", len(content)))
	run(t, tool, "convert", "-n", "-O", "raw", url+"/image", url+"/disk")

	io := needTool(t, "qemu-io")
	out := run(t, io, "-f", "raw", "-t", "writeback", url+"/disk",
		"-c", "write -P 0x11 0 64k", "-c", "write -P 0x22 1000 3000", "-c", "write -f -P 0x33 1048577 2M", "-c", "flush",
		"-c", "aio_write -P 0x44 4M 1M", "-c", "aio_read -P 0x33 1048577 2M", "-c", "aio_flush",
		"-c", "read -P 0x11 0 1000", "-c", "read -P 0x22 1000 3000", "-c", "read -P 0x11 4000 60k", "-c", "read -P 0x44 4M 1M")
	require.NotContains(t, strings.ToLower(out), "fail")
	copy(content, bytes.Repeat([]byte{0x11}, 64<<10))
	copy(content[1000:], bytes.Repeat([]byte{0x22}, 3000))
	copy(content[1048577:], bytes.Repeat([]byte{0x33}, 2<<20))
	copy(content[4<<20:], bytes.Repeat([]byte{0x44}, 1<<20))
	got, err := os.ReadFile(disk)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
	run(t, tool, "compare", "-f", "raw", "-F", "raw", disk, url+"/disk")
}

// Two overlays over one image, through the tools: each has its own writes, the
// image keeps its bytes.
func TestOverlaysThroughTools(t *testing.T) {
	tool := needTool(t, "qemu-io", "qemu-img", "nbdcopy")
	content := pattern(5<<20 + 512)
	path := tempFile(t, content)
	base, err := nbd.OpenFile(path)
	require.NoError(t, err)
	defer base.Close()
	a := nbd.NewOverlay(base)
	b, err := nbd.OpenOverlay(base, filepath.Join(t.TempDir(), "b"), "base")
	require.NoError(t, err)
	defer b.Close()
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: nbd.Exports{"a": nbd.Share(a), "b": nbd.Share(b)}})

	want := map[string][]byte{}
	for name, fill := range map[string]byte{"a": 0x61, "b": 0x62} {
		url := "nbd://" + addr + "/" + name
		run(t, needTool(t, "qemu-img"), "compare", "-f", "raw", "-F", "raw", path, url)
		run(t, tool, "-f", "raw", "-t", "writeback", url, "-c", fmt.Sprintf("write -P %d 1000 5000", fill),
			"-c", fmt.Sprintf("write -f -P %d 3M 1M", fill), "-c", "flush")
		want[name] = bytes.Clone(content)
		copy(want[name][1000:], bytes.Repeat([]byte{fill}, 5000))
		copy(want[name][3<<20:], bytes.Repeat([]byte{fill}, 1<<20))
	}
	for name, content := range want {
		out := filepath.Join(t.TempDir(), "copy")
		run(t, needTool(t, "nbdcopy"), "--connections=4", "nbd://"+addr+"/"+name, out)
		got, err := os.ReadFile(out)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, got), name)
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
}

// nbdkit's nbd plugin as a client, with its checks of what a server says.
func TestNbdkitAsClient(t *testing.T) {
	tool := needTool(t, "nbdkit", "nbdinfo", "nbdcopy")
	addr, _, _, content := image(t)
	dir := t.TempDir()
	sock, out := filepath.Join(dir, "s"), filepath.Join(dir, "copy")
	run(t, tool, "-U", sock, "nbd", "uri=nbd://"+addr+"/image", "--run",
		"nbdinfo 'nbd+unix://?socket="+sock+"' && nbdcopy 'nbd+unix://?socket="+sock+"' "+out)
	got, err := os.ReadFile(out)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
}

func TestNbdClientList(t *testing.T) {
	tool := needTool(t, "nbd-client")
	addr, _, _, _ := image(t)
	host, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	out := run(t, tool, "-l", host, port)
	require.Contains(t, out, "\ndisk\n")
	require.Contains(t, out, "\nimage\n")
}

// Our client against the servers there are.
func TestClientAgainstPeers(t *testing.T) {
	content := pattern(3 << 20)
	test := func(t *testing.T, network, addr, export string) {
		var c *nbd.Client
		require.Eventually(t, func() (ok bool) {
			var err error
			c, err = nbd.Dial(t.Context(), network, addr, export)
			return err == nil
		}, 30*time.Second, 10*time.Millisecond)
		defer c.Close()
		nbdtest.TestDevice(t, readOnly{c}, content)
		if c.Features().Write {
			_, err := c.WriteAt([]byte("hello"), 511)
			require.NoError(t, err)
			require.NoError(t, c.Sync())
			p := make([]byte, 7)
			_, err = c.ReadAt(p, 510)
			require.NoError(t, err)
			require.Equal(t, "hello", string(p[1:6]))
		}
	}
	start := func(t *testing.T, tool string, args ...string) {
		cmd := exec.Command(needTool(t, tool), args...)
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	t.Run("nbdkit", func(t *testing.T) {
		sock := filepath.Join(t.TempDir(), "s")
		start(t, "nbdkit", "-f", "-U", sock, "file", tempFile(t, content))
		test(t, "unix", sock, "")
	})
	t.Run("nbdkit oldstyle", func(t *testing.T) {
		sock := filepath.Join(t.TempDir(), "s")
		start(t, "nbdkit", "-f", "-o", "-U", sock, "file", tempFile(t, content))
		require.Eventually(t, func() bool {
			_, err := nbd.Dial(t.Context(), "unix", sock, "")
			return err != nil && strings.Contains(err.Error(), "newstyle")
		}, 30*time.Second, 10*time.Millisecond)
	})
	t.Run("qemu-nbd", func(t *testing.T) {
		sock := filepath.Join(t.TempDir(), "s")
		start(t, "qemu-nbd", "-t", "-f", "raw", "-x", "disk", "-k", sock, tempFile(t, content))
		test(t, "unix", sock, "disk")
	})
	t.Run("nbd-server", func(t *testing.T) {
		conf := filepath.Join(t.TempDir(), "conf")
		l := listen(t)
		host, port, err := net.SplitHostPort(l.Addr().String())
		require.NoError(t, err)
		l.Close()
		require.NoError(t, os.WriteFile(conf, []byte(fmt.Sprintf(
			"[generic]\nlistenaddr = %s\nport = %s\nallowlist = true\n[disk]\nexportname = %s\nflush = true\n", host, port, tempFile(t, content))), 0o600))
		start(t, "nbd-server", "-d", "-C", conf)
		test(t, "tcp", net.JoinHostPort(host, port), "disk")
	})
	t.Run("go-nbd", func(t *testing.T) {
		f, err := os.OpenFile(tempFile(t, content), os.O_RDWR, 0)
		require.NoError(t, err)
		defer f.Close()
		near, far := net.Pipe()
		ended := make(chan error, 1)
		go func() {
			ended <- goserver.Handle(far, []*goserver.Export{{Name: "disk", Backend: backend.NewFileBackend(f)}},
				&goserver.Options{SupportsMultiConn: true})
		}()
		c, err := nbd.NewClient(t.Context(), near, "disk")
		require.NoError(t, err)
		nbdtest.TestDevice(t, readOnly{c}, content)
		require.NoError(t, c.Close())
		<-ended
	})
}

// readOnly hides that a device can be written: peers do not all check bounds.
type readOnly struct{ nbd.Device }

func (readOnly) Features() nbd.Features { return nbd.Features{} }
