package squash_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/seed-3ec230fa/diskless/squash"
)

func noise(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

func text(n int) []byte {
	return []byte(strings.Repeat("a line that compresses well\n", n/28+1)[:n])
}

// describe renders a tree as one line a name: everything that an image must
// keep. Hard links appear as the first name of the file.
func describe(t testing.TB, fsys fs.FS) map[string]string {
	t.Helper()
	if src, ok := fsys.(squash.Source); ok {
		return describeEntries(t, src)
	}
	out := map[string]string{}
	first := map[string]string{}
	require.NoError(t, fs.WalkDir(fsys, ".", func(name string, de fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := de.Info()
		if err != nil {
			return err
		}
		var st squash.Stat
		switch s := fi.Sys().(type) {
		case *squash.Stat:
			st = *s
		case *syscall.Stat_t:
			st = squash.Stat{Uid: s.Uid, Gid: s.Gid, Major: unix.Major(uint64(s.Rdev)), Minor: unix.Minor(uint64(s.Rdev)),
				Nlink: uint32(s.Nlink), Ino: s.Ino, Dev: uint64(s.Dev)}
		}
		mtime := fi.ModTime()
		if mtime.IsZero() {
			mtime = time.Unix(0, 0) // no time
		}
		line := fmt.Sprintf("%v %d:%d mtime %d", fi.Mode(), st.Uid, st.Gid, mtime.Unix())
		if fi.Mode().Type()&fs.ModeDevice != 0 {
			line += fmt.Sprintf(" dev %d:%d", st.Major, st.Minor)
		}
		if !fi.IsDir() {
			key := fmt.Sprint(st.Dev, st.Ino)
			if st.Nlink > 1 && first[key] != "" {
				line += " = " + first[key]
			}
			first[key] = name
			line += fmt.Sprintf(" links %d", max(st.Nlink, 1))
		}
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := fs.ReadLink(fsys, name)
			if err != nil {
				return err
			}
			line += " -> " + target
		case fi.Mode().IsRegular():
			f, err := fsys.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			h := sha256.New()
			n, err := io.Copy(h, f)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d bytes %x", n, h.Sum(nil)[:8])
			if n != fi.Size() {
				line += fmt.Sprintf(" but size %d", fi.Size())
			}
		}
		out[name] = line
		return nil
	}))
	return out
}

// dirFS is a directory, to describe with extended attributes and all names.
type dirTree struct {
	fs.FS
	squash.Source
}

func dirFS(path string) fs.FS { return dirTree{os.DirFS(path), squash.Dir(path)} }

func describeEntries(t testing.TB, src squash.Source) map[string]string {
	t.Helper()
	out := map[string]string{}
	first := map[string]string{}
	names := map[string]int{}
	buf := make([]byte, 64<<10)
	for e, err := range src.Entries(t.Context()) {
		require.NoError(t, err)
		mtime := e.ModTime
		if mtime.IsZero() {
			mtime = time.Unix(0, 0)
		}
		line := fmt.Sprintf("%v %d:%d mtime %d", e.Mode, e.Uid, e.Gid, mtime.Unix())
		if e.Mode.Type()&fs.ModeDevice != 0 {
			line += fmt.Sprintf(" dev %d:%d", e.Major, e.Minor)
		}
		if !e.Mode.IsDir() {
			key := fmt.Sprint(e.Dev, e.Ino)
			if e.Nlink > 1 && names[key] > 0 {
				line += " = " + first[key]
			}
			names[key]++
			first[key] = e.Path
			line += fmt.Sprintf(" links %d", max(e.Nlink, 1))
		}
		switch {
		case e.Mode&fs.ModeSymlink != 0:
			line += " -> " + e.Target
		case e.Mode.IsRegular():
			f, err := e.Open()
			require.NoError(t, err)
			h := sha256.New()
			r := io.Reader(f)
			if _, ok := f.(*os.File); ok {
				r = struct{ io.Reader }{f} // whose WriteTo would take memory for each
			}
			n, err := io.CopyBuffer(h, r, buf)
			require.NoError(t, err, e.Path)
			require.NoError(t, f.Close())
			line += fmt.Sprintf(" %d bytes %x", n, h.Sum(nil)[:8])
			if n != e.Size {
				line += fmt.Sprintf(" but size %d", e.Size)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			line += fmt.Sprintf(" %s=%q", name, e.Xattrs[name])
		}
		out[e.Path] = line
	}
	return out
}

// requireSame compares two trees name by name, for messages that can be read.
func requireSame(t testing.TB, want, got map[string]string) {
	t.Helper()
	require.NotEmpty(t, want)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if want[name] != got[name] { // require.Equal takes its time
			require.Equal(t, want[name], got[name], "%s", name)
		}
	}
	require.Len(t, got, len(want))
}

