package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Generator is a program that makes an initramfs for a distribution.
type Generator string

// The generators.
const (
	// InitramfsTools is Debian's own, with nbd-client's script for an NBD
	// root and the package overlayroot.
	InitramfsTools Generator = "initramfs-tools"
	// Dracut is the other one, with its module nbd.
	Dracut Generator = "dracut"
	// LiveBoot is initramfs-tools with Debian live's scripts, which fetch a
	// SquashFS image over HTTP into memory and lay an overlay over it.
	LiveBoot Generator = "live-boot"
)

// Stock is an initramfs as an administrator gets it, and its kernel.
type Stock struct {
	Image  string // the file vmlinuz
	Initrd string
}

// StockInitrd has mmdebstrap install a kernel and a generator in a chroot that
// is thrown away, and keeps the initramfs they made: one to two minutes, once.
// It needs root or user namespaces, the network, and Debian.
func StockInitrd(ctx context.Context, cacheDir string, g Generator) (*Stock, error) {
	recipe, ok := recipes[g]
	if !ok {
		return nil, fmt.Errorf("stock initrd: no generator %q", g)
	}
	dir, err := once(ctx, cacheDir, "stock-"+string(g), func(dir string) error {
		suite, err := debianSuite()
		if err != nil {
			return err
		}
		out := filepath.Join(dir, "stock-"+string(g))
		if err := os.Mkdir(out, 0o755); err != nil {
			return err
		}
		err = mmdebstrap(ctx, dir, "--quiet", "--variant=minbase", "--format=null",
			"--aptopt=APT::Install-Recommends \"false\"", "--include="+recipe.packages,
			"--essential-hook="+recipe.before,
			// The names in /boot have the version; download wants them exact.
			`--customize-hook=cp "$1"/boot/vmlinuz-* "$1/kernel.out" && cp "$1"/boot/initrd.img-* "$1/initrd.out"`,
			"--customize-hook=download /kernel.out "+filepath.Join(out, "vmlinuz"),
			"--customize-hook=download /initrd.out "+filepath.Join(out, "initrd"),
			suite, "/dev/null")
		if err != nil {
			return fmt.Errorf("%w; it needs root, or user namespaces and the package uidmap, and the network", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("stock initrd: %w", err)
	}
	return &Stock{Image: filepath.Join(dir, "vmlinuz"), Initrd: filepath.Join(dir, "initrd")}, nil
}

// recipes say what to install, and what to write into the chroot before.
var recipes = map[Generator]struct{ packages, before string }{
	InitramfsTools: {
		packages: "linux-image-cloud-amd64,initramfs-tools,nbd-client,busybox,zstd,overlayroot",
		// Up to Debian 12 squashfs is not among the modules put in by default.
		// The list of modules is a file of the package's, a hook is not.
		before: `mkdir -p "$1/etc/initramfs-tools/hooks" && cat >"$1/etc/initramfs-tools/hooks/squashfs" <<'END'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules squashfs overlay
END
chmod 755 "$1/etc/initramfs-tools/hooks/squashfs"`,
	},
	LiveBoot: {
		packages: "linux-image-cloud-amd64,initramfs-tools,live-boot,live-boot-initramfs-tools,busybox,zstd",
		before:   "true",
	},
	Dracut: {
		packages: "linux-image-cloud-amd64,dracut,dracut-network,nbd-client,zstd,isc-dhcp-client,iputils-arping,procps",
		before: `mkdir -p "$1/etc/dracut.conf.d" && cat >"$1/etc/dracut.conf.d/diskless.conf" <<'END'
hostonly=no
compress=zstd
add_dracutmodules+=" nbd network-legacy "
omit_dracutmodules+=" systemd systemd-initrd dracut-systemd "
add_drivers+=" squashfs overlay virtio_net virtio_rng nbd ext4 "
END`,
	},
}

// debianSuite returns this Debian's code name.
func debianSuite() (string, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(release)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[key] = strings.Trim(value, `"`)
	}
	if values["ID"] != "debian" || values["VERSION_CODENAME"] == "" {
		return "", errors.New("made on Debian releases only")
	}
	return values["VERSION_CODENAME"], nil
}
