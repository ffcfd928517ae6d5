//go:build linux

package tftp

import (
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// tree makes a directory with a file outside beside it.
func tree(t testing.TB) (dir string) {
	t.Helper()
	base := t.TempDir()
	dir = filepath.Join(base, "tree")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "boot", "deep"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(base, "secret"), []byte("secret"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "boot", "vmlinuz"), []byte("kernel"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pxelinux.0"), []byte("loader"), 0o644))
	return dir
}

func openDir(t testing.TB, dir string) (*DirFS, *logBuffer) {
	t.Helper()
	log := new(logBuffer)
	d, err := Dir(dir, log.logger(slog.LevelInfo))
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	return d, log
}

func TestDirIsAnFS(t *testing.T) {
	dir := tree(t)
	require.NoError(t, os.Symlink("boot/vmlinuz", filepath.Join(dir, "latest")))
	require.NoError(t, os.Symlink("../../pxelinux.0", filepath.Join(dir, "boot", "deep", "up")))
	d, log := openDir(t, dir)
	require.NoError(t, fstest.TestFS(d, "pxelinux.0", "boot/vmlinuz", "latest", "boot/deep/up"))
	b, err := fs.ReadFile(d, "boot/deep/up")
	require.NoError(t, err)
	require.Equal(t, "loader", string(b))
	require.Empty(t, log.String(), "nothing was refused")
}

func TestDirMissing(t *testing.T) {
	d, log := openDir(t, tree(t))
	long := string(make([]byte, 300))
	for _, name := range []string{"nothing", "boot/nothing", "nothing/nothing", "pxelinux.0/below", long, "a\x00b"} {
		_, err := d.Open(name)
		require.ErrorIs(t, err, fs.ErrNotExist, "%q", name)
	}
	_, err := d.Open("../secret")
	require.ErrorIs(t, err, fs.ErrInvalid)
	require.Empty(t, log.String(), "a missing file is no news")
	_, err = Dir(filepath.Join(t.TempDir(), "none"), nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestDirRefusesLinksOut(t *testing.T) {
	for _, c := range []struct{ name, links, target, link string }{
		{"abs", "abs", "/etc/passwd", "abs"},
		{"up", "up", "../secret", "up"},
		{"boot/up", "boot/up", "../../secret", "boot/up"},
		{"boot/up/secret", "boot/up", "deep/../../..", "boot/up"},
		{"outside/secret", "outside", "..", "outside"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tree(t)
			require.NoError(t, os.Symlink(c.target, filepath.Join(dir, c.links)))
			d, log := openDir(t, dir)
			_, err := d.Open(c.name)
			require.ErrorIs(t, err, fs.ErrPermission)
			require.Contains(t, log.String(), "level=WARN")
			require.Contains(t, log.String(), "name="+c.name)
			require.Contains(t, log.String(), "link="+c.link+" ")
			require.Contains(t, log.String(), "target="+c.target)
		})
	}
	t.Run("by way of another link", func(t *testing.T) {
		dir := tree(t)
		require.NoError(t, os.Symlink("boot/out", filepath.Join(dir, "first")))
		require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "boot", "out")))
		d, log := openDir(t, dir)
		_, err := d.Open("first")
		require.ErrorIs(t, err, fs.ErrPermission)
		require.Contains(t, log.String(), "link=boot/out target=/etc/passwd")
	})
	t.Run("in a circle", func(t *testing.T) {
		dir := tree(t)
		require.NoError(t, os.Symlink("b", filepath.Join(dir, "a")))
		require.NoError(t, os.Symlink("a", filepath.Join(dir, "b")))
		d, log := openDir(t, dir)
		_, err := d.Open("a")
		require.Error(t, err)
		require.Contains(t, log.String(), "name=a")
	})
}

func TestDirRefusesSpecialFiles(t *testing.T) {
	dir := tree(t)
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	d, log := openDir(t, dir)
	_, err := d.Open("fifo") // blocks for ever when it is opened like a file
	require.ErrorIs(t, err, fs.ErrPermission)
	require.Contains(t, log.String(), "name=fifo")
	require.Contains(t, log.String(), "not a regular file")

	// Also when it takes the name between the look and the opening.
	f, err := d.root.OpenFile("fifo", os.O_RDONLY|openNonblock, 0)
	require.NoError(t, err)
	f.Close()
}

func TestDirUnreadableFile(t *testing.T) {
	dir := tree(t)
	require.NoError(t, os.Chmod(filepath.Join(dir, "pxelinux.0"), 0))
	d, log := openDir(t, dir)
	var err error
	asNobody(t, func() { _, err = d.Open("pxelinux.0") })
	require.ErrorIs(t, err, fs.ErrPermission)
	require.Contains(t, log.String(), "level=WARN")
	require.Contains(t, log.String(), "name=pxelinux.0")
	require.Contains(t, log.String(), "permission denied")
}

// asNobody calls f without the rights of root.
func asNobody(t *testing.T, f func()) {
	if os.Getuid() != 0 {
		f()
		return
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
		err := dropFileRights()
		if err == nil {
			f()
		}
		done <- err
	}()
	require.NoError(t, <-done)
}

func TestDirClose(t *testing.T) {
	d, log := openDir(t, tree(t))
	f, err := d.Open("pxelinux.0")
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, d.Close())
	b, err := io.ReadAll(f)
	require.NoError(t, err)
	require.Equal(t, "loader", string(b))
	_, err = d.Open("pxelinux.0")
	require.ErrorIs(t, err, fs.ErrClosed)
	require.Empty(t, log.String())
}

// FuzzPath takes names the whole way: from the wire into a directory with
// links of all kinds. Nothing ever leads to the file beside it.
func FuzzPath(f *testing.F) {
	dir := tree(f)
	for link, target := range map[string]string{"abs": filepath.Dir(dir), "up": "..", "boot/up": "../..", "self": ".", "in": "boot/deep"} {
		require.NoError(f, os.Symlink(target, filepath.Join(dir, link)))
	}
	d, err := Dir(dir, discard())
	require.NoError(f, err)
	f.Cleanup(func() { d.Close() })
	for _, s := range append([]string{"pxelinux.0", "abs/secret", "up/secret", "boot/up/secret", "self/self/boot/vmlinuz", `in\..\..\..\secret`}, escapes...) {
		f.Add(s)
	}
	h := FileServerFS(Union(Mount{FS: d}, Mount{Path: "boot/mnt", FS: d}))
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := cleanName(raw)
		if err != nil {
			return
		}
		file, err := h.OpenTFTP(t.Context(), &Request{Name: name, Raw: raw})
		if err != nil {
			require.Nil(t, file)
			return
		}
		require.NotEqual(t, "secret", string(readFile(t, file)), "%q", raw)
		require.NoError(t, file.Close())
	})
}
