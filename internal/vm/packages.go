package vm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// pkg is a Debian package and the files that show it is there: one of each
// list. A name without a slash is a program.
type pkg struct {
	name  string
	files [][]string
}

var debian = []pkg{
	{"qemu-system-x86", [][]string{{"qemu-system-x86_64"}}},
	{"ipxe-qemu", [][]string{{"/usr/lib/ipxe/qemu/efi-virtio.rom"}}},
	{"ovmf", [][]string{ovmfCode, ovmfVars}},
	{"ipxe", [][]string{{"/usr/lib/ipxe/undionly.kpxe"}, {"/usr/lib/ipxe/snponly.efi"}, {ipxeKernel}}},
	{"pxelinux", [][]string{{"/usr/lib/PXELINUX/pxelinux.0"}}},
	{"syslinux-common", [][]string{{"/usr/lib/syslinux/modules/bios/ldlinux.c32"}}},
	{"grub-efi-amd64-signed", [][]string{{"/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"}}},
	{"grub-pc-bin", [][]string{{"/usr/lib/grub/i386-pc/kernel.img"}}},
	{"grub-efi-amd64-bin", [][]string{{"/usr/lib/grub/x86_64-efi/kernel.img"}}},
	{"grub-common", [][]string{{"grub-mknetdir"}}},
	{"busybox-static", [][]string{{"/usr/share/doc/busybox-static/copyright"}, {"busybox"}}},
	{"nbd-client", [][]string{{"nbd-client"}}},
	{"e2fsprogs", [][]string{{"mke2fs"}}},
	{"iproute2", [][]string{{"ip"}}},
	{"apt", [][]string{{"apt-get"}, {"apt-cache"}}},
	{"squashfs-tools", [][]string{{"mksquashfs"}, {"unsquashfs"}}},
	{"dnsmasq-base", [][]string{{"dnsmasq"}}},
	{"nbdkit", [][]string{{"nbdkit"}}},
	{"mmdebstrap", [][]string{{"mmdebstrap"}}},
}

// Where Debian keeps OVMF: 2 MiB builds up to Debian 12, 4 MiB ones since 11.
var (
	ovmfCode = []string{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_CODE_4M.fd"}
	ovmfVars = []string{"/usr/share/OVMF/OVMF_VARS.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"}
)

const ipxeKernel = "/usr/lib/ipxe/ipxe.lkrn"

// Missing returns those of the named Debian packages that this machine lacks;
// without a name, of all that a boot of any kind takes: QEMU, firmware, boot
// loaders and what the guest is made of. It looks for their files, so another
// distribution's packages count where they have the same places.
func Missing(packages ...string) []string {
	if len(packages) == 0 {
		packages = []string{
			"qemu-system-x86", "ipxe-qemu", "ovmf", "ipxe", "pxelinux", "syslinux-common", "grub-efi-amd64-signed",
			"busybox-static", "nbd-client", "e2fsprogs", "iproute2", "apt",
		}
	}
	var missing []string
	for _, name := range packages {
		i := slices.IndexFunc(debian, func(p pkg) bool { return p.name == name })
		if i < 0 || !debian[i].installed() {
			missing = append(missing, name)
		}
	}
	return missing
}

func (p pkg) installed() bool {
	for _, any := range p.files {
		if _, err := first(any); err != nil {
			return false
		}
	}
	return true
}

// first returns the first of the files that is there.
func first(files []string) (string, error) {
	for _, f := range files {
		if !filepath.IsAbs(f) {
			if path, err := program(f); err == nil {
				return path, nil
			}
		} else if _, err := os.Stat(f); err == nil {
			return f, nil
		}
	}
	return "", fmt.Errorf("%s: %w", files[0], os.ErrNotExist)
}

// program finds a program, also where only administrators' PATH leads.
func program(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, e := exec.LookPath(filepath.Join(dir, name)); e == nil {
			return path, nil
		}
	}
	return "", err
}
