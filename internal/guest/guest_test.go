package guest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := lookTool(tool); err != nil {
			if os.Getenv("DISKLESS_REQUIRE") == "all" {
				t.Fatalf("DISKLESS_REQUIRE=all, but there is no %s", tool)
			}
			t.Skipf("no %s", tool)
		}
	}
}

// TestArchive has cpio read what was written.
func TestArchive(t *testing.T) {
	need(t, "cpio")
	a := archive{}
	a.file("a/b/file", 0o640, []byte("content"))
	a.file("empty", 0o755, nil)
	a.link("a/link", "b/file")
	a.dir("proc")
	a["dev/console"] = entry{mode: typeChar | 0o600, major: 5, minor: 1}
	var first, second bytes.Buffer
	require.NoError(t, a.write(&first))
	require.NoError(t, a.write(&second))
	require.Equal(t, first.Bytes(), second.Bytes())

	cmd := exec.Command("cpio", "-tvn", "--quiet")
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	cmd.Stdin = &first
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var got []string
	for line := range strings.Lines(string(out)) {
		line = strings.Join(strings.Fields(line), " ")
		got = append(got, strings.Replace(line, "Jan 1 1970 ", "", 1))
	}
	require.Equal(t, []string{
		"drwxr-xr-x 2 0 0 0 a",
		"drwxr-xr-x 2 0 0 0 a/b",
		"-rw-r----- 1 0 0 7 a/b/file",
		"lrwxrwxrwx 1 0 0 6 a/link -> b/file",
		"drwxr-xr-x 2 0 0 0 dev",
		"crw------- 1 0 0 5, 1 dev/console",
		"-rwxr-xr-x 1 0 0 0 empty",
		"drwxr-xr-x 2 0 0 0 proc",
	}, got)
}

// TestNbdroot runs the initramfs's reading of the command line; what is wanted
// is what Debian's nbd-client script, and dracut, do with the same words.
func TestNbdroot(t *testing.T) {
	need(t, "busybox")
	for _, c := range []struct{ cmdline, server, port, name, device string }{
		{"root=/dev/nbd0 nbdroot=192.168.67.1,ltsp,nbd0", "192.168.67.1", "", "ltsp", "/dev/nbd0"},
		{"nbdroot=192.168.67.1,ltsp,nbd0", "192.168.67.1", "", "ltsp", "/dev/nbd0"},
		{"root=/dev/nbd3 nbdroot=192.168.67.1,ltsp,nbd0", "192.168.67.1", "", "ltsp", "/dev/nbd3"},
		{"root=/dev/nbd0 nbdroot=192.168.67.1,10809", "192.168.67.1", "", "", "/dev/nbd0"},
		{"root=/dev/nbd0 nbdroot=192.168.67.1:10810/images/amd64", "192.168.67.1", "10810", "images/amd64", "/dev/nbd0"},
		{"root=/dev/nbd0 nbdroot=192.168.67.1:10809//opt/ltsp/amd64", "192.168.67.1", "10809", "/opt/ltsp/amd64", "/dev/nbd0"},
		{"root=/dev/nbd0 nbdroot=192.168.67.1:/opt/ltsp/amd64", "192.168.67.1", "", "/opt/ltsp/amd64", "/dev/nbd0"},
		{"root=/dev/nbd0 nbdroot=192.168.67.1/ltsp", "192.168.67.1", "", "ltsp", "/dev/nbd0"},
		{"root=/dev/nbd0 nbdroot=192.168.67.1:2000", "192.168.67.1", "2000", "2000", "/dev/nbd0"},
		{"root=/dev/nbd0 nbdroot=[2001:db8::1]:10809/ltsp", "2001:db8::1", "10809", "ltsp", "/dev/nbd0"},
		{"root=/dev/nbd0 nbdroot=[2001:db8::1]:/ltsp", "2001:db8::1", "", "/ltsp", "/dev/nbd0"},
		{"root=/dev/nbd0 nbdroot=/ltsp", "10.9.8.7", "", "/ltsp", "/dev/nbd0"},
		{"root=/dev/nbd0 nbdroot=dhcp", "10.9.8.7", "", "/opt/ltsp/i386", "/dev/nbd0"},
		{"root=/dev/nbd0", "10.9.8.7", "", "/opt/ltsp/i386", "/dev/nbd0"},
		{"nbddev=/dev/nbd1 nbdroot=s:1/" + odd, "s", "1", odd, "/dev/nbd1"},
		{"root=/dev/nbd0 nbdroot=s," + odd + ",nbd0", "s", "", odd, "/dev/nbd0"},
		{"root=nbd:192.168.67.1:" + odd, "192.168.67.1", "", odd, "/dev/nbd0"},
		{"root=nbd:192.168.67.1:/opt/ltsp/amd64:squashfs:ro", "192.168.67.1", "", "/opt/ltsp/amd64", "/dev/nbd0"},
		{"root=nbd:[2001:db8::1]:ltsp:squashfs", "2001:db8::1", "", "ltsp", "/dev/nbd0"},
	} {
		var env []string
		for word := range strings.FieldsSeq(c.cmdline) {
			env = append(env, word)
		}
		cmd := exec.Command("busybox", "sh", "-c", `. files/nbdroot; echo "$server|$port|$name|$nbddev"`)
		cmd.Env = append(env, "ROOTSERVER=10.9.8.7", "ROOTPATH=/opt/ltsp/i386")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		got := strings.TrimSpace(string(out))
		if c.name == "" {
			require.Empty(t, strings.Split(got, "|")[2], "init refuses what has no name")
			continue
		}
		require.Equal(t, strings.Join([]string{c.server, c.port, c.name, c.device}, "|"), got, c.cmdline)
	}
}