// torture makes a tree on disk, as root, with every feature that a root image
// has. The block size is what the odd sizes stand around; one directory has as
// many files as many says.
func torture(t testing.TB, block, many int) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	at := func(elem ...string) string { return filepath.Join(append([]string{root}, elem...)...) }
	mkdir := func(name string) { t.Helper(); require.NoError(t, os.MkdirAll(at(name), 0o755)) }
	put := func(name string, b []byte) { t.Helper(); require.NoError(t, os.WriteFile(at(name), b, 0o644)) }
	mkdir(".")
	require.NoError(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	require.NoError(t, unix.Mknod(at("bigdev"), unix.S_IFCHR|0o600, int(unix.Mkdev(300, 70000))))
	require.NoError(t, unix.Mknod(at("maxdev"), unix.S_IFBLK|0o660, int(unix.Mkdev(4095, 1048575))))
	require.NoError(t, unix.Mkfifo(at("fifo"), 0o622))
	require.NoError(t, unix.Mknod(at("socket"), unix.S_IFSOCK|0o755, 0))
	require.NoError(t, os.Symlink("null", at("rel")))
	require.NoError(t, os.Symlink("/nonexistent/target", at("dangling")))
	require.NoError(t, os.Symlink(strings.Repeat("y", 4095), at("longlink")))
	mkdir("sub")
	put("h1", []byte("linked"))
	put("h0big", text(3*block+5))
	for _, l := range [][2]string{{"h1", "h2"}, {"h1", "sub/h3"}, {"h0big", "sub/big"}, {"fifo", "fifo2"}, {"null", "null2"}, {"rel", "rel2"}, {"socket", "sub/socket2"}} {
		require.NoError(t, os.Link(at(l[0]), at(l[1])))
	}

	put("empty", nil)
	mkdir("emptydir")
	mkdir("emptydir2")
	for _, n := range []int{1, block - 1, block, block + 1, 2 * block, 2*block + 1, 5*block - 1} {
		put(fmt.Sprintf("noise%d", n), noise(uint64(n), n))
		put(fmt.Sprintf("text%d", n), text(n))
		put(fmt.Sprintf("zero%d", n), make([]byte, n))
	}
	hole := append(noise(7, block), make([]byte, 2*block)...)
	put("hole", append(hole, noise(8, 1000)...))
	sparse, err := os.Create(at("sparse"))
	require.NoError(t, err)
	_, err = sparse.WriteAt([]byte("end"), 600*4096+10) // more words than are read at once, in the smallest blocks
	require.NoError(t, err)
	require.NoError(t, sparse.Close())

	for name, mode := range map[string]uint32{"suid": 0o4755, "sgid": 0o2755, "noperm": 0, "all": 0o7777} {
		put(name, []byte(name))
		require.NoError(t, unix.Chmod(at(name), mode))
	}
	mkdir("sticky")
	require.NoError(t, unix.Chmod(at("sticky"), 0o1777))
	for _, id := range []int64{1, 1000, 65534, 65536, 100000, 4294967294} {
		name := fmt.Sprintf("u%d", id)
		put(name, nil)
		require.NoError(t, os.Lchown(at(name), int(id), int(id%4000000000+1)))
	}
	require.NoError(t, os.Lchown(at("rel"), 7, 8))

	mkdir("d257")
	for i := range 257 {
		put(fmt.Sprintf("d257/e%03d", i), nil)
	}
	mkdir("many")
	for i := range many {
		put(fmt.Sprintf("many/file%05d_with_a_long_enough_name", i), fmt.Append(nil, i))
	}
	require.NoError(t, os.Link(at("h1"), at("many/link")))
	deep := strings.Repeat("deep/", 60)
	mkdir(deep)
	put(deep+"leaf", []byte("leaf"))
	put(strings.Repeat("n", 255), []byte("long"))
	put("bin\xff\xfe", []byte("not UTF-8"))
	mkdir("bin\xff")
	put("bin\xff/in", []byte("below"))

	put("dup1", text(5*block/2))
	put("dup2", text(5*block/2))
	put("dup3", append(text(2*block), "other tail"...))
	put("dup4", noise(9, 3*block+100))
	put("dup5", noise(9, 3*block+100))

	attr := func(name, attr, value string) {
		t.Helper()
		require.NoError(t, unix.Lsetxattr(at(name), attr, []byte(value), 0))
	}
	attr("h1", "user.comment", "hello")
	attr("h1", "trusted.t", "tv")
	attr("h1", "security.selinux", "system_u:object_r:bin_t:s0")
	attr("h1", "user.empty", "")
	attr("h1", "user.bin", "\x00\xff\n")
	for _, name := range []string{"dup1", "dup2", "emptydir2", "empty"} {
		attr(name, "user.big", strings.Repeat("Q", 3000))
		attr(name, "user.name", name)
	}
	for _, name := range []string{"null", "maxdev", "fifo", "socket", "rel", "longlink", "sub"} {
		attr(name, "trusted.on", name)
	}
	mkdir("manyattr")
	for i := range max(many/3, 100) {
		put(fmt.Sprintf("manyattr/x%d", i), nil)
		attr(fmt.Sprintf("manyattr/x%d", i), fmt.Sprintf("user.k%d", i%7), strings.Repeat("v", i%50)+fmt.Sprint(i))
	}
	for _, n := range []string{"A", "a", "B", "_", "-", ".x", "a.b", "a-b", "a b", "é", "~", "new\nline", "\x01ctl", "ünï→"} {
		mkdir("order")
		put("order/"+n, []byte(n))
	}

	require.NoError(t, filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		ts := []unix.Timespec{{Sec: 1580608922, Nsec: 5e8}, {Sec: 1580608922, Nsec: 5e8}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
	}))
	for name, sec := range map[string]int64{"empty": 0, "suid": 4102444800, "sticky": 1<<32 - 1} {
		require.NoError(t, os.Chtimes(at(name), time.Unix(sec, 0), time.Unix(sec, 0)))
	}
	return root
}

