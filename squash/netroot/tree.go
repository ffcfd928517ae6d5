package netroot

import (
	"context"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/seed-3ec230fa/diskless/squash"
)

// What is kept in memory of the tree: the text of small files that checks
// read. No configuration file that means anything is larger.
const (
	maxText  = 256 << 10
	maxTexts = 16 << 20
)

// minSwap is where files begin of which somebody may make swap, under any name.
const minSwap = 1 << 20

// tree is what the checks need to know of a source.
type tree struct {
	files map[string]*file
	bytes int
}

type file struct {
	*squash.Entry
	text string // of those that textual names
}

// wanted are the names that checks look at: whole directories below which
// everything is listed, by one level or all.
func wanted(name string) bool {
	switch dir, base := path.Split(name); strings.TrimSuffix(dir, "/") {
	case "", "boot", "sbin", "usr/sbin", "etc", "lib/modules", "usr/lib/modules", "tmp", "var/tmp", "media", "etc/ssh",
		"etc/NetworkManager/conf.d", "etc/netplan", "lib/systemd", "usr/lib/systemd", "var/lib/dbus":
		return true
	case "var/lib/systemd":
		return base == "random-seed"
	case "etc/udev/rules.d":
		return strings.HasPrefix(base, "70-persistent-")
	case "var/lib/dhcp", "var/lib/NetworkManager":
		return strings.HasSuffix(base, ".leases") || strings.HasSuffix(base, ".lease")
	}
	if dir := path.Dir(name); strings.HasSuffix(dir, ".wants") && strings.HasSuffix(path.Dir(dir), "systemd/system") {
		return strings.HasSuffix(name, ".timer")
	}
	return textual(name) || strings.HasPrefix(name, "var/log/") || strings.HasPrefix(name, "etc/systemd/network/")
}

func isUnit(base string) bool {
	return slices.Contains([]string{".timer", ".service", ".mount", ".swap"}, path.Ext(base))
}

func textual(name string) bool {
	dir := path.Dir(name)
	return isCrontab(name) || slices.Contains(jobDirs, dir) || slices.Contains(unitDirs, dir) && isUnit(name) ||
		name == "etc/fstab" || name == "etc/machine-id" || name == "etc/hostname" || name == "etc/resolv.conf" || name == "var/lib/dbus/machine-id" ||
		dir == "etc/network" || dir == "etc/network/interfaces.d" || dir == "etc/systemd/network" || path.Base(name) == "modules.builtin" && strings.Contains(name, "lib/modules/")
}

// read goes through a source once. see is called for kernels' initrds while
// their content can be read.
func read(ctx context.Context, src squash.Source, see func(name string, r io.Reader) error) (*tree, error) {
	t := &tree{files: make(map[string]*file)}
	for e, err := range src.Entries(ctx) {
		if err != nil {
			return nil, err
		}
		if !wanted(e.Path) && !(e.Mode.IsRegular() && e.Size >= minSwap) {
			continue
		}
		if len(e.Xattrs) > 0 && !textual(e.Path) { // which nobody asks for, and may have 1 MiB
			c := *e
			c.Xattrs = nil
			e = &c
		}
		f := &file{Entry: e}
		t.files[e.Path] = f
		if err := t.content(f, see); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// content reads what a file is wanted for.
func (t *tree) content(f *file, see func(name string, r io.Reader) error) error {
	initrd := path.Dir(f.Path) == "boot" && isInitrd(path.Base(f.Path))
	r := f.Content
	if !f.Mode.IsRegular() || !initrd && !textual(f.Path) || f.Open == nil && r == nil {
		return nil // or another name of a file
	}
	if f.Open != nil {
		c, err := f.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		r = c
	}
	if initrd {
		return see(f.Path, r)
	}
	if f.Size > maxText || t.bytes > maxTexts {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(r, maxText))
	f.text = string(b)
	t.bytes += len(b)
	return err
}

// get returns a file by its name, after symbolic links of the directories that
// distributions have moved below /usr.
func (t *tree) get(name string) *file {
	if f := t.files[name]; f != nil {
		return f
	}
	first, rest, _ := strings.Cut(name, "/")
	if link := t.files[first]; link != nil && rest != "" && link.Mode&fs.ModeSymlink != 0 {
		return t.files[path.Join(strings.TrimPrefix(link.Target, "/"), rest)]
	}
	return nil
}

// below returns the names right below a directory that match.
func (t *tree) below(dir string, match func(base string) bool) []string {
	var list []string
	for name := range t.files {
		if path.Dir(name) == dir && match(path.Base(name)) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}
