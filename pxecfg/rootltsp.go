package pxecfg

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// initLTSP is the first program of LTSP 5: it stacks the overlay and reads
// lts.conf.
const initLTSP = "init=/sbin/init-ltsp"

// NBDLTSP5 is an LTSP 5 image on an NBD export:
//
//	root=/dev/nbd0 nbdroot=192.0.2.1:10809/ltsp ip=dhcp ro init=/sbin/init-ltsp
//
// LTSP keeps all writes in memory.
type NBDLTSP5 struct {
	// Server is the NBD server's address.
	Server netip.Addr
	// Port is its TCP port. 0 means [NBDPort].
	Port uint16
	// Export is the name of the export, such as /opt/ltsp/amd64.
	Export string
	// PortOnly is as in [NBDInitramfsTools].
	PortOnly bool
	// ToRAM copies the image into memory and leaves the server.
	ToRAM bool
	// Settings are given to lts.conf's reader as ltsp.name=value, before the
	// file; LTSP makes the names upper case.
	Settings map[string]string
	// IP is a fixed address. nil means DHCP.
	IP *StaticIP
}

// Args implements [Root].
func (r NBDLTSP5) Args() ([]string, error) {
	args, err := NBDInitramfsTools{Server: r.Server, Port: r.Port, Export: r.Export, PortOnly: r.PortOnly, ReadOnly: true, IP: r.IP}.Args()
	if err != nil {
		return nil, err
	}
	args = append(args, initLTSP)
	if r.ToRAM {
		args = append(args, "LTSP_NBD_TO_RAM=true")
	}
	return ltspSettings(args, r.Settings)
}

// NFSLTSP5 is an LTSP 5 tree on an NFS export:
//
//	root=/dev/nfs nfsroot=192.0.2.1:/opt/ltsp/amd64 ip=dhcp ro boot=nfs init=/sbin/init-ltsp
type NFSLTSP5 struct {
	// Server is the NFS server's address.
	Server netip.Addr
	// Path is the exported directory.
	Path string
	// MountOptions are further options of the mount.
	MountOptions []string
	// Settings are as in [NBDLTSP5].
	Settings map[string]string
	// IP is a fixed address. nil means DHCP.
	IP *StaticIP
}

// Args implements [Root].
func (r NFSLTSP5) Args() ([]string, error) {
	args, err := nfsKlibc(r.Server, r.Path, r.MountOptions, r.IP)
	if err != nil {
		return nil, err
	}
	return ltspSettings(append(args, "ro", "boot=nfs", initLTSP), r.Settings)
}

// NBDLTSP is an LTSP image (version 19 and up) on an NBD export. The initrds of
// the entry are ltsp.img, then the image's own, with nbd-client in it:
//
//	root=/dev/nbd0 nbdroot=192.0.2.1:10809/x86_64 ip=dhcp ro
//
// Its root directory has a /proc: ltsp.img puts the overlay above it.
type NBDLTSP struct {
	// Server is the NBD server's address.
	Server netip.Addr
	// Port is its TCP port. 0 means [NBDPort].
	Port uint16
	// Export is the name of the export.
	Export string
	// Settings are given to LTSP as ltsp.name=value.
	Settings map[string]string
	// IP is a fixed address. nil means DHCP.
	IP *StaticIP
}

// Args implements [Root].
func (r NBDLTSP) Args() ([]string, error) {
	args, err := NBDInitramfsTools{Server: r.Server, Port: r.Port, Export: r.Export, ReadOnly: true, IP: r.IP}.Args()
	if err != nil {
		return nil, err
	}
	return ltspSettings(args, r.Settings)
}

// NFSLTSP is an LTSP image (version 19 and up) on an NFS export, or a plain
// tree if there is no Image. The initrds of the entry are ltsp.img, then the
// image's own:
//
//	root=/dev/nfs nfsroot=192.0.2.1:/srv/ltsp ip=dhcp ro ltsp.image=images/x86_64.img loop.max_part=9
type NFSLTSP struct {
	// Server is the NFS server's address.
	Server netip.Addr
	// Path is the exported directory: /srv/ltsp, or /srv/ltsp/NAME for a tree.
	Path string
	// Image is the value of ltsp.image=: a path below Path, which may have
	// mount options behind a comma and further images behind two. Empty means
	// that Path is the root itself.
	Image string
	// ToRAM copies the image into memory and leaves the server. It needs an
	// Image.
	ToRAM bool
	// MountOptions are further options of the mount.
	MountOptions []string
	// Settings are as in [NBDLTSP].
	Settings map[string]string
	// IP is a fixed address. nil means DHCP.
	IP *StaticIP
}

// Args implements [Root].
func (r NFSLTSP) Args() ([]string, error) {
	args, err := nfsKlibc(r.Server, r.Path, r.MountOptions, r.IP)
	if err != nil {
		return nil, err
	}
	args = append(args, "ro")
	switch {
	case r.Image != "" && (strings.Trim(r.Image, wordBytes+",") != "" || strings.ContainsRune(",~", rune(r.Image[0]))):
		return nil, rootError("image %q: only letters, digits and ._@~+-/=, survive loaders and shell scripts", r.Image)
	case r.Image != "":
		// The images may have partitions.
		args = append(args, "ltsp.image="+r.Image, "loop.max_part=9")
	case r.ToRAM:
		return nil, rootError("a tree cannot be copied into memory: name an Image, or leave out ToRAM")
	}
	if r.ToRAM {
		args = append(args, "ltsp.image_to_ram=1")
	}
	return ltspSettings(args, r.Settings)
}

// ltspSettings appends settings in the order of their names. LTSP's shell
// scripts split at white space and know none of the kernel's quotes.
func ltspSettings(args []string, settings map[string]string) ([]string, error) {
	for _, name := range sortedKeys(settings) {
		value := settings[name]
		first := strings.ToLower(name[:min(1, len(name))])
		if strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789_") != "" || first < "a" || first > "z" {
			return nil, rootError("setting %q: a name is made of letters, digits and _", name)
		}
		// A shell expands ~ where a value or a part behind a colon begins.
		if strings.Trim(value, wordBytes+":,") != "" || value != "" && value[0] == '~' || strings.Contains(value, ":~") {
			return nil, rootError("setting %s=%q: only letters, digits and ._@~+-/=:, can be given on a command line; use the configuration file", name, value)
		}
		args = append(args, "ltsp."+strings.ToLower(name)+"="+value)
	}
	return args, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
