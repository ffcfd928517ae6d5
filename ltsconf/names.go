package ltsconf

import (
	"slices"
	"strings"
)

// Names returns the names at which a client asks TFTP for its lts.conf, as
// they stand in the request; a server that answers the same under all of them
// reaches every client.
//
// bootDir is the directory of the boot file as the client was told it: of the
// kernel (BOOT_IMAGE= on the kernel command line) or, when that is missing, of
// DHCP's boot file name. When it is empty, as in a relative "vmlinuz", the
// client falls back to /ltsp/ARCH, ARCH being Debian's name of the
// architecture (amd64, i386, arm64). PXELINUX 5 and later always send
// BOOT_IMAGE, relative for most configurations, so the fallback is what is
// seen most. A kernel loaded over HTTP makes the client ask TFTP for a name
// that is a URL.
//
// Each path comes with and without a leading slash, since servers and loaders
// differ in that. A file name other than lts.conf (the setting LTSCONF in the
// image) is not covered.
func Names(arch, bootDir string) []string {
	const file = "lts.conf"
	var names []string
	add := func(dir string) {
		name := strings.TrimRight(dir, "/") + "/" + file
		variants := []string{name}
		if !strings.Contains(name, "://") && !strings.HasPrefix(name, "(") { // URL, GRUB's (tftp)
			bare := strings.TrimLeft(name, "/")
			variants = []string{"/" + bare, bare}
		}
		for _, v := range variants {
			if !slices.Contains(names, v) {
				names = append(names, v)
			}
		}
	}
	if bootDir != "" {
		add(bootDir)
	}
	if arch != "" {
		add("/ltsp/" + arch)
	}
	return names
}
