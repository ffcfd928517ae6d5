//go:build unix

package nbd_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// nbdsh runs statements of Python with a handle h that is connected to url.
func nbdsh(t *testing.T, url, statements string) {
	t.Helper()
	// The first python3 of the path need not be the system's, which has the module.
	run(t, "env", "PATH=/usr/bin:/bin", needTool(t, "nbdsh"), "-c",
		"h.add_meta_context('base:allocation')\nh.connect_uri('"+url+"')\n"+statements)
}

// What other people's clients write, trim and make zero in a root: the bytes
// are there, the space is given back, the image and the neighbour keep theirs.
func TestRootsThroughClients(t *testing.T) {
	const written = `
h.pwrite(b"\xaa" * (1 << 20), 1 << 20)
h.pwrite(b"\xbb" * 1000, 15988)
h.trim(512 << 10, 1 << 20)
h.zero(256 << 10, 1536 << 10)
h.flush()
h.shutdown()
`
	clients := map[string]func(t *testing.T, url string){
		"libnbd": func(t *testing.T, url string) { nbdsh(t, url, written) },
		"nbdkit": func(t *testing.T, url string) {
			sock := filepath.Join(t.TempDir(), "s")
			script := filepath.Join(t.TempDir(), "script")
			require.NoError(t, os.WriteFile(script, []byte("h.connect_uri('nbd+unix://?socket="+sock+"')\n"+written), 0o600))
			run(t, "env", "PATH=/usr/bin:/bin:/usr/sbin", needTool(t, "nbdkit", "nbdsh"), "-U", sock, "nbd", "uri="+url, "--run", "nbdsh -c - < "+script)
		},
		"qemu": func(t *testing.T, url string) {
			out := run(t, needTool(t, "qemu-io"), "-f", "raw", "-d", "unmap", "-t", "writeback", url,
				"-c", "write -P 0xaa 1M 1M", "-c", "write -P 0xbb 15988 1000",
				"-c", "discard 1M 512k", "-c", "write -z -u 1536k 256k", "-c", "flush",
				"-c", "read -P 0 1M 768k", "-c", "read -P 0xaa 1792k 256k")
			require.NotContains(t, out, "verification failed")
		},
	}
	for client, write := range clients {
		t.Run(client, func(t *testing.T) {
			needTool(t, "nbdcopy", "nbdinfo", "qemu-img")
			roots, image, addr := rootServer(t)
			base, err := os.ReadFile(image)
			require.NoError(t, err)
			neighbour := boot(t, roots, "neighbour", nbd.Kept)
			url := "nbd://" + addr + "/" + boot(t, roots, "node-01", nbd.Kept)
			write(t, url)

			want := append(bytes.Clone(base), make([]byte, 512-len(base)%512)...)
			copy(want[15988:], bytes.Repeat([]byte{0xbb}, 1000))
			clear(want[1<<20 : 1792<<10])
			copy(want[1792<<10:], bytes.Repeat([]byte{0xaa}, 256<<10))
			out := filepath.Join(t.TempDir(), "copy")
			run(t, "nbdcopy", "--connections=4", url, out)
			got, err := os.ReadFile(out)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
			run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", out, url)
			require.Regexp(t, `1048576 +786432 +3 +hole,zero`, run(t, "nbdinfo", "--map", url))

			list, err := roots.List(t.Context())
			require.NoError(t, err)
			require.Len(t, list, 1)
			require.EqualValues(t, 256<<10+2*4096, list[0].Usage, "space was not given back")
			data, err := filepath.Glob(filepath.Join(roots.Dir, "roots", "node-01", "*", "data"))
			require.NoError(t, err)
			require.Len(t, data, 1)
			require.LessOrEqual(t, allocated(t, data[0]), int64(256<<10+4*4096))

			now, err := os.ReadFile(image)
			require.NoError(t, err)
			require.True(t, bytes.Equal(base, now))
			run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, "nbd://"+addr+"/"+neighbour)
		})
	}
}

