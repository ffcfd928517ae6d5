package dhcp6

import (
	"crypto/rand"
	"fmt"
	"net"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// Firmware is what a program that boots a machine says about itself in its
// requests; a [Client] sends it. The zero value says nothing, as a system's
// client does.
type Firmware struct {
	VendorClass string              // option 16
	UserClass   string              // option 15
	Archs       []iana.Arch         // option 61
	Interface   *[3]byte            // option 62, network interface identifier: type, major, minor
	Params      []dhcpv6.OptionCode // option 6, options asked for
	SendUUID    bool                // whether the DUID is the machine's UUID; else made of its hardware address
}

// UEFIFirmware returns what the PXE client of EDK2 sends over IPv6; arch is
// mostly [iana.EFI_X86_64] (7) or [iana.EFI_ARM64] (11).
func UEFIFirmware(arch iana.Arch) Firmware {
	return Firmware{
		VendorClass: fmt.Sprintf("PXEClient:Arch:%05d:UNDI:003000", arch),
		Archs:       []iana.Arch{arch},
		Interface:   &[3]byte{1, 3, 0},
		Params: []dhcpv6.OptionCode{
			dhcpv6.OptionBootfileURL, dhcpv6.OptionBootfileParam, dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionVendorClass,
		},
		SendUUID: true,
	}
}

// HTTPFirmware returns what UEFI HTTP Boot sends over IPv6; arch is mostly
// [iana.EFI_X86_64_HTTP] (16) or [iana.EFI_ARM64_HTTP] (19).
func HTTPFirmware(arch iana.Arch) Firmware {
	f := UEFIFirmware(arch)
	f.VendorClass = fmt.Sprintf("HTTPClient:Arch:%05d:UNDI:003000", arch)
	return f
}

// IPXEFirmware returns what iPXE sends over IPv6; arch is that of the firmware
// that loaded it.
func IPXEFirmware(arch iana.Arch) Firmware {
	f := UEFIFirmware(arch)
	f.UserClass = "iPXE"
	f.VendorClass, f.Interface = fmt.Sprintf("PXEClient:Arch:%05d:UNDI:003010", arch), &[3]byte{1, 3, 10}
	if arch == iana.INTEL_X86PC {
		f.VendorClass, f.Interface = "PXEClient:Arch:00000:UNDI:002001", &[3]byte{1, 2, 1}
	}
	f.Params = []dhcpv6.OptionCode{
		dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList, dhcpv6.OptionBootfileURL, dhcpv6.OptionBootfileParam,
	}
	return f
}

// duid is the firmware's client identifier.
func (f *Firmware) duid(hw net.HardwareAddr, uuid [16]byte) dhcpv6.DUID {
	if f.SendUUID {
		return &dhcpv6.DUIDUUID{UUID: uuid}
	}
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: hw}
}

// message starts a request of the firmware's.
func (f *Firmware) message(t dhcpv6.MessageType, hw net.HardwareAddr, uuid [16]byte) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: t}
	rand.Read(m.TransactionID[:]) // never fails
	m.AddOption(dhcpv6.OptClientID(f.duid(hw, uuid)))
	m.AddOption(dhcpv6.OptElapsedTime(0))
	if len(f.Params) > 0 {
		m.AddOption(dhcpv6.OptRequestedOption(f.Params...))
	}
	if f.UserClass != "" {
		m.AddOption(&dhcpv6.OptUserClass{UserClasses: [][]byte{[]byte(f.UserClass)}})
	}
	if f.VendorClass != "" {
		m.AddOption(&dhcpv6.OptVendorClass{EnterpriseNumber: enterpriseIntel, Data: [][]byte{[]byte(f.VendorClass)}})
	}
	if len(f.Archs) > 0 {
		m.AddOption(dhcpv6.OptClientArchType(f.Archs...))
	}
	if n := f.Interface; n != nil {
		m.AddOption(&dhcpv6.OptNetworkInterfaceID{Typ: dhcpv6.NetworkInterfaceType(n[0]), Major: n[1], Minor: n[2]})
	}
	return m
}

// checkedFirmware is what [BootPolicy.Check] plays: what loads iPXE before iPXE.
type checkedFirmware struct {
	name string
	f    Firmware
}

func checkedFirmwares() []checkedFirmware {
	var loaders, ipxe []checkedFirmware
	for _, arch := range []iana.Arch{iana.EFI_IA32, iana.EFI_X86_64, iana.EFI_BC, iana.EFI_ARM64, iana.EFI_RISCV64} {
		loaders = append(loaders, checkedFirmware{fmt.Sprintf("UEFI PXE, architecture %d", arch), UEFIFirmware(arch)})
		ipxe = append(ipxe, checkedFirmware{fmt.Sprintf("iPXE on UEFI, architecture %d", arch), IPXEFirmware(arch)})
	}
	for _, arch := range []iana.Arch{iana.EFI_X86_HTTP, iana.EFI_X86_64_HTTP, iana.EFI_ARM64_HTTP, iana.EFI_RISCV64_HTTP} {
		loaders = append(loaders, checkedFirmware{fmt.Sprintf("UEFI HTTP Boot, architecture %d", arch), HTTPFirmware(arch)})
	}
	ipxe = append(ipxe, checkedFirmware{"iPXE on BIOS", IPXEFirmware(iana.INTEL_X86PC)})
	return append(loaders, ipxe...)
}
