package takeover

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// dnsService is an entry of the PXE menu.
type dnsService struct {
	at     Pos
	tags   []string
	arch   iana.Arch
	text   string
	kind   uint16 // of boot server; 0 is the local disk
	file   string // of this server, which is a boot server then
	server netip.Addr
}

// fileFor is the file's name in a layer: PXE's own for one without an ending.
func (s *dnsService) fileFor(layer uint16) string {
	if strings.Contains(s.file, ".") {
		return s.file
	}
	return fmt.Sprint(s.file, ".", layer)
}

type dnsPrompt struct {
	tags []string
	dhcp.PXEPrompt
}

// firstKind is the first of the types that services with a file have.
const firstKind = 0x8000

const maxServices = 1000

// maxVendor is what fits into one option, which is all that many a ROM reads.
const maxVendor = 255

var pxeArchs = map[string]iana.Arch{
	"x86PC": 0, "PC98": 1, "IA64_EFI": 2, "Alpha": 3, "Arc_x86": 4, "Intel_Lean_Client": 5, "IA32_EFI": 6, "X86-64_EFI": 7, "x86-64_EFI": 7,
	"Xscale_EFI": 8, "BC_EFI": 9, "ARM32_EFI": 10, "ARM64_EFI": 11,
}

func (d *dnsmasq) pxeService(fields []string) {
	tags, fields := takeTags(fields, "tag:")
	if len(fields) < 2 {
		d.note("pxe-service has the form pxe-service=ARCHITECTURE,TEXT,FILE or TYPE,SERVER")
		return
	}
	arch, ok := pxeArchs[fields[0]]
	if n, err := strconv.ParseUint(fields[0], 10, 16); err == nil {
		arch, ok = iana.Arch(n), true
	}
	if !ok {
		d.note("the architecture %q of a pxe-service is not known: write its number", fields[0])
		return
	}
	s := dnsService{at: d.at, tags: tags, arch: arch, text: fields[1]}
	if len(fields) > 2 && fields[2] != "" {
		if n, err := strconv.ParseUint(fields[2], 10, 16); err == nil {
			s.kind = uint16(n)
		} else {
			s.file, s.kind = fields[2], firstKind+d.files
			d.files++
		}
	}
	if len(fields) > 3 && fields[3] != "" {
		a, err := d.o.resolve(d.ctx, fields[3])
		switch {
		case err == nil:
			s.server = a
		case s.file != "":
			d.note("the server %q cannot be found: %v; this server is named instead", fields[3], err)
		default:
			d.note("the server %q cannot be found: %v; machines look for it themselves", fields[3], err)
		}
	}
	if len(d.services) == maxServices {
		d.note("there are more than %d services", maxServices)
		return
	}
	d.services = append(d.services, s)
}

// fitMenus takes away the entries that a menu has no room for.
func (d *dnsmasq) fitMenus() {
	longest := dhcp.PXEPrompt{Text: "PXE"}
	for i := range d.prompts {
		if p := d.prompts[i].PXEPrompt; len(p.Text) > len(longest.Text) {
			longest = p
		}
	}
	all := d.services
	d.services = nil
	for _, s := range all {
		d.services = append(d.services, s)
		v, err := d.menu(d.servicesOf(s.arch, nil), netip.IPv4Unspecified(), &longest).Encode()
		if err != nil || len(v) > maxVendor {
			d.at = s.at
			d.note("the menu of architecture %d is longer than %d bytes: this entry is not taken over", s.arch, maxVendor)
			d.services = d.services[:len(d.services)-1]
		}
	}
}

func (d *dnsmasq) pxePrompt(fields []string) {
	tags, fields := takeTags(fields, "tag:")
	p := dnsPrompt{tags, dhcp.PXEPrompt{Seconds: 255}}
	if len(fields) > 1 {
		n, err := strconv.ParseUint(fields[1], 10, 8)
		if err != nil {
			d.note("%q is no number of seconds up to 255", fields[1])
			return
		}
		p.Seconds = uint8(n)
	}
	if len(fields) == 0 || len(fields) > 2 || len(fields[0]) > 100 {
		d.note("pxe-prompt has the form pxe-prompt=TEXT,SECONDS, with 100 bytes of text at most")
		return
	}
	p.Text = fields[0]
	d.prompts = append(d.prompts, p)
}

