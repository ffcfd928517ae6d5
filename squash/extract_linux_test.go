package squash_test

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/seed-3ec230fa/diskless/squash"
)

func TestExtract(t *testing.T) {
	need(t, "root")
	root := torture(t, 4096, 1000)
	want := describe(t, dirFS(root))
	image := open(t, buildBytes(t, dirFS(root), &squash.Options{BlockSize: 4096, Compressor: squash.LZ4{}}))
	dest := filepath.Join(t.TempDir(), "dest")
	done, err := squash.Extract(t.Context(), dest, image, nil)
	require.NoError(t, err)
	requireSame(t, want, describe(t, dirFS(dest)))
	require.Equal(t, len(want), done.Entries)
	require.Zero(t, done.Owners+done.Modes+done.Devices+done.Xattrs)
	require.Greater(t, done.Bytes, int64(600*4096))
	var st unix.Stat_t
	require.NoError(t, unix.Stat(filepath.Join(dest, "sparse"), &st))
	require.Less(t, st.Blocks*512, int64(64<<10), "the holes are holes")

	_, err = squash.Extract(t.Context(), dest, image, nil)
	require.ErrorIs(t, err, fs.ErrExist)
	require.ErrorContains(t, err, "not empty")
}

// An owner of -1 tells Linux to leave the owner: root, of a file with setuid.
func TestExtractOwnerThatMeansNobody(t *testing.T) {
	need(t, "root")
	for _, st := range []squash.Stat{{Uid: 1<<32 - 1, Gid: 5}, {Uid: 5, Gid: 1<<32 - 1}} {
		src := fstest.MapFS{"su": {Data: []byte("x"), Mode: fs.ModeSetuid | fs.ModeSetgid | 0o755, Sys: &st}}
		image := open(t, buildBytes(t, src, nil))
		dir := t.TempDir()
		_, err := squash.Extract(t.Context(), dir+"/all", image, nil)
		require.ErrorIs(t, err, unix.EINVAL)
		require.ErrorContains(t, err, "owner")
		done, err := squash.Extract(t.Context(), dir+"/some", image, &squash.ExtractOptions{Partial: true, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		require.Equal(t, 1, done.Modes)
		require.Equal(t, 1, done.Owners)
		fi, err := os.Lstat(dir + "/some/su")
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o755), fi.Mode())
	}
}

// asUser runs a function with the rights that a user has on files. Its thread
// ends with it.
func asUser(t *testing.T, id int, f func()) {
	t.Helper()
	need(t, "root")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSGID, uintptr(id), 0, 0)
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(id), 0, 0)
		var none [2]unix.CapUserData
		_ = unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
		f()
	}()
	<-done
}

func TestExtractAsUser(t *testing.T) {
	src := fakeTree()
	src["usr/bin/ping"] = &fstest.MapFile{Data: []byte("ping"), Mode: 0o755, ModTime: time.Unix(5, 0),
		Sys: &squash.Stat{Uid: 4000, Gid: 4000, Xattrs: map[string][]byte{"user.comment": []byte("x"), "security.capability": {1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}}}
	src["noentry/file"] = &fstest.MapFile{Data: []byte("x"), Sys: &squash.Stat{Uid: 4000, Gid: 4000}}
	src["noentry"] = &fstest.MapFile{Mode: fs.ModeDir, Sys: &squash.Stat{Uid: 4000, Gid: 4000}}
	image := open(t, buildBytes(t, src, nil))
	dir, err := os.MkdirTemp("", "user") // t.TempDir is root's alone
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	require.NoError(t, os.Chmod(dir, 0o777))

	var strict, err2 error
	var done squash.Extracted
	var log bytes.Buffer
	asUser(t, 4000, func() {
		_, strict = squash.Extract(t.Context(), filepath.Join(dir, "all"), image, nil)
		done, err2 = squash.Extract(t.Context(), filepath.Join(dir, "some"), image, &squash.ExtractOptions{Partial: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	})
	require.ErrorIs(t, strict, fs.ErrPermission)
	require.ErrorContains(t, strict, "set ExtractOptions.Partial")
	require.NoError(t, err2)
	require.Equal(t, 3, done.Devices)
	require.Equal(t, 1, done.Modes, "su, once for both names")
	require.Equal(t, 1, done.Xattrs, "the capability")
	require.Greater(t, done.Owners, 300)
	for _, text := range []string{"belong to the caller", "lost setuid", "device nodes", "extended attributes"} {
		require.Contains(t, log.String(), text)
	}
	got := describe(t, dirFS(filepath.Join(dir, "some")))
	require.Equal(t, "-rwxr-xr-x 4000:4000 mtime 5 links 1 4 bytes "+strings.Fields(got["usr/bin/ping"])[8]+` user.comment="x"`, got["usr/bin/ping"])
	require.Contains(t, got["usr/bin/su2"], "-rwxr-xr-x 4000:4000 mtime 1580608922 = usr/bin/su links 2")
	require.Contains(t, got["noentry"], "d--------- ")
	require.Contains(t, got["run/fifo"], "prw------- 4000:4000")
	require.NotContains(t, got, "dev/sda")
	require.Len(t, got, done.Entries)
}