// What one connection has flushed every other one sees, with many requests in
// flight on each.
func TestRootOverSeveralConnections(t *testing.T) {
	roots, _, addr := rootServer(t)
	url := "nbd://" + addr + "/" + boot(t, roots, "node-01", nbd.Ephemeral)
	nbdsh(t, url, `
import os
assert h.can_multi_conn()
handles = [h]
for i in range(3):
    n = nbd.NBD()
    n.connect_uri("`+url+`")
    handles.append(n)
want = {}
for i in range(200):
    block = os.urandom(5000)
    want[i * 15000] = block
    handles[i % 4].aio_pwrite(nbd.Buffer.from_bytearray(bytearray(block)), i * 15000)
for n in handles:
    while n.aio_in_flight():
        n.poll(-1)
handles[0].flush()
for i, (off, block) in enumerate(want.items()):
    assert handles[(i + 1) % 4].pread(len(block), off) == block, off
for n in handles:
    n.shutdown()
`)
}

// fio writes and reads back what it checks by checksums, at every store.
func TestFio(t *testing.T) {
	tool := needTool(t, "fio")
	roots, _, rootAddr := rootServer(t)
	base := nbdtest.NewMemory(pattern(3 << 20))
	stored, err := nbd.OpenOverlay(base, filepath.Join(t.TempDir(), "overlay"), "base")
	require.NoError(t, err)
	defer stored.Close()
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: nbd.Exports{
		"file": openRW(tempFile(t, pattern(3<<20))), "memory": nbd.Share(nbd.NewOverlay(base)), "stored": nbd.Share(stored),
	}})
	for name, url := range map[string]string{
		"file": addr + "/file", "overlay in memory": addr + "/memory", "stored overlay": addr + "/stored",
		"root": rootAddr + "/" + boot(t, roots, "node-01", nbd.Kept),
	} {
		t.Run(name, func(t *testing.T) {
			job := func(args ...string) string {
				out := run(t, tool, append([]string{"--name=job", "--ioengine=nbd", "--uri=nbd://" + url, "--size=3M",
					"--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--group_reporting"}, args...)...)
				require.Contains(t, out, "err= 0")
				return out
			}
			for _, args := range [][]string{
				{"--rw=randwrite", "--bs=4k", "--iodepth=16"},
				{"--rw=randrw", "--bsrange=512-64k", "--bs_unaligned=0", "--iodepth=32", "--blockalign=512", "--loops=2"},
				{"--rw=write", "--bs=1536", "--iodepth=8", "--fsync=16"},
			} {
				out := job(args...)
				require.Regexp(t, `read: IOPS=`, out, "it read back what it wrote: %s", strings.Join(args, " "))
			}
			run(t, tool, "--name=trim", "--ioengine=nbd", "--uri=nbd://"+url, "--size=3M", "--rw=randtrim", "--bs=64k", "--iodepth=4")
			nbdsh(t, "nbd://"+url, "assert h.pread(3 << 20, 0) == bytes(3 << 20)\nh.shutdown()\n")
		})
	}
	require.True(t, bytes.Equal(pattern(3<<20), base.Bytes()), "the overlays' base")
}

// A server that loses a write is found out by fio: the test above can fail.
func TestFioSeesALostWrite(t *testing.T) {
	tool := needTool(t, "fio")
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: nbd.Filtered(nbd.Share(nbdtest.NewMemory(make([]byte, 3<<20))),
		func(d nbd.Device) nbd.Device { return &forgetful{Pass: nbd.Pass{Device: d}} })})
	cmd := fmt.Sprintf("%s --name=job --ioengine=nbd --uri=nbd://%s/ --size=3M --rw=randwrite --bs=4k --iodepth=16 --verify=crc32c --verify_fatal=1 --verify_state_save=0", tool, addr)
	out := run(t, "sh", "-c", cmd+" && echo nothing seen || echo found out")
	require.Contains(t, out, "found out")
}

// forgetful loses what is written at 1 MiB.
type forgetful struct{ nbd.Pass }

func (d *forgetful) WriteAt(p []byte, off int64) (int, error) {
	if off <= 1<<20 && 1<<20 < off+int64(len(p)) {
		return len(p), nil
	}
	return d.Pass.WriteAt(p, off)
}
