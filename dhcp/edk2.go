package dhcp

import (
	"cmp"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// EDK2Choice is what EDK2's PXE client makes of the offers that it got.
type EDK2Choice struct {
	// Offer is the index of the offer whose address it takes, Proxy that of
	// the one that it boots by, -1 for the same.
	Offer, Proxy int
	// File is the boot file, "" when it asks for it or finds none.
	File string
	// Asks is the server whose port 4011 the client asks for the boot file;
	// when nobody answers there, it does not boot.
	Asks netip.Addr
	// Discover is true when the client looks for a boot server, by the menu
	// and the list of PXE in option 43, instead of loading File.
	Discover bool
}

// Kinds of offers, as EDK2 tells them apart.
const (
	edk2DHCPOnly = iota
	edk2PXE10    // option 60 "PXEClient" and discovery control in option 43
	edk2BINL     // option 60 "PXEClient" without
	edk2Nothing  // a proxy's offer for somebody else
)

// ChooseEDK2 chooses among offers as EDK2's PXE client does (its default
// order, as in UefiPxeBcDxe): an offer with address and PXE boot information;
// an address and a proxy's boot information; an offer that sends it to port
// 4011; an address and a proxy that does so; an address and a plain boot file.
// ok is false when it does not boot by any of them. Multicast TFTP (WfM 1.1a),
// which nobody speaks any more, is left out.
func ChooseEDK2(offers []*dhcpv4.DHCPv4) (c EDK2Choice, ok bool) {
	var first [2][edk2Nothing + 1]int // by proxy or not, and kind: index + 1
	withFile := 0
	for i, o := range offers {
		proxy := 0
		if !toAddr(o.YourIPAddr).IsValid() {
			proxy = 1
		}
		kind, _ := edk2Kind(o)
		if proxy == 1 && kind == edk2DHCPOnly {
			kind = edk2Nothing
		}
		if first[proxy][kind] == 0 {
			first[proxy][kind] = i + 1
		}
		if proxy == 0 && kind == edk2DHCPOnly && withFile == 0 && offeredFile(o) != "" {
			withFile = i + 1
		}
	}
	direct, proxy := first[0], first[1]
	c.Proxy = -1
	by := func(i int) { // an offer with boot information
		o := offers[i]
		_, pxe := edk2Kind(o)
		c.File = offeredFile(o)
		c.Discover = pxe.Control&PXEDirect == 0 || c.File == ""
	}
	asks := func(i int) {
		c.Asks = toAddr(offers[i].ServerIPAddr)
		if !c.Asks.IsValid() {
			c.Asks = toAddr(offers[i].ServerIdentifier())
		}
	}
	switch {
	case direct[edk2PXE10] > 0:
		c.Offer = direct[edk2PXE10] - 1
		by(c.Offer)
	case direct[edk2DHCPOnly] > 0 && proxy[edk2PXE10] > 0:
		c.Offer, c.Proxy = direct[edk2DHCPOnly]-1, proxy[edk2PXE10]-1
		by(c.Proxy)
	case direct[edk2BINL] > 0:
		c.Offer = direct[edk2BINL] - 1
		asks(c.Offer)
	case direct[edk2DHCPOnly] > 0 && proxy[edk2BINL] > 0:
		c.Offer, c.Proxy = direct[edk2DHCPOnly]-1, proxy[edk2BINL]-1
		asks(c.Proxy)
	case withFile > 0:
		c.Offer = withFile - 1
		c.File = offeredFile(offers[c.Offer])
	default:
		return EDK2Choice{Offer: -1, Proxy: -1}, false
	}
	return c, true
}

func edk2Kind(o *dhcpv4.DHCPv4) (kind int, pxe *PXE) {
	if !strings.HasPrefix(string(o.Options.Get(dhcpv4.OptionClassIdentifier)), classPXE) {
		return edk2DHCPOnly, nil
	}
	pxe, hasControl, err := ParsePXE(o.Options.Get(dhcpv4.OptionVendorSpecificInformation))
	if err != nil || !hasControl && pxe.Prompt == nil && pxe.Menu == nil && pxe.Servers == nil {
		return edk2BINL, nil
	}
	return edk2PXE10, pxe
}

// offeredFile is the boot file that a reply names.
func offeredFile(m *dhcpv4.DHCPv4) string {
	return cmp.Or(strings.TrimRight(m.BootFileNameOption(), "\x00"), m.BootFileName)
}
