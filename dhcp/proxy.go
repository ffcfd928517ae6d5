package dhcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/seed-3ec230fa/diskless/dhcp/internal/limit"
)

// Proxy is a [Handler] that tells booting machines what to boot, beside
// another server that gives the addresses (ProxyDHCP, PXE 2.1 section 2.2). It
// never gives an address, never answers a client that does not ask to boot,
// and leaves all that happens on port 67 but DISCOVERs to the other server.
//
// A BIOS ROM, iPXE and UEFI HTTP Boot are told everything in the offer. UEFI's
// PXE client gets an offer that sends it to port 4011 of this server, since
// firmware from before 2017 ignores a boot file in a proxy's offer: serve that
// port too ([Server.ProxyPort]), or set OfferOnly.
type Proxy struct {
	// ServerID is the address by which clients know this server; required.
	ServerID netip.Addr

	// Boot is as in [BootPolicy.Boot]. Required.
	Boot func(ctx context.Context, r *Request) (Boot, error)

	// OfferOnly tells UEFI everything in the offer, where port 4011 cannot be
	// served.
	OfferOnly bool

	// Logger is for what an operator must see; nil is [slog.Default].
	Logger *slog.Logger

	warned limit.Once
}

var _ Handler = (*Proxy)(nil)

// ServeDHCP implements [Handler].
func (p *Proxy) ServeDHCP(ctx context.Context, r *Request) (*dhcpv4.DHCPv4, error) {
	if !p.ServerID.Is4() || p.Boot == nil {
		return nil, fmt.Errorf("dhcp: Proxy needs ServerID and Boot: %w", fs.ErrInvalid)
	}
	class := string(r.Options.Get(dhcpv4.OptionClassIdentifier))
	if !strings.HasPrefix(class, classPXE) && !strings.HasPrefix(class, classHTTP) || !r.identified() {
		r.notef("not a client that asks to boot (option 60)")
		return nil, nil
	}
	at4011 := r.Local.Port() == proxyPort
	var kind dhcpv4.MessageType
	switch t := r.MessageType(); {
	case t == dhcpv4.MessageTypeDiscover && !at4011:
		kind = dhcpv4.MessageTypeOffer
	case (t == dhcpv4.MessageTypeRequest || t == dhcpv4.MessageTypeInform) && at4011:
		kind = dhcpv4.MessageTypeAck
	default:
		r.notef("a proxy answers DISCOVERs on port 67 and REQUESTs on port 4011")
		return nil, nil
	}
	platform := r.Platform()
	boot, err := p.Boot(ctx, r)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		warnNoBoot(&p.warned, p.Logger, r, err)
		return nil, nil
	case err != nil:
		return nil, err
	}
	if !loadable(&p.warned, p.Logger, r, platform, boot.File) {
		return nil, nil
	}
	if !boot.bootable(platform) {
		return nil, nil
	}
	reply := NewReply(r, kind)
	setOption(reply, dhcpv4.OptionServerIdentifier, p.ServerID.AsSlice())
	if kind == dhcpv4.MessageTypeOffer && platform == PlatformPXE && !r.isBIOS() && !p.OfferOnly {
		r.notef("UEFI is sent to port 4011 of %v for its boot file", p.ServerID)
		reply.ServerIPAddr = toIP(p.ServerID)
		setOption(reply, dhcpv4.OptionClassIdentifier, []byte(classPXE))
		return reply, nil
	}
	if err := boot.apply(r, platform, reply); err != nil {
		return nil, err
	}
	if platform == PlatformIPXE || platform == PlatformGPXE {
		// Unlike an offer with an address, this one must say that it is a
		// proxy's.
		setOption(reply, dhcpv4.OptionClassIdentifier, []byte(classPXE))
		setDefault(reply, dhcpv4.OptionVendorSpecificInformation.Code(), pxeDirect)
	}
	if server, layer, ok := r.BootItem(); ok && at4011 {
		v := bytes.TrimSuffix(reply.Options.Get(dhcpv4.OptionVendorSpecificInformation), []byte{255})
		setOption(reply, dhcpv4.OptionVendorSpecificInformation, append(bytes.Clone(v), PXEBootItem(server, layer)...))
	}
	return reply, nil
}

// isBIOS reports whether the client's firmware is that of a PC before UEFI.
func (r *Request) isBIOS() bool {
	arch, ok := r.Arch()
	return !ok || arch == iana.INTEL_X86PC
}
