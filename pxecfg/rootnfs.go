package pxecfg

import (
	"net/netip"
	"strconv"
	"strings"
)

// NFSInitramfsTools is a root on an NFS export for initramfs-tools:
//
//	root=/dev/nfs nfsroot=192.0.2.1:/srv/root,vers=3 ip=dhcp ro
//
// Its mount program is klibc's, which knows NFS 2 and 3 over IPv4.
type NFSInitramfsTools struct {
	// Server is the NFS server's address.
	Server netip.Addr
	// Path is the exported directory.
	Path string
	// ReadOnly mounts the root read-only; otherwise it is mounted rw.
	ReadOnly bool
	// MountOptions are further options of the mount, of those that klibc's
	// nfsmount knows, such as "rsize=32768"; noatime is none.
	MountOptions []string
	// Overlay is the value of overlayroot=, see [NBDInitramfsTools].
	Overlay string
	// IP is a fixed address. nil means DHCP.
	IP *StaticIP
}

// Args implements [Root].
func (r NFSInitramfsTools) Args() ([]string, error) {
	args, err := nfsKlibc(r.Server, r.Path, r.MountOptions, r.IP)
	if err != nil {
		return nil, err
	}
	overlay, err := overlayroot(r.Overlay)
	if err != nil {
		return nil, err
	}
	return append(append(args, readOnly(r.ReadOnly)), overlay...), nil
}

// nfsKlibc writes root=, nfsroot= and ip= for klibc's nfsmount.
func nfsKlibc(server netip.Addr, path string, options []string, static *StaticIP) ([]string, error) {
	nfsroot, err := nfsKlibcRoot(server, path, options)
	if err != nil {
		return nil, err
	}
	ip, err := static.klibc(server)
	if err != nil {
		return nil, err
	}
	return []string{"root=/dev/nfs", "nfsroot=" + nfsroot, ip}, nil
}

func nfsKlibcRoot(server netip.Addr, path string, options []string) (string, error) {
	text, err := nfsServer(server, path)
	if err != nil {
		return "", err
	}
	if server.Unmap().Is6() {
		return "", rootError("server address %s: the initramfs' mount program, klibc's nfsmount, knows IPv4 only", server)
	}
	opts, err := nfsKlibcOptions(options)
	if err != nil {
		return "", err
	}
	return text + ":" + path + opts, nil
}

// nfsmountWords and nfsmountNumbers are the options of klibc's nfsmount, which
// stops at any other.
var (
	nfsmountWords = wordSet(`soft hard intr nointr posix noposix cto nocto ac noac lock nolock acl noacl v2 v3 udp tcp
		broken_suid`)
	nfsmountNumbers = wordSet("port rsize wsize timeo retrans acregmin acregmax acdirmin acdirmax")
)

func nfsKlibcOptions(options []string) (string, error) {
	list, err := mountOptions(options)
	if err != nil {
		return "", err
	}
	for _, o := range options {
		name, value, hasValue := strings.Cut(o, "=")
		_, err := strconv.ParseUint(value, 10, 31)
		switch {
		case name == "v4" || (name == "vers" || name == "nfsvers") && value != "2" && value != "3":
			return "", rootError("mount option %q: the initramfs' mount program, klibc's nfsmount, knows NFS 2 and 3 only", o)
		case name == "vers", name == "nfsvers", nfsmountWords[name] && !hasValue, nfsmountNumbers[name] && err == nil:
		default:
			return "", rootError("mount option %q: the initramfs' mount program, klibc's nfsmount, does not know it and mounts nothing", o)
		}
	}
	return list, nil
}

// NFSDracut is a root on an NFS export for dracut with its nfs module:
//
//	root=nfs:192.0.2.1:/srv/root:ro,nolock ip=dhcp rd.neednet=1
//
// A squashfs file on NFS cannot be a root for dracut.
type NFSDracut struct {
	// Server is the NFS server's address.
	Server netip.Addr
	// Path is the exported directory.
	Path string
	// Version4 mounts with NFS 4, otherwise NFS 3 is used.
	Version4 bool
	// ReadOnly mounts the root read-only; otherwise it is mounted rw.
	ReadOnly bool
	// MountOptions are further options of the mount.
	MountOptions []string
	// Overlay keeps writes in memory, above the root.
	Overlay DracutOverlay
	// IP is a fixed address. nil means DHCP.
	IP *StaticIP
}

