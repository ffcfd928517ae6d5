package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"
)

// A loader is a program that firmware loads first, where the distributions put
// it and which package holds it.
type loader struct {
	name    string   // in the boot tree
	files   []string // the first that exists is served
	install string   // Debian's package
}

// Names of loaders in the boot tree.
const (
	undionly  = "undionly.kpxe"
	snponly   = "snponly.efi"
	pxelinux  = "pxelinux.0"
	ldlinux   = "ldlinux.c32"
	grubEFI   = "grubnetx64.efi"
	shimEFI   = "shimx64.efi"
	bootIPXE  = "boot.ipxe"
	healthzAt = "/healthz"
)

var loaders = []loader{
	{undionly, []string{"/usr/lib/ipxe/undionly.kpxe", "/usr/share/ipxe/undionly.kpxe", "/usr/lib/ipxe/undionly.kkpxe"}, "ipxe"},
	{snponly, []string{"/usr/lib/ipxe/snponly.efi", "/usr/share/ipxe/snponly.efi", "/usr/share/ipxe/ipxe-snponly-x86_64.efi"}, "ipxe"},
	{pxelinux, []string{"/usr/lib/PXELINUX/pxelinux.0", "/usr/share/syslinux/pxelinux.0"}, "pxelinux"},
	{ldlinux, []string{"/usr/lib/syslinux/modules/bios/ldlinux.c32", "/usr/share/syslinux/ldlinux.c32"}, "syslinux-common"},
	{"libutil.c32", []string{"/usr/lib/syslinux/modules/bios/libutil.c32", "/usr/share/syslinux/libutil.c32"}, "syslinux-common"},
	{"menu.c32", []string{"/usr/lib/syslinux/modules/bios/menu.c32", "/usr/share/syslinux/menu.c32"}, "syslinux-common"},
	{shimEFI, []string{"/usr/lib/shim/shimx64.efi.signed"}, "shim-signed"},
	{grubEFI, []string{"/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"}, "grub-efi-amd64-signed"},
}

// loaderFS is a flat fs.FS of the loaders that this machine has. It only ever
// opens the files of the table above.
type loaderFS map[string]string

// findLoaders looks for the loaders below root, "/" but in tests.
func findLoaders(root string) loaderFS {
	found := loaderFS{}
	for _, l := range loaders {
		for _, f := range l.files {
			at := path.Join(root, f)
			if info, err := os.Stat(at); err == nil && info.Mode().IsRegular() {
				found[l.name] = at
				break
			}
		}
	}
	return found
}

// Open opens a loader by its name in the tree.
func (l loaderFS) Open(name string) (fs.File, error) {
	if at, ok := l[name]; ok {
		return os.Open(at)
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// require reports the loaders among names that neither the distribution nor
// the configured directories hold, and which package brings them.
func (l loaderFS) require(tree fs.FS, names ...string) error {
	var errs []error
	packages := map[string]bool{}
	for _, name := range names {
		if _, ok := l[name]; ok {
			continue
		}
		if _, err := fs.Stat(tree, name); err == nil {
			continue
		}
		for _, known := range loaders {
			if known.name == name {
				errs = append(errs, fmt.Errorf("boot loader %s is not in %s", name, strings.Join(known.files, ", ")))
				packages[known.install] = true
			}
		}
	}
	if len(errs) == 0 {
		return nil
	}
	var install []string
	for p := range packages {
		install = append(install, p)
	}
	sort.Strings(install)
	return fmt.Errorf("%w; install it (Debian: apt-get install %s) or put it into a directory under `files`",
		errors.Join(errs...), strings.Join(install, " "))
}