// fakeTree is a tree that tells its owners, devices and links itself, so that
// nobody needs to be root.
func fakeTree() fstest.MapFS {
	t0 := time.Unix(1580608922, 0)
	m := fstest.MapFS{}
	add := func(name string, mode fs.FileMode, data []byte, st *squash.Stat) {
		f := &fstest.MapFile{Data: data, Mode: mode, ModTime: t0}
		if st != nil {
			f.Sys = st
		}
		m[name] = f
	}
	const dirMode = fs.ModeDir | 0o755
	add("dev", dirMode, nil, nil)
	add("dev/console", fs.ModeDevice|fs.ModeCharDevice|0o600, nil, &squash.Stat{Major: 5, Minor: 1})
	add("dev/sda", fs.ModeDevice|0o660, nil, &squash.Stat{Gid: 6, Major: 8, Minor: 0})
	add("dev/big", fs.ModeDevice|0o660, nil, &squash.Stat{Major: 300, Minor: 70000})
	add("etc", dirMode, nil, nil)
	add("etc/passwd", 0o644, []byte("root:x:0:0:::\n"), nil)
	add("etc/shadow", 0o640, []byte("root:*:\n"), &squash.Stat{Gid: 42})
	add("bin", fs.ModeSymlink|0o777, []byte("usr/bin"), nil)
	add("usr", dirMode, nil, nil)
	add("usr/bin", dirMode, nil, nil)
	add("usr/bin/su", fs.ModeSetuid|0o755, text(300000), &squash.Stat{Ino: 77, Nlink: 2})
	add("usr/bin/su2", fs.ModeSetuid|0o755, text(300000), &squash.Stat{Ino: 77, Nlink: 2})
	add("usr/bin/sh", fs.ModeSymlink|0o777, []byte("/usr/bin/su"), nil)
	add("usr/noise", 0o600, noise(1, 131073), &squash.Stat{Uid: 4294967294, Gid: 100000})
	add("tmp", fs.ModeDir|fs.ModeSticky|0o777, nil, nil)
	add("run", dirMode, nil, nil)
	add("run/fifo", fs.ModeNamedPipe|0o600, nil, nil)
	add("run/socket", fs.ModeSocket|0o600, nil, nil)
	add("lib", dirMode, nil, nil)
	for i := range 300 {
		add(fmt.Sprintf("lib/module-%03d-with-a-rather-long-name.ko", i), 0o644, fmt.Append(nil, i), nil)
	}
	return m
}
