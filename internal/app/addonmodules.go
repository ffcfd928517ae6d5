package app

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/ltsconf/initrd"
	"github.com/seed-3ec230fa/diskless/squash"
)

// moduleKey is what an archive of modules was made of. Kernel and image may be
// replaced at any time.
type moduleKey struct {
	kernel, image         string
	kernelTime, imageTime time.Time
	kernelSize, imageSize int64
}

// keepModules is how many archives stay for machines that are about to load
// one, beside one for each entry.
const keepModules = 8

// modulesFor returns the name of an archive with the modules that the entry's
// initramfs may lack: those of its kernel, out of its image. It is empty for
// a root that needs none, and where there are none to be found.
func (d *addons) modulesFor(e config.Entry) string {
	if e.Image == "" || e.Root != config.RootImage || d.app.images == nil {
		return ""
	}
	key := moduleKey{kernel: e.Kernel}
	for _, i := range d.app.cfg.Images {
		if i.Name == e.Image {
			key.image = i.File
		}
	}
	image, err := os.Stat(key.image)
	if err != nil {
		return ""
	}
	kernel, err := fs.Stat(d.app.tree.Files, strings.TrimPrefix(e.Kernel, "/"))
	if err != nil {
		return ""
	}
	key.imageTime, key.imageSize = image.ModTime(), image.Size()
	key.kernelTime, key.kernelSize = kernel.ModTime(), kernel.Size()

	d.mu.Lock()
	defer d.mu.Unlock()
	if name, ok := d.modules[key]; ok {
		return name
	}
	name := ""
	archive, err := d.readModules(key)
	switch {
	case err != nil:
		d.app.log.Warn("kernel modules are not added; the entry's initramfs has to have what its root needs", "entry", e.Name, "err", err)
	case archive != nil:
		sum := sha256.Sum256(archive)
		name = addonModules + hex.EncodeToString(sum[:8]) + ".img"
		if _, ok := d.archives[name]; !ok {
			d.archives[name] = archive
			d.order = append(d.order, name)
		}
		if len(d.order) > keepModules+len(d.app.cfg.Entries) {
			delete(d.archives, d.order[0])
			d.order = d.order[1:]
			clear(d.modules) // one may be the name of what is gone
		}
	}
	d.modules[key] = name
	return name
}

// readModules returns nothing for an image that is no SquashFS.
func (d *addons) readModules(key moduleKey) ([]byte, error) {
	f, err := os.Open(key.image)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil || string(magic[:]) != "hsqs" {
		return nil, nil
	}
	root, err := squash.Open(f)
	if err != nil {
		return nil, err
	}
	k, err := d.app.tree.Files.Open(strings.TrimPrefix(key.kernel, "/"))
	if err != nil {
		return nil, err
	}
	defer k.Close()
	kernel, ok := k.(io.ReaderAt)
	if !ok {
		return nil, fmt.Errorf("%s cannot be read at any place: %w", key.kernel, errors.ErrUnsupported)
	}
	version, err := initrd.KernelVersion(kernel)
	if errors.Is(err, fs.ErrInvalid) {
		if only := onlyVersion(root); only != "" {
			version, err = only, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key.kernel, err)
	}
	modules, err := initrd.ReadModules(root, version, initrd.DefaultModules()...)
	if err != nil && len(modules) == 0 {
		return nil, err
	}
	if err != nil {
		d.app.log.Warn("a kernel module is missing in the image", "image", key.image, "err", err)
	}
	if len(modules) == 0 {
		return nil, nil // all of it is in the kernel
	}
	return modules.Archive()
}

// onlyVersion is the kernel that an image has modules of, if it is one: kernels
// of other architectures than x86 do not say which they are.
func onlyVersion(root fs.FS) string {
	for _, dir := range []string{"usr/lib/modules", "lib/modules"} {
		if versions, err := fs.ReadDir(root, dir); err == nil {
			if len(versions) == 1 && versions[0].IsDir() {
				return versions[0].Name()
			}
			return ""
		}
	}
	return ""
}