const odd = "debian12~0a1b2c3d4e5f@node-01.6f3k9a-x7Qm2p"

// TestScripts has the shell that runs them read the guest's scripts.
func TestScripts(t *testing.T) {
	need(t, "busybox")
	scripts, err := filepath.Glob("files/*")
	require.NoError(t, err)
	require.Len(t, scripts, 4)
	for _, script := range scripts {
		out, err := exec.Command("busybox", "sh", "-n", script).CombinedOutput()
		require.NoError(t, err, "%s: %s", script, out)
	}
}

// TestLibraries compares with what the loader itself says.
func TestLibraries(t *testing.T) {
	need(t, "nbd-client", "ldd")
	client, err := lookTool("nbd-client")
	require.NoError(t, err)
	a := archive{}
	require.NoError(t, a.addProgram("bin/nbd-client", client))
	out, err := exec.Command("ldd", client).Output()
	require.NoError(t, err)
	count := 0
	for line := range strings.Lines(string(out)) {
		name := strings.Fields(line)[0]
		if strings.HasPrefix(name, "linux-vdso") {
			continue
		}
		count++
		if !strings.HasPrefix(name, "/") {
			name = "/lib/" + name
		}
		require.Contains(t, a, strings.TrimPrefix(name, "/"))
	}
	require.Len(t, a, count+1)
	require.ErrorIs(t, a.addProgram("x", "no-such-file"), fs.ErrNotExist)
	require.Error(t, a.addProgram("x", "files/lease"), "not a program")
}

