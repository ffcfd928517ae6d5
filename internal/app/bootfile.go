package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/insomniacslk/dhcp/iana"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// bootFile says what a client loads next.
func (a *App) bootFile(ctx context.Context, r *dhcp.Request) (dhcp.Boot, error) {
	c := pxecfg.Client{UUID: r.UUID(), MAC: r.ClientHWAddr, HardwareType: uint8(r.HWType)}
	c.Arch, c.ArchKnown = r.Arch()
	m, file, err := a.loader(ctx, c, r.Platform())
	b := dhcp.Boot{NextServer: a.nextServer(), File: file}
	if m != nil {
		b.Hostname = m.Name
	}
	return b, err
}

// loader says what program a client loads next; "" is none. The machine is nil
// for a stranger.
func (a *App) loader(ctx context.Context, c pxecfg.Client, platform dhcp.Platform) (*config.Machine, string, error) {
	loader := a.cfg.Loader
	m := a.machine(c)
	switch {
	case m != nil:
		loader = m.Loader
	case a.rules != nil: // which decide when it asks for its configuration
	case a.cfg.Unknown == config.UnknownDeny:
		// Asking notes the stranger, so that the administrator finds it.
		_, err := a.machines.Config(ctx, c)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // an address, and nothing to boot
		}
		return nil, "", err
	}
	if !platform.WantsFile() {
		return m, "", nil
	}
	file, err := a.loaderFor(loader, platform, c.Arch)
	return m, file, err
}

func (a *App) nextServer() netip.Addr {
	if a.cfg.TFTP != nil {
		return a.cfg.TFTP.Address.Addr
	}
	return a.cfg.Server.Address.Addr
}

// script is where iPXE finds its script.
func (a *App) script() string {
	if a.cfg.HTTP != nil {
		return a.cfg.HTTP.URL + "/" + bootIPXE
	}
	return bootIPXE // over TFTP, from next-server
}

// loaderFor chooses the program for a platform. iPXE is loaded once: when it
// asks for a boot file itself, it gets its script.
func (a *App) loaderFor(want config.Loader, platform dhcp.Platform, arch iana.Arch) (string, error) {
	bios := arch == iana.INTEL_X86PC
	efi := arch == iana.EFI_BC || arch == iana.EFI_X86_64 || arch == iana.EFI_X86_64_HTTP
	switch {
	case platform != dhcp.PlatformHTTP && (want == config.LoaderUBoot || isUBoot(arch)):
		// It does not run it, but looks for pxelinux.cfg beside it.
		return pxelinux, nil
	case !bios && !efi:
		// Logged by the policy, once for each machine.
		return "", fmt.Errorf("%w: diskless has loaders for BIOS and x86-64 UEFI, none for architecture %s", fs.ErrNotExist, arch)
	case platform == dhcp.PlatformHTTP && a.cfg.HTTP == nil:
		return "", fmt.Errorf("%w: firmware asks for HTTP boot, but there is no http section", fs.ErrNotExist)
	case platform == dhcp.PlatformHTTP:
		// GRUB's search for its configuration works over TFTP only.
		return a.cfg.HTTP.URL + "/" + snponly, nil
	case want == config.LoaderPXELINUX && bios:
		return pxelinux, nil
	case want == config.LoaderGRUB && efi:
		return grubEFI, nil
	case platform == dhcp.PlatformIPXE:
		return a.script(), nil
	case bios:
		return undionly, nil
	default:
		return snponly, nil
	}
}

func isUBoot(arch iana.Arch) bool {
	switch arch {
	case iana.UBOOT_ARM32, iana.UBOOT_ARM64, iana.UBOOT_ARM32_HTTP, iana.UBOOT_ARM64_HTTP:
		return true
	}
	return false
}

// requireLoaders checks that what bootFile can answer is there to be loaded.
func (a *App) requireLoaders() error {
	if !a.cfg.ServesTFTP() {
		return nil
	}
	wanted := map[config.Loader]bool{}
	if a.cfg.Unknown != config.UnknownDeny || a.rules != nil {
		wanted[a.cfg.Loader] = true
	}
	for _, m := range a.cfg.Machines {
		wanted[m.Loader] = true
	}
	var names []string
	if wanted[config.LoaderIPXE] || wanted[config.LoaderPXELINUX] || wanted[config.LoaderGRUB] {
		names = append(names, undionly, snponly)
	}
	if wanted[config.LoaderPXELINUX] {
		names = append(names, pxelinux, ldlinux)
	}
	if wanted[config.LoaderGRUB] {
		names = append(names, grubEFI)
	}
	if len(names) == 0 {
		return nil
	}
	return a.loaders.require(a.tree.Files, names...)
}
