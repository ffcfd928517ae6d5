package dhcp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp/internal/limit"
)

// Boot is what a client is told about booting.
type Boot struct {
	// NextServer is where the client fetches File from, over TFTP (siaddr,
	// and option 66 when asked for). The zero value is the server that
	// answers (option 54).
	NextServer netip.Addr

	// ServerName is the server's name, for the field sname and option 66;
	// mostly empty.
	ServerName string

	// File is the boot file: a path for TFTP, or a URL for clients that take
	// one (iPXE, UEFI HTTP Boot). It goes into the field of that name, when
	// it is 127 bytes or shorter, and into option 67 when asked for or longer.
	// Empty: the client is to boot in another way, such as its local disk.
	File string

	// RootPath is option 17. iPXE takes an iscsi: URL there, an initramfs
	// an NFS path ("192.168.0.1:/srv/root").
	RootPath string

	// Hostname replaces option 12; empty leaves it as it is.
	Hostname string

	// PXE replaces what PXE clients are told in option 43, for menus and
	// boot servers; nil has them load File at once.
	PXE *PXE

	// PXELINUX are options that only PXELINUX heeds; nil sends none.
	PXELINUX *PXELINUX

	// KeepSAN has iPXE keep its SAN device when booting from it fails (option
	// 175, sub-option 8).
	KeepSAN bool

	// Options are sent besides, by number, and before all others.
	Options dhcpv4.Options
}

// PXELINUX is the options 208 to 211 (RFC 5071). They are sent unasked: the
// ROM that asks for options does not know them.
type PXELINUX struct {
	// ConfigFile (209) is the first configuration file that is tried.
	ConfigFile string
	// PathPrefix (210) is put before all file names; mostly it ends in "/".
	PathPrefix string
	// Reboot (211) is when the machine starts again after nothing booted, in
	// whole seconds; 0 leaves it as it is.
	Reboot time.Duration
}

func (p *PXELINUX) apply(reply *dhcpv4.DHCPv4) {
	setOption(reply, dhcpv4.GenericOptionCode(208), []byte{0xf1, 0x00, 0x74, 0x7e})
	if p.ConfigFile != "" {
		setOption(reply, dhcpv4.GenericOptionCode(209), []byte(p.ConfigFile))
	}
	if p.PathPrefix != "" {
		setOption(reply, dhcpv4.GenericOptionCode(210), []byte(p.PathPrefix))
	}
	if p.Reboot > 0 {
		setOption(reply, dhcpv4.GenericOptionCode(211), binary.BigEndian.AppendUint32(nil, uint32(p.Reboot/time.Second)))
	}
}

// BootPolicy is a [Handler] that adds the boot part to the OFFERs and ACKs of
// another one. Who gets what:
//
//   - A client that asks to boot (see [Platform.WantsFile]) gets everything
//     that is set in [Boot].
//   - A kernel or an initramfs ([PlatformLinux]) gets next-server, root path
//     and host name, no file.
//   - Any other client gets Next's reply unchanged; Boot is not asked.
//
// What it takes for firmware to believe it is added: PXE clients get option 60
// "PXEClient" and option 43 with discovery control 8, without which they ask
// port 4011 once more; HTTP clients get option 60 "HTTPClient" and a URL only;
// iPXE and gPXE get option 175.176, which spares them the wait for a ProxyDHCP
// server, and no option 60; Etherboot gets option 43 with its name; a Raspberry
// Pi the menu that it looks for, from NextServer, where it takes its files by
// names of its own. Nothing of that is sent when there is nothing to boot.
//
// A file that iPXE would load for ever, since by its name it is iPXE, is not
// sent to it.
type BootPolicy struct {
	// Next makes the reply, typically a [Pool]. Required.
	Next Handler

	// Boot decides for one request; it is called once for each OFFER and ACK,
	// concurrently. [fs.ErrNotExist]: nothing is known for this client, which
	// is logged at Warn, once per hardware address. Any other error: the
	// client gets no reply. Required; [BootRules.Boot] fits.
	Boot func(ctx context.Context, r *Request) (Boot, error)

	// Logger is for what an operator must see; nil is [slog.Default].
	Logger *slog.Logger

	warned limit.Once
}

var _ Handler = (*BootPolicy)(nil)

// ServeDHCP implements [Handler].
func (p *BootPolicy) ServeDHCP(ctx context.Context, r *Request) (*dhcpv4.DHCPv4, error) {
	reply, err := p.Next.ServeDHCP(ctx, r)
	if err != nil || reply == nil {
		return reply, err
	}
	switch messageType(reply) {
	case dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNone: // the last is BOOTP
	default:
		return reply, nil
	}
	platform := r.Platform()
	if platform == PlatformNone {
		return reply, nil
	}
	boot, err := p.Boot(ctx, r)
	if errors.Is(err, fs.ErrNotExist) {
		if platform.WantsFile() {
			warnNoBoot(&p.warned, p.Logger, r, err)
		}
		return reply, nil
	}
	if err != nil {
		return nil, err
	}
	if !loadable(&p.warned, p.Logger, r, platform, boot.File) {
		boot.File = ""
	}
	return reply, boot.apply(r, platform, reply)
}

func warnNoBoot(warned *limit.Once, log *slog.Logger, r *Request, err error) {
	warnOnce(warned, log, r, "dhcp: no boot file for this client: add a rule for its architecture or platform, or an empty one to keep it from booting here", "err", err)
}