func TestRoot(t *testing.T) {
	need(t, "busybox")
	tree, err := Root("marker-1")
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(tree, "sbin/init", "etc/marker", "bin/sh", "proc", "srv/data/0131073"))
	marker, err := fs.ReadFile(tree, "etc/marker")
	require.NoError(t, err)
	require.Equal(t, "marker-1\n", string(marker))

	// All regular files are in the list of sums, with the sum they have, but
	// the one that nobody reads at boot, and its own sum.
	list, err := fs.ReadFile(tree, "etc/sha256sums")
	require.NoError(t, err)
	listed := string(list)
	require.NoError(t, fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if d.Type() != 0 || slices.Contains([]string{"etc/sha256sums", "etc/unread.sha256", "srv/unread"}, name) {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		line := fmt.Sprintf("%x  /%s\n", sha256.Sum256(data), name)
		require.Contains(t, listed, line)
		listed = strings.Replace(listed, line, "", 1)
		return err
	}))
	require.Empty(t, listed)
	unread, err := fs.ReadFile(tree, "srv/unread")
	require.NoError(t, err)
	sum, err := fs.ReadFile(tree, "etc/unread.sha256")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%x  /srv/unread\n", sha256.Sum256(unread)), string(sum))

	other, err := Root("marker-2")
	require.NoError(t, err)
	one, _ := fs.ReadFile(tree, "srv/data/0004096")
	two, _ := fs.ReadFile(other, "srv/data/0004096")
	require.NotEqual(t, one, two, "another marker, another image all over")
}

func TestWriteTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	tree := fstest.MapFS{
		"bin":      {Mode: fs.ModeDir | 0o755},
		"bin/tool": {Mode: 0o755, Data: []byte("x")},
		"bin/link": {Mode: fs.ModeSymlink | 0o777, Data: []byte("tool")},
		"secret":   {Mode: 0o600},
	}
	require.NoError(t, WriteTree(dir, tree))
	for name, mode := range map[string]fs.FileMode{"bin/tool": 0o755, "secret": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode())
	}
	target, err := os.Readlink(filepath.Join(dir, "bin/link"))
	require.NoError(t, err)
	require.Equal(t, "tool", target)
	require.ErrorIs(t, WriteTree(t.TempDir(), fstest.MapFS{"dev": {Mode: fs.ModeDevice}}), fs.ErrInvalid)
}

func TestExt4(t *testing.T) {
	need(t, "busybox", "mke2fs", "e2fsck", "debugfs")
	tree, err := Root("marker-3")
	require.NoError(t, err)
	dir, image := t.TempDir(), filepath.Join(t.TempDir(), "root.ext4")
	require.NoError(t, WriteTree(dir, tree))
	require.NoError(t, Ext4(t.Context(), dir, image, 16<<20))
	info, err := os.Stat(image)
	require.NoError(t, err)
	require.EqualValues(t, 16<<20, info.Size())
	_, err = run(t.Context(), "", "e2fsck", "-fn", image)
	require.NoError(t, err)
	out, err := run(t.Context(), "", "debugfs", "-R", "cat /etc/marker", image)
	require.NoError(t, err)
	require.Equal(t, "marker-3\n", out)

	require.ErrorIs(t, Ext4(t.Context(), dir, image, 16<<20), fs.ErrExist)
	small := filepath.Join(t.TempDir(), "small.ext4")
	require.Error(t, Ext4(t.Context(), dir, small, 1<<20), "more than fits")
	require.NoFileExists(t, small)
}

func TestOnce(t *testing.T) {
	cache := t.TempDir()
	broken := errors.New("broken")
	_, err := once(t.Context(), cache, "thing", func(dir string) error {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "thing"), []byte("half"), 0o644))
		return broken
	})
	require.ErrorIs(t, err, broken)
	require.NoFileExists(t, filepath.Join(cache, "thing"))

	var builds atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			file, err := once(t.Context(), cache, "thing", func(dir string) error {
				builds.Add(1)
				return os.WriteFile(filepath.Join(dir, "thing"), []byte("whole"), 0o644)
			})
			if err != nil || file != filepath.Join(cache, "thing") {
				t.Error(file, err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, builds.Load())
	left, err := filepath.Glob(filepath.Join(cache, ".build-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestAddFile: one program and no directory.
func TestAddFile(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, AddFile(&b, "sbin/nbd-client", []byte("#!/bin/sh\n")))
	need(t, "cpio")
	cmd := exec.Command("cpio", "-t", "--quiet")
	cmd.Stdin = &b
	names, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, "sbin/nbd-client\n", string(names))
}
