package pxecfg

import (
	"net/netip"
	"net/url"
	"path"
	"strings"
)

// HTTPRootURL is a squashfs or tar archive from a web server for an
// initramfs-tools with Ubuntu's cloud-initramfs-rooturl; what MAAS boots with:
//
//	root=squash:http://192.0.2.1/x.squashfs ip=dhcp ro overlayroot=tmpfs overlayroot_cfgdisk=disabled
//
// The whole image is held in memory.
type HTTPRootURL struct {
	// URL is an http URL; https is not recognised.
	URL string
	// Tar says that it is a tar archive, which is unpacked into a tmpfs.
	Tar bool
	// Overlay is the value of overlayroot=, without which a squashfs stays
	// read-only. Empty means none.
	Overlay string
	// IP is a fixed address. nil means DHCP.
	IP *StaticIP
}

// Args implements [Root].
func (r HTTPRootURL) Args() ([]string, error) {
	if _, err := rootURL(r.URL, "http"); err != nil {
		return nil, err
	}
	ip, err := r.IP.klibc(netip.Addr{})
	if err != nil {
		return nil, err
	}
	overlay, err := overlayroot(r.Overlay)
	if err != nil {
		return nil, err
	}
	if r.Tar {
		return append([]string{"root=tar:" + r.URL, ip, "rw"}, overlay...), nil
	}
	if overlay != nil {
		// Otherwise any disk may hold a configuration for it.
		overlay = append(overlay, "overlayroot_cfgdisk=disabled")
	}
	return append([]string{"root=squash:" + r.URL, ip, "ro"}, overlay...), nil
}

// HTTPDracut is an image from a web, FTP or TFTP server for dracut with its
// livenet and dmsquash-live modules:
//
//	root=live:http://192.0.2.1/x.squashfs ip=dhcp rd.neednet=1
//
// The whole image is held in memory. The squashfs holds LiveOS/rootfs.img, or
// is the root itself: with a /proc (dracut 059) or a /usr (106) in it.
type HTTPDracut struct {
	// URL has the scheme http, https, ftp or tftp.
	URL string
	// Overlay is what the live system's writes go to. Without one dracut makes
	// a device-mapper snapshot in memory, which a squashfs that is the root
	// itself cannot have.
	Overlay DracutOverlay
	// IP is a fixed address. nil means DHCP.
	IP *StaticIP
}

// Args implements [Root].
func (r HTTPDracut) Args() ([]string, error) {
	if _, err := rootURL(r.URL, "http", "https", "ftp", "tftp"); err != nil {
		return nil, err
	}
	return dracutArgs("root=live:"+r.URL, r.IP, r.Overlay)
}

// HTTPLiveBoot is a Debian live system from a web, FTP or TFTP server for
// live-boot:
//
//	boot=live fetch=http://192.0.2.1/filesystem.squashfs
//
// live-boot puts an overlay above it, and always configures the interface by
// DHCP before it fetches anything.
type HTTPLiveBoot struct {
	// URL names a file whose name ends in .squashfs, .iso, .tgz or .tar. The
	// scheme is http, ftp or tftp.
	URL string
	// Mount leaves the file on the server and mounts it through httpfs, which
	// must be in the initramfs; otherwise it is copied into memory.
	Mount bool
	// OverlaySize limits the overlay, see [NFSLiveBoot].
	OverlaySize string
	// IP is for the system that is booted: its /etc/network/interfaces. nil
	// leaves that to DHCP.
	IP *StaticIP
}

