package guest

import (
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// Debian is a minimal Debian with systemd, as mmdebstrap makes it.
type Debian struct {
	Image    string // the file vmlinuz
	Initrd   string // made by initramfs-tools, when the kernel was installed
	SquashFS string // the root file system
	Ext4     string // the same, with room to write
}

// ext4Size leaves room for what a machine writes.
const ext4Size = 512 << 20

// debianPackages is what makes a root file system boot from the network with a
// stock initramfs, and what a test asks of it.
const debianPackages = "linux-image-cloud-amd64,initramfs-tools,nbd-client,busybox,zstd,systemd-sysv,dbus,udev,kmod,iproute2,procps,openssh-server,cron"

// MinimalDebian has mmdebstrap make a root file system with a kernel in it and
// nothing of ours: a minute or two, once. It needs root or user namespaces, the
// network, and Debian.
func MinimalDebian(ctx context.Context, cacheDir string) (*Debian, error) {
	name := fmt.Sprintf("debian-%08x", crc32.ChecksumIEEE([]byte(debianPackages)))
	dir, err := once(ctx, cacheDir, name, func(dir string) error {
		suite, err := debianSuite()
		if err != nil {
			return err
		}
		out := filepath.Join(dir, name)
		if err := os.Mkdir(out, 0o755); err != nil {
			return err
		}
		tar := filepath.Join(dir, "root.tar")
		err = mmdebstrap(ctx, dir, "--variant=minbase",
			"--aptopt=APT::Install-Recommends \"false\"", "--include="+debianPackages,
			// What nobody reads here is half of the files.
			"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/man/*",
			`--customize-hook=cp "$1"/boot/vmlinuz-* "$1/kernel.out" && cp "$1"/boot/initrd.img-* "$1/initrd.out"`,
			"--customize-hook=download /kernel.out "+filepath.Join(out, "vmlinuz"),
			"--customize-hook=download /initrd.out "+filepath.Join(out, "initrd"),
			`--customize-hook=rm "$1/kernel.out" "$1/initrd.out"`,
			suite, tar)
		if err != nil {
			return fmt.Errorf("%w; it needs root, or user namespaces and the package uidmap, and the network", err)
		}
		tree := filepath.Join(dir, "tree")
		if err := os.Mkdir(tree, 0o755); err != nil {
			return err
		}
		// The kernel fills /dev.
		if _, err := run(ctx, dir, "tar", "-xpf", tar, "-C", tree, "--numeric-owner", "--exclude=./dev/*"); err != nil {
			return err
		}
		if err := os.Remove(tar); err != nil {
			return err
		}
		// Not by our own packages: a test under the race detector may make it.
		_, err = run(ctx, dir, "mksquashfs", tree, filepath.Join(out, "root.squashfs"), "-quiet", "-no-progress", "-comp", "zstd", "-Xcompression-level", "3")
		if err != nil {
			return err
		}
		return Ext4(ctx, tree, filepath.Join(out, "root.ext4"), ext4Size)
	})
	if err != nil {
		return nil, fmt.Errorf("minimal Debian: %w", err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	return &Debian{Image: file("vmlinuz"), Initrd: file("initrd"), SquashFS: file("root.squashfs"), Ext4: file("root.ext4")}, nil
}

// mmdebstrap runs the program of that name without files that whoever started
// us left open: it has dash name its pipes, and dash knows one digit only.
func mmdebstrap(ctx context.Context, dir string, args ...string) error {
	path, err := lookTool("mmdebstrap")
	if err != nil {
		return err
	}
	script := `exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec "$0" "$@"`
	_, err = run(ctx, dir, "sh", append([]string{"-c", script, path}, args...)...)
	return err
}

// Unpack puts the root file system into a directory that is there already. It
// needs root, since files have owners.
func (d *Debian) Unpack(ctx context.Context, dir string) error {
	_, err := run(ctx, "", "unsquashfs", "-quiet", "-no-progress", "-force", "-dest", dir, d.SquashFS)
	if err != nil {
		return fmt.Errorf("minimal Debian: %w", err)
	}
	return nil
}
