package dhcp

import (
	"fmt"
	"net"
	"slices"

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

// What EDK2 asks for, PXE and HTTP alike; each adds some of its own.
var edk2Params = [...]byte{
	1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58, 59, 60,
}

// vendorParams are the options that PXE 2.1 leaves to vendors.
var vendorParams = [...]byte{128, 129, 130, 131, 132, 133, 134, 135}

// BIOSFirmware returns what the PXE ROM of a BIOS machine sends.
func BIOSFirmware() Firmware {
	return Firmware{
		VendorClass: "PXEClient:Arch:00000:UNDI:002001",
		Archs:       []iana.Arch{iana.INTEL_X86PC},
		Interface:   []byte{1, 2, 1},
		Params:      append([]byte{1, 2, 3, 5, 6, 11, 12, 13, 15, 16, 17, 18, 43, 54, 60, 67}, vendorParams[:]...),
		MaxSize:     1260,
		SendUUID:    true,
		Broadcast:   true,
	}
}

// UEFIFirmware returns what the PXE client of EDK2 sends; arch is mostly
// [iana.EFI_X86_64] (7) or [iana.EFI_ARM64] (11).
func UEFIFirmware(arch iana.Arch) Firmware {
	return Firmware{
		VendorClass: fmt.Sprintf("PXEClient:Arch:%05d:UNDI:003000", arch),
		Archs:       []iana.Arch{arch},
		Interface:   []byte{1, 3, 0},
		Params:      slices.Concat(edk2Params[:], []byte{66, 67, 97}, vendorParams[:]),
		MaxSize:     1472,
		SendUUID:    true,
		Broadcast:   true,
	}
}

// HTTPFirmware returns what UEFI HTTP Boot sends; arch is mostly
// [iana.EFI_X86_64_HTTP] (16) or [iana.EFI_ARM64_HTTP] (19).
func HTTPFirmware(arch iana.Arch) Firmware {
	f := UEFIFirmware(arch)
	f.VendorClass = fmt.Sprintf("HTTPClient:Arch:%05d:UNDI:003000", arch)
	f.Params = slices.Concat(edk2Params[:], []byte{241, 67, 97})
	return f
}

// IPXEFirmware returns what iPXE sends; arch is that of the firmware that
// loaded it.
func IPXEFirmware(arch iana.Arch) Firmware {
	f := UEFIFirmware(arch)
	f.UserClass = "iPXE"
	f.VendorClass = fmt.Sprintf("PXEClient:Arch:%05d:UNDI:003010", arch)
	f.Interface = []byte{1, 3, 10}
	// The bus ID of a virtio card, the version, and what can be loaded: HTTP,
	// DNS, EFI images and so on.
	f.Encapsulate = []byte{
		0xb1, 5, 1, 0x1a, 0xf4, 0x10, 0, 0xeb, 3, 1, 0, 0, 0x17, 1, 1, 0x24, 1, 1, 0x13, 1, 1, 0x11, 1, 1,
		0x27, 1, 1, 0x29, 1, 1, 0x15, 1, 1, 0x12, 1, 1,
	}
	f.Params = slices.Concat([]byte{1, 3, 6, 7, 12, 15, 17, 26, 43, 60, 66, 67, 119}, vendorParams[:], []byte{175, 203})
	f.Broadcast = false
	f.SendID = true
	if arch == iana.INTEL_X86PC {
		f.VendorClass = "PXEClient:Arch:00000:UNDI:002001"
		f.Interface = []byte{1, 2, 1}
		f.Encapsulate = []byte{
			0xb1, 5, 1, 0x1a, 0xf4, 0x10, 0, 0xeb, 3, 1, 0, 0, 0x17, 1, 1, 0x22, 1, 1, 0x13, 1, 1, 0x11, 1, 1,
			0x27, 1, 1, 0x19, 1, 1, 0x29, 1, 1, 0x10, 1, 2, 0x21, 1, 1, 0x15, 1, 1, 0x18, 1, 1, 0x12, 1, 1,
		}
	}
	return f
}

// GPXEFirmware returns what gPXE sends, iPXE's ancestor in old ROMs.
func GPXEFirmware() Firmware {
	f := IPXEFirmware(iana.INTEL_X86PC)
	f.UserClass = "gPXE"
	return f
}

// EtherbootFirmware returns what an Etherboot 5.4 ROM sends.
func EtherbootFirmware() Firmware {
	return Firmware{
		VendorClass: "Etherboot-5.4",
		Params:      []byte{1, 3, 12, 43, 17, 128, 129, 150},
		MaxSize:     1500,
		Broadcast:   true,
	}
}

// UBootFirmware returns what U-Boot on 64-bit ARM sends.
func UBootFirmware() Firmware {
	return Firmware{
		VendorClass: "U-Boot.armv8",
		Archs:       []iana.Arch{iana.UBOOT_ARM64},
		Interface:   []byte{1, 0, 0},
		Params:      []byte{1, 3, 6, 12, 17},
		MaxSize:     576,
	}
}

// RaspberryPiFirmware returns what the ROM of a Raspberry Pi sends; the
// machine's hardware address must be one of the maker's.
func RaspberryPiFirmware() Firmware {
	f := BIOSFirmware()
	f.Params = slices.Concat([]byte{43, 60, 67}, vendorParams[:], []byte{66, 1, 3})
	f.MaxSize = 0
	f.Broadcast = false
	return f
}

// InitramfsFirmware returns what klibc's ipconfig sends from an initramfs.
func InitramfsFirmware() Firmware {
	return Firmware{
		VendorClass: "Linux ipconfig",
		Params:      []byte{1, 3, 6, 12, 15, 17, 26, 28, 40, 119, 121},
		Broadcast:   true,
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
