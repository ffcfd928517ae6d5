package pxecfg

import (
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Root writes the kernel arguments that tell an initramfs where the root file
// system is. The types of this package are named after what is mounted and who
// mounts it:
//
//	initramfs-tools  NBDInitramfsTools NFSInitramfsTools HTTPRootURL
//	dracut           NBDDracut         NFSDracut         HTTPDracut
//	live-boot                          NFSLiveBoot       HTTPLiveBoot
//	casper                             NFSCasper         HTTPCasper
//	LTSP 5           NBDLTSP5          NFSLTSP5
//	LTSP 19 and up   NBDLTSP           NFSLTSP
//
// Each initramfs has a language of its own; a form that it would
// misread is an error, an [fs.ErrInvalid] that says why. Args may be called
// concurrently and has the same result each time.
type Root interface {
	Args() ([]string, error)
}

// wordBytes are what needs no quotes in any loader, kernel or shell script.
const wordBytes = labelBytes + "/="

// NBDPort is the port that IANA assigned to NBD.
const NBDPort = 10809

// NBDInitramfsTools is a root on an NBD export for initramfs-tools with the
// script of Debian's and Ubuntu's nbd-client package:
//
//	root=/dev/nbd0 nbdroot=192.0.2.1:10809/debian12 ip=dhcp ro
type NBDInitramfsTools struct {
	// Server is the NBD server's address.
	Server netip.Addr
	// Port is its TCP port. 0 means [NBDPort].
	Port uint16
	// Export is the name of the export.
	Export string
	// PortOnly writes the form of LTSP up to 5.2, nbdroot=192.0.2.1:2000, for
	// servers with a port per image. Export then is empty, and Port must be set.
	// nbd-client 3.10 and later, which knows named exports only, asks there
	// for one that has the port's number for its name.
	PortOnly bool
	// ReadOnly mounts the root read-only; otherwise it is mounted rw.
	ReadOnly bool
	// Overlay is the value of overlayroot=, for an initramfs with the package
	// of that name: "tmpfs" keeps all writes in memory. Empty means none.
	Overlay string
	// IP is a fixed address. nil means DHCP.
	IP *StaticIP
}

// Args implements [Root].
func (r NBDInitramfsTools) Args() ([]string, error) {
	server, err := rootServer(r.Server)
	if err != nil {
		return nil, err
	}
	export, err := nbdrootExport(r.Server, r.Port, r.Export, r.PortOnly)
	if err != nil {
		return nil, err
	}
	ip, err := r.IP.klibc(r.Server)
	if err != nil {
		return nil, err
	}
	overlay, err := overlayroot(r.Overlay)
	if err != nil {
		return nil, err
	}
	return append([]string{
		"root=/dev/nbd0",
		// The only form in which a name, a port and both kinds of address
		// are all possible; host:name and host,port do not work at all.
		"nbdroot=" + server + ":" + nbdPort(r.Port) + export,
		ip,
		readOnly(r.ReadOnly),
	}, overlay...), nil
}

// overlayOptions are those that the package overlayroot reads, with the values
// that they may have, if not any.
var overlayOptions = map[string]string{
	"swap": "0 1", "recurse": "0 1", "debug": "", "dir": "", "driver": "auto overlay overlayfs aufs",
	"dev": "", "timeout": "", "path": "", "fstype": "", "pass": "", "mapname": "", "mkfs": "0 1 2",
}

// nbdrootExport returns what follows the port.
func nbdrootExport(server netip.Addr, port uint16, export string, portOnly bool) (string, error) {
	switch {
	case !portOnly:
		return "/" + export, exportName(export)
	case export != "":
		return "", rootError("export %q: PortOnly has no name; leave one of them out", export)
	case port == 0:
		return "", rootError("PortOnly without a Port: set the one that the image is served on")
	case server.Unmap().Is6():
		return "", rootError("server %s: PortOnly was not seen to work with IPv6; name the export", server)
	}
	return "", nil
}

// overlayroot writes the argument for the package of that name, which boots
// without an overlay at a value that it does not know, and passes over options
// that it does not.
func overlayroot(value string) ([]string, error) {
	kind, options, _ := strings.Cut(value, ":")
	switch {
	case value == "":
		return nil, nil
	case strings.Trim(value, wordBytes+":,") != "":
		return nil, rootError("overlay %q: it is not one word", value)
	case value == "disabled":
		return []string{"overlayroot=" + value}, nil
	case strings.HasPrefix(value, "/dev/"):
		kind, options = "device", "dev="+value
	}
	if kind != "tmpfs" && kind != "device" && kind != "crypt" {
		return nil, rootError("overlay %q: overlayroot knows tmpfs, tmpfs:..., /dev/..., device:..., crypt:... and disabled", value)
	}
	dev := false
	for o := range strings.FieldsFuncSeq(options, func(r rune) bool { return r == ',' }) {
		name, v, _ := strings.Cut(o, "=")
		values, ok := overlayOptions[name]
		if !ok || values != "" && !slices.Contains(strings.Fields(values), v) {
			return nil, rootError("overlay %q: overlayroot has no option %s", value, o)
		}
		dev = dev || name == "dev" && v != ""
	}
	if kind != "tmpfs" && !dev {
		return nil, rootError("overlay %q: overlayroot wants dev=", value)
	}
	return []string{"overlayroot=" + value}, nil
}

// NBDDracut is a root on an NBD export for dracut with its nbd module:
//
//	root=nbd:192.0.2.1:debian12:squashfs:ro ip=dhcp rd.neednet=1
//
// dracut reads a number in the place of the name as a port and has no form for
// both, so the server must be on [NBDPort].
type NBDDracut struct {
	// Server is the NBD server's address.
	Server netip.Addr
	// Port must be 0 or [NBDPort].
	Port uint16
	// Export is the name of the export.
	Export string
	// FSType is the type of the file system. Empty lets dracut find out.
	FSType string
	// ReadOnly mounts the root read-only; otherwise it is mounted rw.
	ReadOnly bool
	// MountOptions are further options of the mount.
	MountOptions []string
	// Overlay keeps writes in memory, above the root.
	Overlay DracutOverlay
	// IP is a fixed address. nil means DHCP.
	IP *StaticIP
}

// DracutOverlay asks dracut's overlayfs module for an overlay in memory. The
// module is not in an initramfs unless dracut was told to add it. In several
// releases it looks for the root before a network root is there (HTTPDracut is
// not concerned): try it with the one in use, or let the image make its own
// overlay, as LTSP does.
type DracutOverlay uint8

// The overlays of dracut.
const (
	// NoOverlay leaves the root as it is.
	NoOverlay DracutOverlay = iota
	// LiveOverlay is rd.live.overlay.overlayfs=1, for dracut before 110.
	LiveOverlay
	// RootOverlay is rd.overlay=1, for dracut 110 and later.
	RootOverlay
)

func (o DracutOverlay) args() ([]string, error) {
	switch o {
	case NoOverlay:
		return nil, nil
	case LiveOverlay:
		return []string{"rd.live.overlay.overlayfs=1"}, nil
	case RootOverlay:
		return []string{"rd.overlay=1"}, nil
	}
	return nil, rootError("overlay %d: it is none of dracut's", o)
}

// Args implements [Root].
func (r NBDDracut) Args() ([]string, error) {
	server, err := rootServer(r.Server)
	if err != nil {
		return nil, err
	}
	if err := exportName(r.Export); err != nil {
		return nil, err
	}
	switch {
	case r.Port != 0 && r.Port != NBDPort:
		return nil, rootError("port %d: dracut cannot name an export on a port other than %d: serve it there", r.Port, NBDPort)
	case strings.Trim(r.Export, "+0123456789") == "":
		return nil, rootError("export %q: dracut would take it for a port: give the export a name with a letter", r.Export)
	case r.FSType != "" && r.FSType == r.Export:
		return nil, rootError("export %q: dracut drops a file system type that equals the name: rename the export or leave FSType empty", r.Export)
	case strings.Trim(r.FSType, labelBytes) != "", r.FSType == "ro", r.FSType == "rw":
		return nil, rootError("file system type %q: it is not a word", r.FSType)
	}
	options, err := mountOptions(r.MountOptions)
	if err != nil {
		return nil, err
	}
	return dracutArgs("root=nbd:"+server+":"+r.Export+":"+r.FSType+":"+readOnly(r.ReadOnly)+options, r.IP, r.Overlay)
}

// dracutArgs adds what every network root of dracut needs.
func dracutArgs(root string, static *StaticIP, overlay DracutOverlay) ([]string, error) {
	ip, err := static.dracut()
	if err != nil {
		return nil, err
	}
	over, err := overlay.args()
	if err != nil {
		return nil, err
	}
	return append([]string{root, ip, "rd.neednet=1"}, over...), nil
}

// mountOptions writes options behind a first one.
func mountOptions(options []string) (string, error) {
	list := ""
	for _, o := range options {
		if o == "" || strings.Trim(o, wordBytes) != "" || o == "ro" || o == "rw" {
			return "", rootError("mount option %q: it must be one word without colons and commas; for ro and rw there is ReadOnly", o)
		}
		list += "," + o
	}
	return list, nil
}

func rootServer(a netip.Addr) (string, error) {
	a = a.Unmap()
	switch {
	case !a.IsValid() || a.IsUnspecified():
		return "", rootError("server address %s: set the address that clients reach the server at", a)
	case a.Zone() != "":
		return "", rootError("server address %s: a zone means something on this host only", a)
	case a.Is6():
		return "[" + a.String() + "]", nil
	}
	return a.String(), nil
}

// exportName allows what survives every loader and the shell scripts of both
// initramfs: the name is split at : and , and expanded without quotes.
func exportName(name string) error {
	switch {
	case name == "":
		return rootError("export name is empty: name the export")
	case strings.ContainsAny(name, ":,"):
		return rootError("export %q: the initramfs splits its argument at : and ,", name)
	case strings.Trim(name, wordBytes) != "":
		return rootError("export %q: only letters, digits and ._@~+-/= survive loaders and shell scripts", name)
	case name[0] == '-':
		return rootError("export %q: nbd-client would take it for an option", name)
	}
	return nil
}

func nbdPort(p uint16) string {
	if p == 0 {
		p = NBDPort
	}
	return strconv.Itoa(int(p))
}

func readOnly(ro bool) string {
	if ro {
		return "ro"
	}
	return "rw"
}

func rootError(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, fs.ErrInvalid)...)
}
