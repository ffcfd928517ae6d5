package squash_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/seed-3ec230fa/diskless/squash"
)

func TestFakeTreeComesBack(t *testing.T) {
	src := fakeTree()
	image := open(t, buildBytes(t, src, nil))
	want, got := describe(t, src), describe(t, image)
	// A MapFS has a root without time or mode of its own.
	require.Equal(t, "dr-xr-xr-x 0:0 mtime 0", got["."])
	want["."] = got["."]
	requireSame(t, want, got)
	require.NoError(t, fstest.TestFS(image, "etc/passwd", "usr/bin/su", "dev/console", "lib/module-299-with-a-rather-long-name.ko"))
}

func TestTortureTree(t *testing.T) {
	need(t, "root")
	type tree struct{ block, many int }
	roots, wants := map[tree]string{}, map[tree]map[string]string{}
	for i, opts := range []squash.Options{
		{BlockSize: 4096}, {}, {BlockSize: 1 << 20},
		{Compressor: squash.Gzip{}}, {Compressor: squash.Gzip{Level: 9}, BlockSize: 4096}, {Compressor: squash.Zstd{Level: 1}, FragmentSize: 20000},
		{Compressor: squash.Zstd{Level: 4}, FragmentSize: -1}, {Compressor: squash.LZ4{}}, {Compressor: squash.LZ4{Level: 5}, BlockSize: 4096},
		{Compressor: squash.XZ{}}, {Compressor: squash.XZ{}, BlockSize: 4096, FragmentSize: -1},
	} {
		if opts.BlockSize == 0 {
			opts.BlockSize = 131072
		}
		key := tree{opts.BlockSize, 3000}
		if i > 2 { // directories do not depend on the compressor
			key.many = 300
		}
		if roots[key] == "" {
			roots[key] = torture(t, key.block, key.many)
			wants[key] = describe(t, dirFS(roots[key]))
		}
		root, want := roots[key], wants[key]
		file := filepath.Join(t.TempDir(), "image.squashfs")
		require.NoError(t, squash.BuildFile(t.Context(), file, squash.Dir(root), &opts))
		f, err := os.Open(file)
		require.NoError(t, err)
		defer f.Close()
		image, err := squash.Open(f)
		require.NoError(t, err)

		t.Run("Open", func(t *testing.T) {
			requireSame(t, want, describe(t, image))
		})
		t.Run("kernel", func(t *testing.T) {
			requireSame(t, want, describe(t, dirFS(mount(t, file))))
		})
		t.Run("unsquashfs", func(t *testing.T) {
			need(t, "unsquashfs")
			dest := filepath.Join(t.TempDir(), "out")
			out := run(t, "unsquashfs", "-strict-errors", "-quiet", "-no-progress", "-d", dest, file)
			require.NotContains(t, out, "error")
			requireSame(t, want, describe(t, dirFS(dest)))
		})
		if (opts.Compressor == squash.XZ{}) { // whose writer takes its time
			continue
		}
		t.Run("again", func(t *testing.T) {
			// An image is a source like any other, and its image is the same.
			again := buildBytes(t, image, &opts)
			was, err := os.ReadFile(file)
			require.NoError(t, err)
			require.True(t, string(was) == string(again), "the image of the image differs")
		})
	}
}