// servicesOf are those of an architecture, for a client that has the tags, or
// for any.
func (d *dnsmasq) servicesOf(arch iana.Arch, set map[string]bool) []dnsService {
	return slices.DeleteFunc(slices.Clone(d.services), func(s dnsService) bool {
		return s.arch != arch || set != nil && !allSet(s.tags, set)
	})
}

// menu is what the services are to a PXE client. Without a prompt of the file's
// it waits for ever where there is a choice.
func (d *dnsmasq) menu(services []dnsService, self netip.Addr, prompt *dhcp.PXEPrompt) *dhcp.PXE {
	p := &dhcp.PXE{Control: dhcp.PXENoBroadcast | dhcp.PXENoMulticast, Prompt: prompt}
	for _, s := range services {
		p.Menu = append(p.Menu, dhcp.PXEItem{Type: s.kind, Text: s.text})
		server := s.server
		if s.file != "" {
			server = self // it names the server of the file
		}
		switch {
		case server.IsValid():
			p.Servers = append(p.Servers, dhcp.PXEServer{Type: s.kind, Addrs: []netip.Addr{server}})
		case s.kind != 0:
			p.Control = dhcp.PXENoMulticast // to find one
		}
	}
	if p.Prompt == nil {
		p.Prompt = &dhcp.PXEPrompt{Text: "PXE"}
		if len(services) > 1 {
			p.Prompt.Seconds = 255
		}
	}
	return p
}

// direct reports whether there is a file to load without a menu: the only one
// for UEFI, and for others the only entry.
func direct(services []dnsService, prompted bool) bool {
	files := 0
	for i := range services {
		if services[i].file != "" {
			files++
		}
	}
	const firstUEFI = 6
	return files == 1 && (services[0].arch >= firstUEFI || len(services) == 1 && !prompted)
}

// serviceBoot is what a client boots by its services, of which there are some.
func (d *dnsmasq) serviceBoot(self netip.Addr, platform dhcp.Platform, services []dnsService, set map[string]bool) dhcp.Boot {
	var prompt *dhcp.PXEPrompt
	if p := pick(d.prompts, set, func(p *dnsPrompt) []string { return p.tags }); p != nil {
		prompt = &p.PXEPrompt
	}
	isPi := platform == dhcp.PlatformRaspberryPi // it has a menu of its own, and names for files
	if !isPi && !direct(services, prompt != nil) {
		return dhcp.Boot{PXE: d.menu(services, self, prompt)}
	}
	for i := range services {
		if s := &services[i]; s.file != "" {
			return dhcp.Boot{File: s.fileFor(0), NextServer: s.server}
		}
	}
	return dhcp.Boot{NextServer: self}
}

// hasMenus reports whether clients may choose what this server has a file for.
func (d *dnsmasq) hasMenus() bool {
	return slices.ContainsFunc(d.services, func(s dnsService) bool {
		return s.file != "" && !direct(d.servicesOf(s.arch, nil), len(d.prompts) > 0)
	})
}

// bootServer answers on port 4011, where a client with an address in the subnet
// asks for the file of what it chose.
func (d *dnsmasq) bootServer(p *dhcp.Pool, r *dhcp.Request) *dhcpv4.DHCPv4 {
	kind, layer, ok := r.BootItem()
	client, _ := netip.AddrFromSlice(r.ClientIPAddr.To4())
	t := r.MessageType()
	i := slices.IndexFunc(d.services, func(s dnsService) bool { return s.kind == kind && s.file != "" })
	const signed = 0x8000 // layer of a file for boot integrity services
	if !ok || i < 0 || layer&signed != 0 || !p.Prefix.Contains(client) ||
		t != dhcpv4.MessageTypeRequest && t != dhcpv4.MessageTypeInform || !strings.HasPrefix(r.ClassIdentifier(), "PXEClient") {
		return nil
	}
	s := &d.services[i]
	r.Note("pxe-service %q", s.text)
	reply := dhcp.NewReply(r, dhcpv4.MessageTypeAck)
	server := s.server
	if !server.IsValid() {
		server = p.ServerID
	}
	reply.YourIPAddr, reply.ServerIPAddr = r.ClientIPAddr, server.AsSlice()
	reply.BootFileName = s.fileFor(layer)
	reply.Options[dhcpv4.OptionServerIdentifier.Code()] = p.ServerID.AsSlice()
	reply.Options[dhcpv4.OptionClassIdentifier.Code()] = []byte("PXEClient")
	reply.Options[dhcpv4.OptionVendorSpecificInformation.Code()] = dhcp.PXEBootItem(kind, layer)
	return reply
}
