package guest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
)

// entry is one file of an archive: Unix type and permission bits, what is in
// it (a link's target for a symbolic link), and a device's number.
type entry struct {
	mode         uint32
	data         []byte
	major, minor uint32
}

const (
	typeDir     = 0o040000
	typeFile    = 0o100000
	typeSymlink = 0o120000
	typeChar    = 0o020000
)

// trailer is the name that ends an archive.
const trailer = "TRAILER!!!"

// archive is what goes into an initramfs, by name without a leading slash.
// Writing device nodes into it needs no privilege, which is why there is a
// writer here and not a directory given to cpio.
type archive map[string]entry

func (a archive) file(name string, perm fs.FileMode, data []byte) {
	a[name] = entry{mode: typeFile | uint32(perm.Perm()), data: data}
}

func (a archive) link(name, target string) {
	a[name] = entry{mode: typeSymlink | 0o777, data: []byte(target)}
}

func (a archive) dir(names ...string) {
	for _, name := range names {
		a[name] = entry{mode: typeDir | 0o755}
	}
}

// write writes the archive in the "newc" form that the kernel unpacks, sorted
// and without times, so that the same files make the same bytes. Directories
// on the way to a file are added.
func (a archive) write(w io.Writer) error {
	all := maps.Clone(a)
	for name := range a {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all.dir(dir)
			}
		}
	}
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if err := writeEntry(w, uint32(i+1), name, all[name]); err != nil {
			return err
		}
	}
	return writeEntry(w, 0, trailer, entry{})
}

func writeEntry(w io.Writer, inode uint32, name string, e entry) error {
	links := 1
	if e.mode&0o170000 == typeDir {
		links = 2
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		inode, e.mode, 0, 0, links, 0, len(e.data), 0, 0, e.major, e.minor, len(name)+1, 0, name)
	pad(&b)
	b.Write(e.data)
	pad(&b)
	_, err := w.Write(b.Bytes())
	return err
}

// pad fills up to the next multiple of four, at which headers and data begin.
func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}