// Images of the reference writer, with extended attributes and every inode
// type, hold for us what they hold for the kernel.
func TestMksquashfs(t *testing.T) {
	need(t, "root", "mksquashfs")
	root := torture(t, 4096, 1000)
	require.NoError(t, unix.Lsetxattr(filepath.Join(root, "suid"), "user.comment", []byte("x"), 0))
	require.NoError(t, unix.Lsetxattr(filepath.Join(root, "null"), "trusted.a", []byte("x"), 0))
	require.NoError(t, unix.Lsetxattr(filepath.Join(root, "fifo"), "trusted.a", []byte("x"), 0))
	require.NoError(t, unix.Lsetxattr(filepath.Join(root, "dangling"), "trusted.a", []byte("x"), 0))
	require.NoError(t, unix.Lsetxattr(filepath.Join(root, "sub"), "user.d", []byte("x"), 0))
	big := bytes.Repeat([]byte("Q"), 2000)
	for _, name := range []string{"suid", "sgid", "all", "emptydir"} {
		require.NoError(t, unix.Lsetxattr(filepath.Join(root, name), "user.big", big, 0))
	}
	// mksquashfs makes hard-linked symbolic links two files.
	require.NoError(t, os.Remove(filepath.Join(root, "rel2")))
	require.NoError(t, os.Chtimes(root, time.Unix(1580608922, 0), time.Unix(1580608922, 0)))
	want := describe(t, dirFS(root))
	bare := describeEntries(t, squash.SourceFunc(func(ctx context.Context) iter.Seq2[*squash.Entry, error] {
		return func(yield func(*squash.Entry, error) bool) {
			for e, err := range squash.Dir(root).Entries(ctx) {
				if e != nil {
					e.Xattrs = nil
				}
				if !yield(e, err) {
					return
				}
			}
		}
	}))
	for _, args := range [][]string{
		{"-comp", "gzip"},
		{"-comp", "zstd"},
		{"-comp", "zstd", "-b", "1M", "-Xcompression-level", "3"},
		{"-comp", "gzip", "-b", "4096", "-no-fragments"},
		{"-comp", "gzip", "-always-use-fragments", "-no-exports"},
		{"-comp", "zstd", "-noI", "-noD", "-noF", "-no-xattrs"},
		{"-comp", "gzip", "-Xcompression-level", "1", "-Xwindow-size", "8", "-Xstrategy", "filtered"},
		{"-comp", "lz4"},
		{"-comp", "lz4", "-Xhc", "-b", "4096"},
		{"-comp", "xz"},
		{"-comp", "xz", "-b", "1M"},
		{"-comp", "xz", "-b", "4096"},
		{"-comp", "lzo"},
		{"-comp", "lzo", "-Xalgorithm", "lzo1x_1", "-b", "64K"},
	} {
		t.Run(strings.Join(args, ""), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "image")
			run(t, "mksquashfs", append([]string{root, file, "-no-progress", "-quiet"}, args...)...)
			f, err := os.Open(file)
			require.NoError(t, err)
			defer f.Close()
			image, err := squash.Open(f)
			require.NoError(t, err)
			require.Equal(t, args[1], image.Info().Compressor)
			if slices.Contains(args, "-no-xattrs") {
				requireSame(t, bare, describe(t, image))
			} else {
				requireSame(t, want, describe(t, image))
			}
		})
	}
	t.Run("lzma", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "image")
		run(t, "mksquashfs", filepath.Join(root, "order"), file, "-no-progress", "-quiet", "-comp", "lzma")
		f, err := os.Open(file)
		require.NoError(t, err)
		defer f.Close()
		_, err = squash.Open(f)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, "lzma")
	})
}

// mount mounts an image with the kernel, in a mount namespace that ends with
// its one process, and returns a path into it.
func mount(t testing.TB, image string) string {
	t.Helper()
	need(t, "root", "mount", "unshare", "sh")
	dir := t.TempDir()
	// The mount lives as long as the process, which waits for its stdin.
	unshare, err := lookTool("unshare")
	require.NoError(t, err)
	cmd := exec.Command(unshare, "--mount", "--propagation", "private", "sh", "-c", `mount -t squashfs -o loop,ro "$1" "$2" && echo mounted && read x`, "sh", image, dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait() // sh's read failed, as it should
	})
	b := make([]byte, 8)
	n, _ := stdout.Read(b)
	require.Equal(t, "mounted\n", string(b[:n]), "%s", &stderr)
	return filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "root", dir)
}
