package dhcp

import (
	"fmt"
	"net"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Firmware is what a program that boots a machine says about itself in its
// requests; a [Client] sends it. The zero value says nothing, as a plain DHCP
// client of a system does.
type Firmware struct {
	VendorClass string      // option 60
	UserClass   string      // option 77, as a bare string, as iPXE sends it
	Archs       []iana.Arch // option 93
	Interface   []byte      // option 94, network interface identifier
	Encapsulate []byte      // option 175, iPXE's features
	Params      []byte      // option 55, codes asked for
	MaxSize     uint16      // option 57, bytes
	SendUUID    bool        // whether option 97 is sent
	Broadcast   bool        // whether replies are to be broadcast
	SendID      bool        // whether option 61 is sent, hardware type and address
}

// pxeParams is what PXE 2.1 section 2.2.1 has a client ask for, without the
// vendor range.
var pxeParams = [...]byte{1, 2, 3, 5, 6, 11, 12, 13, 15, 16, 17, 18, 43, 54, 60, 66, 67}

// BIOSFirmware returns what the PXE ROM of a BIOS machine sends.
func BIOSFirmware() Firmware {
	return Firmware{
		VendorClass: "PXEClient:Arch:00000:UNDI:002001",
		Archs:       []iana.Arch{iana.INTEL_X86PC},
		Interface:   []byte{1, 2, 1},
		Params:      append([]byte(nil), pxeParams[:]...),
		MaxSize:     1260,
		SendUUID:    true,
		Broadcast:   true,
	}
}

// UEFIFirmware returns what the PXE client of EDK2 sends; arch is mostly
// [iana.EFI_X86_64] (7) or [iana.EFI_ARM64] (11).
func UEFIFirmware(arch iana.Arch) Firmware {
	return Firmware{
		VendorClass: fmt.Sprintf("PXEClient:Arch:%05d:UNDI:003001", arch),
		Archs:       []iana.Arch{arch},
		Interface:   []byte{1, 3, 1},
		Params:      append([]byte(nil), pxeParams[:]...),
		MaxSize:     1472,
		SendUUID:    true,
		Broadcast:   true,
	}
}

// HTTPFirmware returns what UEFI HTTP Boot sends; arch is mostly
// [iana.EFI_X86_64_HTTP] (16) or [iana.EFI_ARM64_HTTP] (19).
func HTTPFirmware(arch iana.Arch) Firmware {
	f := UEFIFirmware(arch)
	f.VendorClass = fmt.Sprintf("HTTPClient:Arch:%05d:UNDI:003001", arch)
	f.Params = []byte{1, 3, 6, 12, 15, 43, 60, 67}
	return f
}

// IPXEFirmware returns what iPXE sends; arch is that of the firmware that
// loaded it.
func IPXEFirmware(arch iana.Arch) Firmware {
	f := UEFIFirmware(arch)
	f.UserClass = "iPXE"
	// Features: protocol, PXE, HTTP, TFTP, DNS; their values are versions.
	f.Encapsulate = []byte{0xb1, 5, 1, 0x1a, 0xf4, 0x10, 0, 0x18, 1, 1, 0x13, 1, 1, 0x19, 1, 1, 0x12, 1, 1}
	f.Params = []byte{1, 3, 6, 7, 12, 15, 17, 26, 43, 60, 66, 67, 119, 175, 203}
	f.Broadcast = false
	f.SendID = true
	return f
}

// InitramfsFirmware returns what klibc's ipconfig sends from an initramfs.
func InitramfsFirmware() Firmware {
	return Firmware{
		VendorClass: "Linux ipconfig",
		Params:      []byte{1, 3, 6, 12, 15, 17, 26, 28},
		MaxSize:     1500,
	}
}

// fill adds the firmware's options to a request.
func (f *Firmware) fill(m *dhcpv4.DHCPv4, hw net.HardwareAddr, uuid [16]byte) {
	set := func(code dhcpv4.OptionCode, v []byte) {
		if len(v) > 0 {
			setOption(m, code, v)
		}
	}
	set(dhcpv4.OptionClassIdentifier, []byte(f.VendorClass))
	set(dhcpv4.OptionUserClassInformation, []byte(f.UserClass))
	set(dhcpv4.OptionClientSystemArchitectureType, iana.Archs(f.Archs).ToBytes())
	set(dhcpv4.OptionClientNetworkInterfaceIdentifier, f.Interface)
	set(dhcpv4.OptionEtherboot, f.Encapsulate)
	set(dhcpv4.OptionParameterRequestList, f.Params)
	if f.MaxSize > 0 {
		set(dhcpv4.OptionMaximumDHCPMessageSize, []byte{byte(f.MaxSize >> 8), byte(f.MaxSize)})
	}
	if f.SendUUID {
		set(dhcpv4.OptionClientMachineIdentifier, append([]byte{0}, uuid[:]...))
	}
	if f.SendID {
		set(dhcpv4.OptionClientIdentifier, append([]byte{byte(iana.HWTypeEthernet)}, hw...))
	}
	if f.Broadcast {
		m.SetBroadcast()
	}
}
