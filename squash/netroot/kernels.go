package netroot

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Kernel is a kernel of a tree, with its initrd.
type Kernel struct {
	// Version is what follows the dash in the file's name, "6.1.0-18-amd64";
	// empty for a file that is just vmlinuz.
	Version string
	// Path and Initrd are paths in the tree; Initrd is empty when the kernel
	// has none.
	Path, Initrd string
	// Size and InitrdSize are lengths in bytes.
	Size, InitrdSize int64
	// Digest and InitrdDigest are the SHA-256 of the files' content.
	Digest, InitrdDigest [sha256.Size]byte
}

// Kernels lists the kernels in /boot of a tree, the newest version first: the
// files vmlinuz-*, vmlinux-* and kernel-*, or vmlinuz alone where there is no
// other, and initrd.img-*, initrd-*, initrd-*.img, initramfs-*.img of the same
// version. Only regular files count: what is a symbolic link has another name.
// The content of all is read once. No kernel at all is [fs.ErrNotExist].
func Kernels(ctx context.Context, fsys fs.FS) ([]Kernel, error) {
	list, err := fs.ReadDir(fsys, "boot")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("netroot: %w", err)
	}
	names := make(map[string]bool)
	for _, e := range list {
		names[e.Name()] = e.Type().IsRegular()
	}
	kernels := pair(names)
	if len(kernels) == 0 {
		return nil, fmt.Errorf("netroot: boot/vmlinuz-*: no kernel in the tree: %w", fs.ErrNotExist)
	}
	for i := range kernels {
		k := &kernels[i]
		if k.Size, k.Digest, err = digest(ctx, fsys, k.Path); err != nil {
			return nil, fmt.Errorf("netroot: %w", err)
		}
		if k.Initrd == "" {
			continue
		}
		if k.InitrdSize, k.InitrdDigest, err = digest(ctx, fsys, k.Initrd); err != nil {
			return nil, fmt.Errorf("netroot: %w", err)
		}
	}
	return kernels, nil
}

// pair finds kernels and their initrds among the regular files of /boot.
func pair(names map[string]bool) []Kernel {
	var list []Kernel
	for name, regular := range names {
		version, ok := kernelVersion(name)
		if !ok || !regular || version == "" {
			continue
		}
		list = append(list, Kernel{Version: version, Path: path.Join("boot", name)})
	}
	if len(list) == 0 && names["vmlinuz"] {
		list = append(list, Kernel{Path: "boot/vmlinuz"})
	}
	for i := range list {
		k := &list[i]
		for _, pattern := range []string{"initrd.img-*", "initrd-*", "initrd-*.img", "initramfs-*.img", "initramfs-*"} {
			name := strings.Replace(pattern, "*", k.Version, 1)
			if k.Version == "" {
				name = strings.Replace(pattern, "-*", "", 1)
			}
			if names[name] {
				k.Initrd = path.Join("boot", name)
				break
			}
		}
	}
	slices.SortFunc(list, func(a, b Kernel) int {
		return cmp.Or(compareVersions(b.Version, a.Version), cmp.Compare(a.Path, b.Path))
	})
	return list
}

func kernelVersion(name string) (string, bool) {
	if name == "vmlinuz" {
		return "", true
	}
	for _, prefix := range []string{"vmlinuz-", "vmlinux-", "kernel-"} {
		if v, ok := strings.CutPrefix(name, prefix); ok && v != "" && !strings.HasSuffix(v, ".old") && !strings.HasSuffix(v, ".bak") {
			return v, true
		}
	}
	return "", false
}

func isInitrd(name string) bool {
	return (strings.HasPrefix(name, "initrd") || strings.HasPrefix(name, "initramfs")) && !strings.HasSuffix(name, ".old") && !strings.HasSuffix(name, ".bak")
}

// compareVersions orders versions of kernels: numbers by their value, so that
// 6.10 is above 6.9, a number above text and above nothing, but a pre-release
// ("~", "-rc") below.
func compareVersions(a, b string) int {
	for a != "" || b != "" {
		if d := cmp.Compare(pre(b), pre(a)); d != 0 {
			return d
		}
		na, ra, okA := number(a)
		nb, rb, okB := number(b)
		switch {
		case okA && okB:
			if d := cmp.Or(cmp.Compare(len(na), len(nb)), cmp.Compare(na, nb)); d != 0 {
				return d
			}
			a, b = ra, rb
		case a == "" || b == "" || okA || okB:
			return cmp.Or(cmp.Compare(digit(okA), digit(okB)), cmp.Compare(a, b))
		case a[0] != b[0]:
			return cmp.Compare(a[0], b[0])
		default:
			a, b = a[1:], b[1:]
		}
	}
	return 0
}

// pre is 1 where a pre-release's mark begins.
func pre(s string) int {
	if strings.HasPrefix(s, "~") || strings.HasPrefix(s, "-rc") {
		return 1
	}
	return 0
}

func digit(ok bool) int {
	if ok {
		return 1
	}
	return 0
}

// number cuts a number off, without its leading zeros.
func number(s string) (n, rest string, ok bool) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return strings.TrimLeft(s[:i], "0"), s[i:], i > 0
}

func digest(ctx context.Context, fsys fs.FS, name string) (n int64, sum [sha256.Size]byte, err error) {
	h := sha256.New()
	n, err = copyFile(ctx, h, fsys, name)
	return n, [sha256.Size]byte(h.Sum(nil)), err
}

func copyFile(ctx context.Context, w io.Writer, fsys fs.FS, name string) (int64, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return io.Copy(contextWriter{ctx, w}, f)
}

type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (w contextWriter) Write(p []byte) (int, error) {
	if err := context.Cause(w.ctx); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

// CopyKernel writes a kernel and its initrd into a directory under the names
// that they have in /boot, each complete or not at all and only if it still has
// the digest that [Kernels] found. What is there under such a name already is
// replaced.
func CopyKernel(ctx context.Context, fsys fs.FS, k Kernel, dir string) error {
	if k.Initrd != "" { // first, so that no kernel stands there without its initrd
		if err := copyTo(ctx, fsys, k.Initrd, k.InitrdDigest, dir); err != nil {
			return fmt.Errorf("netroot: %w", err)
		}
	}
	if err := copyTo(ctx, fsys, k.Path, k.Digest, dir); err != nil {
		return fmt.Errorf("netroot: %w", err)
	}
	return nil
}

func copyTo(ctx context.Context, fsys fs.FS, name string, want [sha256.Size]byte, dir string) (err error) {
	base := path.Base(name)
	f, err := os.OpenFile(filepath.Join(dir, "."+base+"."+rand.Text()+".tmp"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	h := sha256.New()
	if _, err := copyFile(ctx, io.MultiWriter(f, h), fsys, name); err != nil {
		return err
	}
	if [sha256.Size]byte(h.Sum(nil)) != want {
		return &fs.PathError{Op: "copy", Path: name, Err: errors.New("its content is not what it was when it was listed; list the kernels again")}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, base))
}
