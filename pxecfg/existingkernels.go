package pxecfg

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Kernels makes a Config of the kernels that it finds in a directory: for each
// way to boot an entry with the newest kernel, and then one for every kernel.
// It holds all settings and the directory holds none, so nothing is lost when
// a kernel is added or removed and the entries are made anew. It is what LTSP
// 5's update-kernels and update-kernels.conf do; the setting's name there is
// given with each field.
//
// IFCPU64, with LIST_KERNELS_64, _PAE and _32, is not among them: no Entry asks
// what the CPU can do. Machines that need another kernel than Prefer finds are
// told apart by a [Rules], each with Kernels of its own.
type Kernels struct {
	// Label begins all labels: "ltsp" gives ltsp-NBD and ltsp-NBD-6.1.0-18.
	// Empty means "ltsp".
	Label string
	// Title begins all titles. Empty means Label in capitals.
	Title string
	// Methods are the ways to boot, the default first (BOOT_METHODS). There
	// is at least one.
	Methods []KernelMethod
	// Args are arguments for all of them (CMDLINE_LINUX_DEFAULT).
	Args []string
	// Names are patterns of the kernels' file names as path.Match has them,
	// a * for the version (KERNEL_NAMES). Empty means vmlinuz-*, vmlinux-*,
	// kernel-* and vmlinuz. What KERNEL_PREFIX and KERNEL_SUFFIX name stands
	// before and after the star.
	Names []string
	// Initrd are the initrd's names for a version, a * for it, tried in this
	// order (INITRD_NAME). Empty means initrd.img-*, initrd-*,
	// initrd-*.img, initramfs-*.img; for a kernel without a version the
	// character before the * goes too.
	Initrd []string
	// NoInitrd lists kernels without an initrd too. Otherwise they are left
	// out: an initrd may be on its way.
	NoInitrd bool
	// Prefer are patterns of versions in the order of preference
	// (LIST_KERNELS_DEFAULT), such as "*-amd64". What matches none comes
	// after, and within one pattern the newest is first. Empty prefers the
	// newest.
	Prefer []string
	// Default is the label that boots by default (PXELINUX_DEFAULT). Empty
	// means the first method's newest kernel.
	Default string
	// OnTimeout is the label that boots when nobody chooses, if it is another
	// (ONTIMEOUT).
	OnTimeout string
	// UI is PXELINUX's menu program: see Config.UI (PXELINUX_DEFAULT=menu).
	UI string
	// Timeout is the menu's: see Config.Timeout (TIMEOUT).
	Timeout time.Duration
	// SysAppend is the mask for all entries (IPAPPEND).
	SysAppend uint32
	// Change is called for each entry, to change it in place: for what holds
	// for one entry only. version is empty for a kernel without one. It may
	// be nil.
	Change func(e *Entry, method, version string)
}

// KernelMethod is one way in which a kernel finds its root (BOOT_METHODS).
type KernelMethod struct {
	// Name goes into labels and titles: "NBD".
	Name string
	// Root and Args are the arguments of this method (CMDLINE_NBD ...).
	Root Root
	Args []string
}

// KernelImage is a kernel that was found: paths in the tree.
type KernelImage struct {
	Version        string
	Kernel, Initrd string
}

// Find returns the kernels in a directory in the order of preference.
func (k *Kernels) Find(fsys fs.FS, dir string) ([]KernelImage, error) {
	files, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(files))
	for _, f := range files {
		names[f.Name()] = !f.IsDir()
	}
	patterns := k.Names
	if len(patterns) == 0 {
		patterns = []string{"vmlinuz-*", "vmlinux-*", "kernel-*", "vmlinuz"}
	}
	var found []KernelImage
	for _, f := range files {
		version, ok, err := kernelVersion(patterns, f.Name())
		if err != nil {
			return nil, err
		}
		if !ok || f.IsDir() {
			continue
		}
		img := KernelImage{Version: version, Kernel: path.Join(dir, f.Name())}
		for _, name := range k.initrdNames(version) {
			if names[name] {
				img.Initrd = path.Join(dir, name)
				break
			}
		}
		if img.Initrd != "" || k.NoInitrd {
			found = append(found, img)
		}
	}
	rank := func(version string) int {
		for i, p := range k.Prefer {
			if ok, _ := path.Match(p, version); ok {
				return i
			}
		}
		return len(k.Prefer)
	}
	slices.SortStableFunc(found, func(a, b KernelImage) int {
		if d := rank(a.Version) - rank(b.Version); d != 0 {
			return d
		}
		return compareVersions(b.Version, a.Version)
	})
	return found, nil
}

