package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/zstd"
	"github.com/seed-3ec230fa/diskless/squash"
)

func TestSquash(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	require.NoError(t, os.MkdirAll(filepath.Join(tree, "etc"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(tree, "etc/motd"), []byte("hello\n"), 0o644))
	require.NoError(t, os.Symlink("etc/motd", filepath.Join(tree, "link")))
	one, two := filepath.Join(dir, "one.squashfs"), filepath.Join(dir, "two.squashfs")
	good := func(args ...string) string {
		t.Helper()
		out, errs, err := run(t, append([]string{"squash"}, args...)...)
		require.NoError(t, err, errs)
		return out
	}
	require.Regexp(t, `^4 names, 6 bytes of files, \d+ bytes of image\n$`, good("build", tree, one))
	require.Equal(t, "etc\nlink\n", good("ls", one))
	require.Equal(t, "etc\netc/motd\nlink\n", good("ls", "-R", one, "/"))
	require.Regexp(t, `^-rw-r--r--   1 +\d+:\d+ +6 \S+ \S+ motd\n$`, good("ls", "-l", one, "etc"))
	require.Regexp(t, ` link -> etc/motd\n$`, good("ls", "-l", one))
	require.Equal(t, "hello\nhello\n", good("cat", one, "/link", "etc/motd"))
	require.Equal(t, "no defects\n", good("verify", one))

	tr := tar.NewReader(bytes.NewReader([]byte(good("tar", one))))
	h, err := tr.Next()
	require.NoError(t, err)
	require.Equal(t, "./", h.Name)
	archive := filepath.Join(dir, "tree.tar")
	require.NoError(t, os.WriteFile(archive, []byte(good("tar", one)), 0o600))
	good("build", "--compressor", "gzip", "--block-size", "65536", archive, two)
	require.Empty(t, good("diff", one, two))

	dest := filepath.Join(dir, "dest")
	require.Equal(t, "4 files, 6 bytes\n", good("extract", one, dest))
	b, err := os.ReadFile(filepath.Join(dest, "link"))
	require.NoError(t, err)
	require.Equal(t, "hello\n", string(b))

	require.NoError(t, os.WriteFile(filepath.Join(dest, "etc/motd"), []byte("other\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dest, "new\x01"), nil, 0o600))
	require.NoError(t, os.Remove(filepath.Join(dest, "link")))
	good("build", dest, two)
	out, errs, err := run(t, "squash", "diff", "--ignore-times", one, two)
	require.Error(t, err)
	require.Empty(t, errs)
	require.Equal(t, "- link\n+ \"new\\x01\"\n! etc/motd content\n", out)

	f, err := os.OpenFile(two, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.Seek(-1, io.SeekEnd)
	require.NoError(t, err)
	_, err = f.Write([]byte{1})
	require.NoError(t, err)
	out, errs, err = run(t, "squash", "verify", two)
	require.Error(t, err)
	require.Empty(t, errs)
	require.Contains(t, out, "padding")

	rules, list := filepath.Join(dir, "site.rules"), filepath.Join(dir, "excludes")
	require.NoError(t, os.WriteFile(rules, []byte("file etc/copy 0600 0:0 site.rules\nchmod 0700 etc\n"), 0o600))
	require.NoError(t, os.WriteFile(list, []byte("# list\n... motd\n"), 0o600))
	good("build", "--rules", rules, "--exclude-from", list, tree, two)
	out, _, err = run(t, "squash", "diff", one, two)
	require.Error(t, err)
	require.Equal(t, "! etc mode\n+ etc/copy\n- etc/motd\n", out)
	require.NoError(t, os.WriteFile(list, []byte("a\n[b\n"), 0o600))

	require.NoError(t, os.Mkdir(filepath.Join(tree, "boot"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(tree, "boot/vmlinuz-6.1"), []byte("kernel"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(tree, "etc/machine-id"), []byte("0123\n"), 0o644))
	out, _, err = run(t, "squash", "check", tree)
	require.Error(t, err)
	require.Contains(t, out, "  missing boot/vmlinuz-6.1: the newest kernel")
	require.Contains(t, out, "* harmful etc/machine-id")
	require.NotContains(t, good("build", "--prepare", "nfs", tree, two), "etc/machine-id")
	require.Empty(t, good("cat", two, "etc/machine-id"))
	require.Contains(t, good("cat", two, "etc/fstab"), "tmpfs /tmp")
	require.Contains(t, good("kernels", "--to", filepath.Join(dir, "boot"), two), "6.1\n  boot/vmlinuz-6.1 ")
	b, err = os.ReadFile(filepath.Join(dir, "boot/vmlinuz-6.1"))
	require.NoError(t, err)
	require.Equal(t, "kernel", string(b))

	for purpose, want := range map[string]string{"network": "zstd 131072", "memory": "zstd 1048576", "speed": "lz4 131072", "old-kernels": "gzip 131072"} {
		good("build", "--for", purpose, tree, two)
		f, err := os.Open(two)
		require.NoError(t, err)
		image, err := squash.Open(f)
		require.NoError(t, err)
		require.Equal(t, want, fmt.Sprint(image.Info().Compressor, " ", image.Info().BlockSize))
		require.NoError(t, f.Close())
	}
	good("build", "--for", "memory", "--compressor", "gzip", "--block-size", "4096", tree, two)
	text := t.TempDir()
	var lines bytes.Buffer
	for i := range 20_000 {
		fmt.Fprintln(&lines, i*i%977, "words of a text", i)
	}
	require.NoError(t, os.WriteFile(filepath.Join(text, "text"), lines.Bytes(), 0o644))
	for c, want := range map[string]squash.Compressor{"zstd": zstd.Level(1), "gzip": squash.Gzip{Level: 1}, "lz4": squash.LZ4{Level: 1}} {
		o := squash.ForNetwork()
		o.Compressor = want
		var images [3][]byte
		require.NoError(t, squash.BuildFile(t.Context(), two, squash.Dir(text), o))
		for i, args := range [][]string{nil, {"--level", "1"}, {"--level", "2"}} {
			if i > 0 {
				good(append([]string{"build", "--compressor", c, text, two}, args...)...)
			}
			images[i], err = os.ReadFile(two)
			require.NoError(t, err)
		}
		require.True(t, bytes.Equal(images[0], images[1]), c)
		require.False(t, bytes.Equal(images[1], images[2]), c)
	}
	good("build", "--block-size", "4096", tree, two)
	require.Regexp(t, `, \d+ bytes taken over\n$`, good("build", "--base", one, tree, two))
	good("build", "--base", two, "--base-time", "2001-01-01T00:00:00Z", tree, two)

	for text, args := range map[string][]string{
		"no SquashFS image":            {"ls", archive},
		"xz has no levels":             {"build", "--compressor", "xz", "--level", "6", tree, two},
		"choose 1 to 9":                {"build", "--for", "speed", "--level", "10", tree, two},
		"--level 0":                    {"build", "--level", "0", tree, two},
		"name the image's file":        {"build", filepath.Join(dir, "none"), dir},
		"choose zstd, gzip":            {"build", "--compressor", "rar", tree, two},
		"no such file":                 {"build", filepath.Join(dir, "none"), two},
		"file does not exist":          {"cat", one, "none"},
		"not empty":                    {"extract", one, dest},
		"no container image":           {"build", "--platform", "linux/amd64", archive, two},
		"excludes:2:1":                 {"build", "--exclude-from", list, tree, two},
		"choose network":               {"build", "--for", "fun", tree, two},
		"choose nbd or nfs":            {"check", "--root", "iscsi", tree},
		"no kernel":                    {"kernels", one},
		"build without it":             {"build", "--base", one, "--compressor", "lz4", tree, two},
		"--base-time":                  {"build", "--base", one, "--base-time", "yesterday", tree, two},
		"choose a power of two":        {"build", "--block-size", "5000", tree, two},
		"accepts 2 arg(s), received 1": {"build", tree},
	} {
		_, errs, err := run(t, append([]string{"squash"}, args...)...)
		require.Error(t, err)
		require.Contains(t, errs, text)
	}
	for _, epoch := range []string{"-5", "99999999999", "today"} {
		t.Setenv("SOURCE_DATE_EPOCH", epoch)
		_, errs, err := run(t, "squash", "build", tree, two)
		require.Error(t, err)
		require.Regexp(t, "SOURCE_DATE_EPOCH: .*"+epoch, errs)
	}
}
