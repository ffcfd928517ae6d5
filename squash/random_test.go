package squash_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/seed-3ec230fa/diskless/squash"
)

// randomTree makes a tree on disk of what a seed says: names, types, owners,
// contents that share blocks and tails, holes, links, attributes.
func randomTree(t testing.TB, seed uint64, entries int) string {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	root := filepath.Join(t.TempDir(), "tree")
	require.NoError(t, os.Mkdir(root, 0o755))
	dirs := []string{root}
	var files, all []string // that hard links may be made of; of which attributes are set
	piece := func() []byte {
		b := make([]byte, []int{1, 100, 4095, 4096, 4097, 8192, 20000}[r.IntN(7)])
		switch r.IntN(4) {
		case 0: // zeros
		case 1:
			copy(b, noise(uint64(r.IntN(4)), len(b)))
		default:
			copy(b, text(len(b)))
		}
		return b
	}
	letters := []string{"a", "B", ".", "-", "_", "é", " ", "\xfe", "\n", "0", "long-name-"}
	for i := range entries {
		var name strings.Builder
		fmt.Fprintf(&name, "%s%d", letters[r.IntN(len(letters))], i)
		for range r.IntN(6) {
			name.WriteString(letters[r.IntN(len(letters))])
		}
		p := filepath.Join(dirs[r.IntN(len(dirs))], name.String())
		switch k := r.IntN(20); {
		case k < 4:
			require.NoError(t, os.Mkdir(p, 0o755))
			dirs = append(dirs, p)
		case k < 6:
			require.NoError(t, os.Symlink(strings.Repeat("../x", 1+r.IntN(40)), p))
		case k < 7:
			require.NoError(t, unix.Mknod(p, []uint32{unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK}[r.IntN(4)]|0o644, int(unix.Mkdev(r.Uint32N(4096), r.Uint32N(1<<20)))))
		case k < 9 && len(files) > 0:
			require.NoError(t, os.Link(files[r.IntN(len(files))], p))
			continue
		default:
			var b []byte
			for range r.IntN(5) {
				b = append(b, piece()...)
			}
			require.NoError(t, os.WriteFile(p, b, 0o600))
			if r.IntN(10) == 0 {
				require.NoError(t, os.Truncate(p, int64(len(b)+r.IntN(100000))))
			}
		}
		if k := len(dirs); dirs[k-1] != p {
			files = append(files, p)
		}
		all = append(all, p)
	}
	for _, p := range all {
		fi, err := os.Lstat(p)
		require.NoError(t, err)
		require.NoError(t, os.Lchown(p, int(r.Uint32N(1<<r.IntN(32))), int(r.Uint32N(1<<r.IntN(32)))))
		if fi.Mode()&fs.ModeSymlink == 0 {
			require.NoError(t, unix.Chmod(p, r.Uint32N(0o10000)))
		}
		for range max(0, r.IntN(6)-3) {
			attr := []string{"trusted.a", "trusted.b", "security.c"}[r.IntN(3)]
			require.NoError(t, unix.Lsetxattr(p, attr, noise(uint64(r.IntN(3)), r.IntN(900)), 0))
		}
	}
	for _, p := range append(all, root) {
		ts := unix.NsecToTimespec(int64(r.Uint32()) * 1e9)
		require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
	return root
}

// Trees of chance, there and back by every way that there is: our writer and
// mksquashfs's, our reader, Linux, unsquashfs, a tar, an extraction, a base.
func TestRandomTrees(t *testing.T) {
	need(t, "root", "unsquashfs", "mksquashfs", "tar")
	seed := uint64(time.Now().UnixNano())
	for i, opts := range []squash.Options{
		{BlockSize: 4096}, {Compressor: squash.Gzip{}, BlockSize: 8192, FragmentSize: 3000}, {Compressor: squash.LZ4{}, BlockSize: 4096, FragmentSize: -1},
	} {
		seed := seed + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			root := randomTree(t, seed, 150)
			want := describe(t, dirFS(root))
			dir := t.TempDir()
			file := filepath.Join(dir, "image")
			require.NoError(t, squash.BuildFile(t.Context(), file, squash.Dir(root), &opts))
			f, err := os.Open(file)
			require.NoError(t, err)
			defer f.Close()
			require.Empty(t, defects(t, f))
			image, err := squash.Open(f)
			require.NoError(t, err)
			requireSame(t, want, describe(t, image))
			requireSame(t, want, describe(t, dirFS(mount(t, file))))
			run(t, "unsquashfs", "-strict-errors", "-quiet", "-no-progress", "-d", dir+"/un", file)
			requireSame(t, want, describe(t, dirFS(dir+"/un")))
			_, err = squash.Extract(t.Context(), dir+"/ex", image, nil)
			require.NoError(t, err)
			requireSame(t, want, describe(t, dirFS(dir+"/ex")))
			was, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, rule := range []squash.Unchanged{squash.ByContent, squash.BySizeAndTime} {
				o := opts
				o.Base, o.Unchanged = image, rule
				require.Equal(t, was, buildBytes(t, dirFS(root), &o))
			}

			run(t, "mksquashfs", root, dir+"/mk", "-no-progress", "-quiet", "-b", "4096")
			mk, err := os.Open(dir + "/mk")
			require.NoError(t, err)
			defer mk.Close()
			require.Empty(t, defects(t, mk))
			theirs, err := squash.Open(mk)
			require.NoError(t, err)
			for c, err := range squash.Diff(t.Context(), image, theirs) {
				require.NoError(t, err)
				// mksquashfs makes hard-linked symbolic links two files.
				require.True(t, c.What == squash.DiffLinks && c.Old.Mode&fs.ModeSymlink != 0, "%s: %v", c.Path, c.What)
			}

			archive, err := os.Create(dir + "/tar")
			require.NoError(t, err)
			defer archive.Close()
			sockets, err := squash.WriteTar(t.Context(), archive, image)
			require.NoError(t, err)
			require.NoError(t, os.Mkdir(dir+"/untar", 0o755))
			run(t, "tar", "-C", dir+"/untar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--delay-directory-restore", "-xpf", dir+"/tar")
			got := describe(t, dirFS(dir+"/untar"))
			for name, line := range want {
				if line[0] == 'S' {
					sockets--
				} else {
					require.Equal(t, line, got[name], "%q", name)
				}
			}
			require.Zero(t, sockets)
		})
	}
}