// kernelVersion returns what the star of the first pattern that matches stands
// for.
func kernelVersion(patterns []string, name string) (version string, ok bool, err error) {
	for _, p := range patterns {
		ok, err := path.Match(p, name)
		if err != nil {
			return "", false, fmt.Errorf("pattern %q: %w", p, err)
		}
		if ok {
			before, after, star := strings.Cut(p, "*")
			if !star || len(before)+len(after) > len(name) {
				return "", true, nil
			}
			return name[len(before) : len(name)-len(after)], true, nil
		}
	}
	return "", false, nil
}

func (k *Kernels) initrdNames(version string) []string {
	patterns := k.Initrd
	if len(patterns) == 0 {
		patterns = []string{"initrd.img-*", "initrd-*", "initrd-*.img", "initramfs-*.img"}
	}
	names := make([]string, len(patterns))
	for i, p := range patterns {
		before, after, _ := strings.Cut(p, "*")
		if version == "" && before != "" && before != p {
			before = before[:len(before)-1]
		}
		if before == p {
			version = ""
		}
		names[i] = before + version + after
	}
	return names
}

// Config returns the entries for the kernels in a directory of the tree. That
// there is none is an fs.ErrNotExist.
func (k *Kernels) Config(fsys fs.FS, dir string) (*Config, error) {
	images, err := k.Find(fsys, dir)
	switch {
	case err != nil:
		return nil, err
	case len(images) == 0:
		return nil, fmt.Errorf("no kernel with an initrd in %s: %w", dir, fs.ErrNotExist)
	case len(k.Methods) == 0:
		return nil, errors.New("kernels without a boot method: name at least one, such as NBD")
	}
	label, title := k.Label, k.Title
	if label == "" {
		label = "ltsp"
	}
	if title == "" {
		title = strings.ToUpper(label)
	}
	cfg := &Config{Default: k.Default, OnTimeout: k.OnTimeout, UI: k.UI, Timeout: k.Timeout}
	add := func(m KernelMethod, img KernelImage, suffix, with string) {
		e := Entry{
			Label: label + "-" + m.Name + suffix, Title: title + ", using " + m.Name + with,
			Kernel: img.Kernel, Root: m.Root, Args: append(slices.Clone(k.Args), m.Args...), SysAppend: k.SysAppend,
		}
		if img.Initrd != "" {
			e.Initrd = []string{img.Initrd}
		}
		if k.Change != nil {
			k.Change(&e, m.Name, img.Version)
		}
		cfg.Entries = append(cfg.Entries, e)
	}
	for _, m := range k.Methods {
		add(m, images[0], "", "")
	}
	for _, m := range k.Methods {
		for _, img := range images {
			if img.Version != "" {
				add(m, img, "-"+img.Version, ", with Linux "+img.Version)
			}
		}
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// compareVersions compares runs of digits by their value, and a tilde before
// anything else, as package managers do.
func compareVersions(a, b string) int {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	for a != "" || b != "" {
		if a != "" && b != "" && digit(a[0]) && digit(b[0]) {
			var x, y string
			x, a = cutDigits(a)
			y, b = cutDigits(b)
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			if c := strings.Compare(x, y); c != 0 {
				return c
			}
			continue
		}
		order := func(s string) int {
			switch {
			case s == "":
				return 0
			case s[0] == '~':
				return -1
			}
			return int(s[0]) + 1
		}
		if d := order(a) - order(b); d != 0 {
			return d
		}
		a, b = a[1:], b[1:]
	}
	return 0
}

// cutDigits cuts off leading digits, without zeros in front.
func cutDigits(s string) (digits, rest string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return strings.TrimLeft(s[:i], "0"), s[i:]
}
