//go:build unix

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
	"syscall"
	"testing"
	"time"

	"github.com/pojntfx/go-nbd/pkg/backend"
	goserver "github.com/pojntfx/go-nbd/pkg/server"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

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

func openRW(path string) nbd.Handler {
	return nbd.HandlerFunc(func(context.Context, *nbd.Request) (nbd.Device, error) { return nbd.OpenFileRW(path) })
}

// allocated is how many bytes of a file have space.
func allocated(t *testing.T, path string) int64 {
	st, err := os.Stat(path)
	require.NoError(t, err)
	return st.Sys().(*syscall.Stat_t).Blocks * 512
}

func TestHolesThroughTools(t *testing.T) {
	info := needTool(t, "nbdinfo", "nbdcopy", "qemu-img", "qemu-io")
	path, content := sparse(t)
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: nbd.Exports{"disk": openRW(path)}})
	url := "nbd://" + addr + "/disk"

	type extent struct {
		Offset, Length int
		Type           int
	}
	var got []extent
	require.NoError(t, json.Unmarshal([]byte(run(t, info, "--map", "--json", url)), &got))
	require.Equal(t, []extent{{0, 2 << 20, 0}, {2 << 20, 2 << 20, 3}, {4 << 20, 2 << 20, 0}, {6 << 20, 2 << 20, 3}}, got)

	var qemu []struct {
		Start, Length int
		Zero, Data    bool
	}
	require.NoError(t, json.Unmarshal([]byte(run(t, needTool(t, "qemu-img"), "map", "--output=json", "-f", "raw", url)), &qemu))
	require.Len(t, qemu, 4)
	for i, e := range qemu {
		require.Equal(t, i*2<<20, e.Start)
		require.Equal(t, i%2 == 1, e.Zero)
		require.Equal(t, i%2 == 0, e.Data)
	}

	for _, arg := range []string{"--connections=4", "--no-extents", "--synchronous"} {
		out := filepath.Join(t.TempDir(), "copy")
		run(t, needTool(t, "nbdcopy"), arg, url, out)
		copied, err := os.ReadFile(out)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, copied), arg)
	}

	run(t, needTool(t, "qemu-io"), "-f", "raw", "-d", "unmap", url,
		"-c", "discard 0 1M", "-c", "write -z 4M 64k", "-c", "write -z -u 5M 1M", "-c", "write -z 1100000 24", "-c", "flush")
	clear(content[:1<<20])
	clear(content[4<<20 : 4<<20+64<<10])
	clear(content[5<<20 : 6<<20])
	clear(content[1100000:1100024])
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, now))
	require.Equal(t, int64(2<<20), allocated(t, path), "space was not given back")

	// Copies of it, with the space and without.
	other := filepath.Join(t.TempDir(), "other")
	require.NoError(t, os.WriteFile(other, pattern(8<<20), 0o600))
	to := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: openRW(other)})
	run(t, needTool(t, "nbdcopy"), "--allocated", "--flush", url, "nbd://"+to)
	run(t, needTool(t, "qemu-img"), "compare", "-f", "raw", "-F", "raw", url, "nbd://"+to)
	run(t, needTool(t, "nbdcopy"), url, "nbd://"+to)
	run(t, needTool(t, "qemu-img"), "compare", "-f", "raw", "-F", "raw", url, "nbd://"+to)
	require.Less(t, allocated(t, other), int64(3<<20))
}

// Every command and flag, as libnbd sends them, which checks what it may send
// and what comes back.
func TestNbdsh(t *testing.T) {
	tool := needTool(t, "nbdsh")
	content := pattern(1 << 20)
	path := tempFile(t, content)
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: nbd.Exports{"disk": openRW(path)}})
	// The first python3 of the path need not be the system's, which has the module.
	run(t, "env", "PATH=/usr/bin:/bin", tool, "-c", `
import errno
h.add_meta_context("base:allocation")
h.set_export_name("disk")
h.connect_uri("nbd://`+addr+`/disk")
assert h.get_protocol() == "newstyle-fixed"
assert h.get_structured_replies_negotiated()
assert h.can_meta_context("base:allocation")
for can in (h.can_cache, h.can_df, h.can_fast_zero, h.can_flush, h.can_fua, h.can_multi_conn, h.can_trim, h.can_zero):
    assert can(), can
assert not h.is_read_only()
assert h.get_block_size(nbd.SIZE_MINIMUM) == 1
size = h.get_size()
data = h.pread(size, 0)
assert h.pread_structured(size, 0, lambda *a: 0, nbd.CMD_FLAG_DF) == data
chunks = []
buf = h.pread_structured(size, 0, lambda b, off, s, err: chunks.append((off, len(b), s)))
assert buf == data and sum(c[1] for c in chunks) == size
h.trim(65536, 0, nbd.CMD_FLAG_FUA)
h.zero(65536, 65536, nbd.CMD_FLAG_FUA)
h.zero(65536, 131072, nbd.CMD_FLAG_NO_HOLE)
h.zero(65536, 196608, nbd.CMD_FLAG_FAST_ZERO)
h.cache(size, 0)
h.pwrite(b"x" * 1000, 300000, nbd.CMD_FLAG_FUA)
assert h.pread(4, 299998) == data[299998:300000] + b"xx"
assert h.pread(4 * 65536, 0) == b"\0" * 4 * 65536
kinds = []
h.pread_structured(65536 * 2, 0, lambda b, off, s, err: kinds.append(s))
assert kinds == [nbd.READ_HOLE], kinds
def status(*flags):
    got = []
    h.block_status(size, 0, lambda ctx, off, e, err: got.append((ctx, off, e)), *flags)
    return got
(ctx, off, e), = status()
assert ctx == "base:allocation" and off == 0 and sum(e[0::2]) == size and e[1] == 3, e
(ctx, off, e), = status(nbd.CMD_FLAG_REQ_ONE)
assert len(e) == 2 and e[1] == 3, e
h.set_strict_mode(0)
def fails(want, f, *args):
    try:
        f(*args)
    except nbd.Error as e:
        assert e.errnum == want, e
    else:
        assert False, (f, args)
fails(errno.EINVAL, h.pread, 512, size)
fails(errno.ENOSPC, h.pwrite, b"x" * 512, size)
fails(errno.ENOSPC, h.zero, 512, size)
fails(errno.EINVAL, h.trim, 512, size)
fails(errno.EINVAL, h.cache, 512, size)
fails(errno.EINVAL, h.block_status, 512, size, lambda *a: 0)
fails(errno.EINVAL, h.trim, 512, 0, nbd.CMD_FLAG_NO_HOLE)
h.flush()
assert h.pread(4, 299998) == data[299998:300000] + b"xx"
h.shutdown()
`)
}

