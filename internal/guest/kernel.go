package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Kernel is a kernel package, unpacked and not installed.
type Kernel struct {
	Version string // as in "6.1.0-56-cloud-amd64"
	Image   string // the file vmlinuz
	Modules string // the directory lib/modules/VERSION
}

// FetchKernel returns Debian's kernel for virtual machines, from the cache or
// else by apt-get download, which needs no privilege, but the network and
// package lists. Concurrent calls, from other processes too, fetch it once.
func FetchKernel(ctx context.Context, cacheDir string) (*Kernel, error) {
	dir, err := once(ctx, cacheDir, "kernel", func(dir string) error {
		name, err := kernelPackage(ctx)
		if err != nil {
			return err
		}
		return unpack(ctx, dir, name, filepath.Join(dir, "kernel"))
	})
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if len(images) != 1 {
		return nil, fmt.Errorf("kernel: %d files boot/vmlinuz-* in %s; remove that directory to fetch the package again", len(images), dir)
	}
	version := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	modules := filepath.Join(dir, "lib", "modules", version)
	if _, err := os.Stat(modules); err != nil {
		// A merged /usr: the package may have its modules there.
		modules = filepath.Join(dir, "usr", "lib", "modules", version)
	}
	return &Kernel{Version: version, Image: images[0], Modules: modules}, nil
}

// kernelPackage asks apt which image the cloud kernel's metapackage stands for.
func kernelPackage(ctx context.Context) (string, error) {
	if runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("no guest for %s: machines are amd64 only", runtime.GOARCH)
	}
	out, err := run(ctx, "", "apt-cache", "depends", "--important", "linux-image-cloud-amd64")
	if err == nil {
		for line := range strings.Lines(out) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
				return "linux-image-" + name, nil
			}
		}
		err = errors.New("apt-cache names no image package for linux-image-cloud-amd64")
	}
	return "", fmt.Errorf("%w; run `apt-get update` first (needs the network and Debian's package sources)", err)
}

// unpack fetches a Debian package into dir and unpacks it into target.
func unpack(ctx context.Context, dir, name, target string) error {
	// apt's own sandbox user may not write here, and apt warns about it.
	if _, err := run(ctx, dir, "apt-get", "-q", "-o", "APT::Sandbox::User=", "download", name); err != nil {
		return fmt.Errorf("%w; run `apt-get update` first, and see that the package mirror can be reached", err)
	}
	debs, _ := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages", name, len(debs))
	}
	_, err := run(ctx, dir, "dpkg-deb", "-x", debs[0], target)
	return err
}

// run runs a tool and returns its output; its error has what the tool said.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	path, err := lookTool(name)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stderr.String())
		if len(said) > 2000 {
			said = "..." + said[len(said)-2000:]
		}
		return "", fmt.Errorf("%s: %w: %s", name, err, said)
	}
	return stdout.String(), nil
}

// packages says where the tools come from, for messages.
var packages = map[string]string{
	"apt-cache": "apt", "apt-get": "apt", "dpkg-deb": "dpkg",
	"busybox": "busybox-static", "nbd-client": "nbd-client",
	"mke2fs": "e2fsprogs", "mmdebstrap": "mmdebstrap", "mksquashfs": "squashfs-tools", "unsquashfs": "squashfs-tools",
}

// lookTool finds a program in PATH and in the directories for administrators,
// which are not in everyone's.
func lookTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w; install the package %s", err, packages[name])
}
