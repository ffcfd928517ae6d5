package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing/fstest"
)

//go:embed files/root-init
var rootInit []byte

// Root returns the guest's root file system: busybox, /sbin/init, the marker
// in /etc/marker, files of many sizes, and the checksum of all of them in
// /etc/sha256sums. Everything is owned by root. An image made from it needs
// nothing else; a marker that nobody could guess shows which image was booted.
// The file srv/unread is not read at boot; its checksum is in
// /etc/unread.sha256.
//
// The tree has symbolic links: it is an [fs.ReadLinkFS].
func Root(marker string) (fs.FS, error) {
	a := archive{}
	if err := a.addBusybox(); err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	a.file("etc/marker", 0o644, []byte(marker+"\n"))
	a.file("etc/passwd", 0o644, []byte("root::0:0:root:/root:/bin/sh\n"))
	a.file("etc/group", 0o644, []byte("root:x:0:\n"))
	a.file("sbin/init", 0o755, rootInit)
	// Around the sizes where a block, a page or a fragment ends.
	for _, size := range []int{0, 1, 511, 4096, 4097, 131072, 131073, 1 << 20} {
		name := fmt.Sprintf("srv/data/%07d", size)
		a.file(name, 0o644, filling(marker+name, size))
	}
	var sums strings.Builder
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if e := a[name]; e.mode&0o170000 == typeFile {
			fmt.Fprintf(&sums, "%x  /%s\n", sha256.Sum256(e.data), name)
		}
	}
	a.file("etc/sha256sums", 0o644, []byte(sums.String()))
	unread := filling(marker+"unread", 1<<20)
	a.file("srv/unread", 0o644, unread)
	a.file("etc/unread.sha256", 0o644, fmt.Appendf(nil, "%x  /srv/unread\n", sha256.Sum256(unread)))
	a.dir("dev", "media", "mnt", "proc", "root", "run", "sys", "tmp", "var")

	tree := fstest.MapFS{}
	for name, e := range a {
		f := &fstest.MapFile{Data: e.data, Mode: fs.FileMode(e.mode & 0o777)}
		switch e.mode & 0o170000 {
		case typeDir:
			f.Mode |= fs.ModeDir
		case typeSymlink:
			f.Mode |= fs.ModeSymlink
		}
		tree[name] = f
		for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
			if _, ok := a[dir]; !ok {
				tree[dir] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
			}
		}
	}
	return tree, nil
}

// filling is size bytes that follow from a name and compress by half.
func filling(name string, size int) []byte {
	var b bytes.Buffer
	block := sha256.Sum256([]byte(name))
	for b.Len() < size {
		b.Write(block[:])
		b.Write(make([]byte, len(block)))
		block = sha256.Sum256(block[:])
	}
	return b.Bytes()[:size:size]
}

// WriteTree writes a tree of directories, files and symbolic links into dir,
// which is made if need be, with the tree's permissions. [os.CopyFS] would
// drop some of them.
func WriteTree(dir string, tree fs.FS) error {
	return fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path := filepath.Join(dir, name)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch d.Type() {
		case fs.ModeDir:
			return os.MkdirAll(path, 0o755)
		case fs.ModeSymlink:
			target, err := fs.ReadLink(tree, name)
			if err != nil {
				return err
			}
			return os.Symlink(target, path)
		case 0:
			data, err := fs.ReadFile(tree, name)
			if err != nil {
				return err
			}
			if err := os.WriteFile(path, data, 0o600); err != nil {
				return err
			}
			return os.Chmod(path, info.Mode().Perm())
		}
		return &fs.PathError{Op: "write", Path: name, Err: fs.ErrInvalid}
	})
}

// Ext4 makes an ext4 image of size bytes from the directory tree, with mke2fs
// and without privilege. The file out must not exist.
func Ext4(ctx context.Context, tree, out string, size int64) error {
	f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		_, err = run(ctx, "", "mke2fs", "-q", "-F", "-t", "ext4", "-d", tree,
			"-E", "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0", out)
	}
	if err != nil {
		os.Remove(out)
		return fmt.Errorf("ext4 image %s: %w", out, err)
	}
	return nil
}