// The tools over TLS, where it is required; nbdkit passes the export on.
func TestToolsOverTLS(t *testing.T) {
	info := needTool(t, "nbdinfo", "nbdcopy", "qemu-img", "qemu-io", "nbdkit")
	p := newPKI(t)
	path, content := sparse(t)
	w := &whose{Handler: openRW(path)}
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: w, TLS: p.serverConfig(), RequireTLS: true})
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	url := "nbds://localhost:" + port + "/disk?tls-certificates=" + p.dir
	require.Contains(t, run(t, info, url), "newstyle-fixed with TLS")
	require.Equal(t, "node-01", w.last(t))
	require.Contains(t, run(t, info, "--map", url), "hole,zero")
	_, err = exec.Command(info, "nbd://localhost:"+port+"/disk").CombinedOutput()
	require.Error(t, err)

	out := filepath.Join(t.TempDir(), "copy")
	run(t, needTool(t, "nbdcopy"), "--connections=4", url, out)
	got, err := os.ReadFile(out)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))

	creds := "tls-creds-x509,id=tls0,endpoint=client,verify-peer=on,dir=" + p.dir
	opts := "driver=nbd,host=localhost,port=" + port + ",export=disk,tls-creds=tls0"
	run(t, needTool(t, "qemu-img"), "compare", "--object", creds, "--image-opts", "driver=raw,file.driver=file,file.filename="+path, opts)
	run(t, needTool(t, "qemu-io"), "--object", creds, "--image-opts", opts, "-c", "write -P 0x55 1000 300000", "-c", "flush", "-c", "read -P 0x55 1000 300000")
	copy(content[1000:], bytes.Repeat([]byte{0x55}, 300000))
	require.Contains(t, run(t, needTool(t, "qemu-img"), "map", "--output=json", "--object", creds, "--image-opts", opts), `"zero": true`)

	sock := filepath.Join(t.TempDir(), "s")
	run(t, needTool(t, "nbdkit"), "-U", sock, "nbd", "hostname=localhost", "port="+port, "export=disk", "tls=require", "tls-certificates="+p.dir,
		"--run", "nbdinfo --map 'nbd+unix://?socket="+sock+"' && nbdcopy 'nbd+unix://?socket="+sock+"' "+out)
	got, err = os.ReadFile(out)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
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
	t.Run("nbdkit", func(t *testing.T) {
		sock := filepath.Join(t.TempDir(), "s")
		startTool(t, "nbdkit", "-f", "-U", sock, "file", tempFile(t, content))
		test(t, "unix", sock, "")
	})
	t.Run("nbdkit oldstyle", func(t *testing.T) {
		sock := filepath.Join(t.TempDir(), "s")
		startTool(t, "nbdkit", "-f", "-o", "-U", sock, "file", tempFile(t, content))
		require.Eventually(t, func() bool {
			_, err := nbd.Dial(t.Context(), "unix", sock, "")
			return err != nil && strings.Contains(err.Error(), "newstyle")
		}, 30*time.Second, 10*time.Millisecond)
	})
	t.Run("qemu-nbd", func(t *testing.T) {
		sock := filepath.Join(t.TempDir(), "s")
		startTool(t, "qemu-nbd", "-t", "-f", "raw", "-x", "disk", "-k", sock, tempFile(t, content))
		test(t, "unix", sock, "disk")
	})
	t.Run("nbd-server", func(t *testing.T) {
		conf := filepath.Join(t.TempDir(), "conf")
		port := freePort(t)
		require.NoError(t, os.WriteFile(conf, []byte(fmt.Sprintf(
			"[generic]\nlistenaddr = 127.0.0.1\nport = %s\nallowlist = true\n[disk]\nexportname = %s\nflush = true\n", port, tempFile(t, content))), 0o600))
		startTool(t, "nbd-server", "-d", "-C", conf)
		test(t, "tcp", "127.0.0.1:"+port, "disk")
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