// Args implements [Root].
func (r NFSDracut) Args() ([]string, error) {
	server, err := nfsServer(r.Server, r.Path)
	if err != nil {
		return nil, err
	}
	options, err := mountOptions(r.MountOptions)
	if err != nil {
		return nil, err
	}
	kind := "nfs:"
	if r.Version4 {
		kind = "nfs4:"
	}
	return dracutArgs("root="+kind+server+":"+r.Path+":"+readOnly(r.ReadOnly)+options, r.IP, r.Overlay)
}

// NFSLiveBoot is a Debian live system on an NFS export, a directory with
// live/filesystem.squashfs in it, for live-boot:
//
//	boot=live netboot=nfs nfsroot=192.0.2.1:/srv/live
//
// live-boot mounts it read-only, puts an overlay above it, and always
// configures the interface by DHCP.
type NFSLiveBoot struct {
	// Server is the NFS server's address.
	Server netip.Addr
	// Path is the exported directory.
	Path string
	// MountOptions are further options of the mount.
	MountOptions []string
	// OverlaySize limits the overlay, as the size= of a tmpfs: "2G", "50%".
	// Empty is the tmpfs' own default.
	OverlaySize string
	// ToRAM copies the system into memory and leaves the server.
	ToRAM bool
}

// Args implements [Root].
func (r NFSLiveBoot) Args() ([]string, error) {
	nfsroot, err := nfsKlibcRoot(r.Server, r.Path, nil)
	if err != nil {
		return nil, err
	}
	options, err := nfsKlibcOptions(r.MountOptions)
	if err != nil {
		return nil, err
	}
	args := []string{"boot=live", "netboot=nfs", "nfsroot=" + nfsroot}
	if options != "" {
		// Not behind the path, where live-boot does not look for them.
		args = append(args, "nfsopts="+options[1:])
	}
	return liveBootArgs(args, r.OverlaySize, r.ToRAM)
}

// NFSCasper is an Ubuntu live system on an NFS export, a directory with
// casper/*.squashfs in it, for casper:
//
//	boot=casper netboot=nfs nfsroot=192.0.2.1:/srv/ubuntu ip=dhcp
type NFSCasper struct {
	// Server is the NFS server's address.
	Server netip.Addr
	// Path is the exported directory.
	Path string
	// IgnoreUUID takes a system whose .disk/casper-uuid is not the one in the
	// initrd.
	IgnoreUUID bool
	// ToRAM copies the system into memory and leaves the server.
	ToRAM bool
	// IP is a fixed address. nil means DHCP.
	IP *StaticIP
}

// Args implements [Root].
func (r NFSCasper) Args() ([]string, error) {
	nfsroot, err := nfsKlibcRoot(r.Server, r.Path, nil)
	if err != nil {
		return nil, err
	}
	ip, err := r.IP.casper()
	if err != nil {
		return nil, err
	}
	args := []string{"boot=casper", "netboot=nfs", "nfsroot=" + nfsroot, ip}
	if r.IgnoreUUID {
		args = append(args, "ignore_uuid")
	}
	if r.ToRAM {
		args = append(args, "toram")
	}
	return args, nil
}

// nfsServer checks what is the same for all: server and path are joined by :,
// options follow a : or a comma, and dracut puts the host name in for %s.
func nfsServer(server netip.Addr, path string) (string, error) {
	text, err := rootServer(server)
	switch {
	case err != nil:
		return "", err
	case !strings.HasPrefix(path, "/"):
		return "", rootError("path %q: an NFS path begins with /", path)
	case strings.ContainsAny(path, ":,"):
		return "", rootError("path %q: the initramfs splits its argument at : and ,", path)
	case strings.Trim(path, wordBytes) != "":
		return "", rootError("path %q: only letters, digits and ._@~+-/= survive loaders and shell scripts", path)
	}
	return text, nil
}