// loadable reports whether the platform boots by the file, and says what to do
// where it does not: HTTP clients take URLs only, and iPXE that is given iPXE
// loads it for ever.
func loadable(warned *limit.Once, log *slog.Logger, r *Request, platform Platform, file string) bool {
	switch {
	case platform == PlatformHTTP && file != "" && !isURL(file):
		warnOnce(warned, log, r, "dhcp: "+noURL+" for a UEFI HTTP client: give it a boot file that begins with http:// or https://", "file", file)
	case platform == PlatformIPXE && isIPXE(file):
		warnOnce(warned, log, r, "dhcp: iPXE would "+loadItself+": put a rule with its script before the one that loads iPXE", "file", file)
	default:
		return true
	}
	return false
}

// What [BootPolicy.Check] looks for in the notes.
const (
	noURL      = "no URL"
	loadItself = "load iPXE again and again"
)

func warnOnce(warned *limit.Once, log *slog.Logger, r *Request, msg string, args ...any) {
	r.notef("%s", msg)
	if r.dry() || !warned.First(r.machine()) {
		return
	}
	args = append(args, "mac", r.machine(), "platform", r.Platform(), "class", r.ClassIdentifier())
	if arch, ok := r.Arch(); ok {
		args = append(args, "arch", int(arch), "archname", arch.String())
	}
	orDefault(log).Warn(msg, args...)
}

func isURL(file string) bool {
	file = strings.ToLower(file)
	return strings.HasPrefix(file, "http://") || strings.HasPrefix(file, "https://")
}

// bootable reports whether a client of the platform has something to boot.
func (b *Boot) bootable(platform Platform) bool {
	switch platform {
	case PlatformIPXE, PlatformGPXE:
		return b.File != "" || b.RootPath != "" // it boots from a root path without a file
	case PlatformRaspberryPi:
		return b.File != "" || b.NextServer.IsValid() // it knows its files' names
	}
	return b.File != "" || b.PXE != nil
}

// apply adds the boot part to an OFFER or ACK.
func (b *Boot) apply(r *Request, platform Platform, reply *dhcpv4.DHCPv4) error {
	if reply.Options == nil {
		reply.Options = make(dhcpv4.Options)
	}
	if b.Hostname != "" {
		setOption(reply, dhcpv4.OptionHostName, []byte(b.Hostname))
	}
	if b.RootPath != "" {
		setOption(reply, dhcpv4.OptionRootPath, []byte(b.RootPath))
	}
	if platform.WantsFile() && !b.bootable(platform) {
		return nil
	}
	next := b.NextServer
	if !next.IsValid() {
		next = toAddr(reply.ServerIdentifier())
	}
	reply.ServerIPAddr = toIP(next)
	if !platform.WantsFile() {
		return nil
	}
	b.applyFile(r, platform, reply, next)
	if b.PXELINUX != nil {
		b.PXELINUX.apply(reply)
	}
	defer func() { maps.Copy(reply.Options, b.Options) }()

	class := r.ClassIdentifier()
	switch platform {
	case PlatformIPXE, PlatformGPXE:
		// iPXE takes an offer with option 60 "PXEClient" for a ProxyDHCP one.
		delete(reply.Options, dhcpv4.OptionClassIdentifier.Code())
		features := noProxyDHCP(reply.Options.Get(dhcpv4.OptionEtherboot))
		if b.KeepSAN {
			features = append(features, 8, 1, 1)
		}
		setOption(reply, dhcpv4.OptionEtherboot, features)
	case PlatformHTTP:
		setOption(reply, dhcpv4.OptionClassIdentifier, []byte(classHTTP))
	case PlatformEtherboot:
		setOption(reply, dhcpv4.OptionVendorSpecificInformation, append([]byte{60, byte(len(classEtherboot))}, classEtherboot+"\xff"...))
	case PlatformRaspberryPi:
		setOption(reply, dhcpv4.OptionClassIdentifier, []byte(classPXE))
		setOption(reply, dhcpv4.OptionVendorSpecificInformation, pxeRaspberryPi(bytes.HasPrefix(r.ClientHWAddr, raspberryPi3[:])))
	case PlatformPXE:
		if strings.HasPrefix(class, classPXE) {
			// PXE_DISCOVERY_CONTROL, bit 3: load the file named here, do
			// not look for boot servers.
			vendor := pxeDirect
			if b.PXE != nil {
				var err error
				if vendor, err = b.PXE.Encode(); err != nil {
					return err
				}
			}
			setOption(reply, dhcpv4.OptionClassIdentifier, []byte(classPXE))
			setOption(reply, dhcpv4.OptionVendorSpecificInformation, vendor)
		}
	}
	return nil
}

// applyFile sets the field file, sname and the options 66 and 67.
func (b *Boot) applyFile(r *Request, platform Platform, reply *dhcpv4.DHCPv4, next netip.Addr) {
	reply.ServerHostName, reply.BootFileName = b.ServerName, b.File
	name := []byte(b.File)
	if platform == PlatformPXE {
		// Some ROMs read on to a NUL that the option need not have.
		name = append(name, 0)
	}
	if len(b.File) > maxFile {
		reply.BootFileName = ""
	}
	if len(b.File) > maxFile || b.File != "" && r.asksFor(dhcpv4.OptionBootfileName) {
		setOption(reply, dhcpv4.OptionBootfileName, name)
	}
	if r.asksFor(dhcpv4.OptionTFTPServerName) && platform != PlatformHTTP && next.IsValid() {
		setOption(reply, dhcpv4.OptionTFTPServerName, []byte(cmp.Or(b.ServerName, next.String())))
	}
}

// noProxyDHCP appends to option 175 the sub-option "no-pxedhcp" (176), value 1.
func noProxyDHCP(options []byte) []byte {
	return append(bytes.TrimSuffix(bytes.Clone(options), []byte{255}), 176, 1, 1)
}