// Args implements [Root].
func (r HTTPLiveBoot) Args() ([]string, error) {
	schemes, word := []string{"http", "ftp", "tftp"}, "fetch="
	if r.Mount {
		schemes, word = []string{"http"}, "httpfs="
	}
	u, err := rootURL(r.URL, schemes...)
	if err != nil {
		return nil, err
	}
	switch path.Ext(u.Path) {
	case ".iso", ".squashfs", ".tgz", ".tar":
	default:
		return nil, rootError("URL %q: live-boot takes files that end in .squashfs, .iso, .tgz or .tar only", r.URL)
	}
	switch {
	case u.RawQuery != "":
		return nil, rootError("URL %q: with a query it does not end in a file name that live-boot knows", r.URL)
	case u.Scheme == "tftp" && strings.Contains(u.Host, ":"):
		return nil, rootError("URL %q: live-boot has no form for a TFTP port or an IPv6 address", r.URL)
	case r.Mount && r.IP != nil:
		return nil, rootError("static address %s: live-boot ignores it when the system stays on the server", r.IP.Addr)
	}
	args := []string{"boot=live", word + r.URL}
	ip, err := r.IP.liveBoot()
	if err != nil {
		return nil, err
	}
	return liveBootArgs(append(args, ip...), r.OverlaySize, false)
}

func liveBootArgs(args []string, overlaySize string, toRAM bool) ([]string, error) {
	if overlaySize != "" {
		number := strings.TrimRight(overlaySize, "kmgKMG%")
		if number == "" || strings.Trim(number, "0123456789") != "" || len(overlaySize)-len(number) > 1 {
			return nil, rootError("overlay size %q: it is a number with k, m, g or %% behind it", overlaySize)
		}
		args = append(args, "overlay-size="+overlaySize)
	}
	if toRAM {
		args = append(args, "toram")
	}
	return args, nil
}

// HTTPCasper is an Ubuntu ISO image from a web server for casper:
//
//	boot=casper url=http://192.0.2.1/x.iso ip=dhcp
//
// The whole image is held in memory. casper has no form for a squashfs.
type HTTPCasper struct {
	// URL is an http or ftp URL of a file whose name ends in .iso.
	URL string
	// IP is a fixed address. nil means DHCP.
	IP *StaticIP
}

// Args implements [Root].
func (r HTTPCasper) Args() ([]string, error) {
	u, err := rootURL(r.URL, "http", "ftp")
	if err != nil {
		return nil, err
	}
	if path.Ext(u.Path) != ".iso" || u.RawQuery != "" {
		return nil, rootError("URL %q: casper fetches files that end in .iso only", r.URL)
	}
	ip, err := r.IP.casper()
	if err != nil {
		return nil, err
	}
	return []string{"boot=casper", "url=" + r.URL, ip}, nil
}

// rootURL checks a URL that shell scripts will read: those take no escapes off
// and some are expanded without quotes.
func rootURL(text string, schemes ...string) (*url.URL, error) {
	u, reason := parseURL(text)
	switch {
	case reason != "":
		return nil, rootError("URL %q: %s", text, reason)
	case strings.Trim(u.Scheme, "abcdefghijklmnopqrstuvwxyz") != "" || !strings.HasPrefix(text, u.Scheme+"://"):
		return nil, rootError("URL %q: write the scheme in lower case", text)
	case u.User != nil:
		return nil, rootError("URL %q: a kernel command line is for all to read: no user or password in it", text)
	case u.Fragment != "" || strings.HasSuffix(text, "#"):
		return nil, rootError("URL %q: a fragment is never sent to a server", text)
	case u.Path == "" || strings.HasSuffix(u.Path, "/"):
		return nil, rootError("URL %q: it does not name a file", text)
	case strings.Trim(text, wordBytes+":%?,[]") != "" || strings.ContainsAny(text[len(u.Scheme)+3+len(u.Host):], "[]?*:") && u.RawQuery == "":
		return nil, rootError("URL %q: only letters, digits and ._@~+-/=%%, survive loaders and shell scripts", text)
	}
	for _, s := range schemes {
		if u.Scheme == s {
			return u, nil
		}
	}
	return nil, rootError("URL %q: the initramfs fetches %s only", text, strings.Join(schemes, ", "))
}
