package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// PXE is what option 43 tells a PXE client (PXE 2.1 section 2.2.3; the
// numbers are those of the sub-options). Its choice from a menu comes back on
// port 4011 of a boot server: see [Request.BootItem].
type PXE struct {
	// Control (6) says how the client finds its boot server.
	Control PXEControl
	// Multicast (7) is the group in which the client looks for boot servers.
	Multicast netip.Addr
	// Servers (8) are boot servers by type.
	Servers []PXEServer
	// Menu (9) is what the user chooses from; each entry is a type of boot
	// server, 0 the local disk.
	Menu []PXEItem
	// Prompt (10) is shown before the menu; nil for none.
	Prompt *PXEPrompt
}

// PXEControl are the bits of sub-option 6.
type PXEControl uint8

const (
	// PXENoBroadcast and PXENoMulticast keep the client from looking for boot
	// servers in that way; PXEServersOnly has it use those of the list.
	PXENoBroadcast PXEControl = 1 << iota
	PXENoMulticast
	PXEServersOnly
	// PXEDirect has the client load the boot file that it was told, without
	// menu, prompt or boot server.
	PXEDirect
)

// PXEServer is one type of boot server: where it is. No address means that any
// one that answers will do.
type PXEServer struct {
	Type  uint16
	Addrs []netip.Addr
}

// PXEItem is a line of the menu.
type PXEItem struct {
	Type uint16 // of boot server
	Text string
}

// PXEPrompt is shown for some seconds; 255 waits for a key for ever, 0 takes
// the first entry at once.
type PXEPrompt struct {
	Seconds uint8
	Text    string
}

// Encode returns the option's value. What is too long for it, or no IPv4
// address, is an error that is [fs.ErrInvalid].
func (p *PXE) Encode() ([]byte, error) {
	b := []byte{6, 1, byte(p.Control)}
	var err error
	add := func(code byte, v []byte) {
		if len(v) > 255 {
			err = fmt.Errorf("dhcp: PXE sub-option %d has %d bytes, 255 is the most: %w", code, len(v), fs.ErrInvalid)
			return
		}
		b = append(append(b, code, byte(len(v))), v...)
	}
	addr := func(v []byte, a netip.Addr) []byte {
		if !a.Is4() {
			err = fmt.Errorf("dhcp: PXE: %v is no IPv4 address: %w", a, fs.ErrInvalid)
		}
		return append(v, a.AsSlice()...)
	}
	if p.Multicast.IsValid() {
		add(7, addr(nil, p.Multicast))
	}
	var v []byte
	for _, s := range p.Servers {
		if len(s.Addrs) > 60 {
			return nil, fmt.Errorf("dhcp: PXE boot server type %d has more than 60 addresses: %w", s.Type, fs.ErrInvalid)
		}
		v = append(binary.BigEndian.AppendUint16(v, s.Type), byte(len(s.Addrs)))
		for _, a := range s.Addrs {
			v = addr(v, a)
		}
	}
	if v != nil {
		add(8, v)
	}
	v = nil
	for _, m := range p.Menu {
		if len(m.Text) > 250 {
			return nil, fmt.Errorf("dhcp: PXE menu entry %q is too long: %w", m.Text, fs.ErrInvalid)
		}
		v = append(append(binary.BigEndian.AppendUint16(v, m.Type), byte(len(m.Text))), m.Text...)
	}
	if v != nil {
		add(9, v)
	}
	if p.Prompt != nil {
		add(10, append([]byte{p.Prompt.Seconds}, p.Prompt.Text...))
	}
	if err != nil {
		return nil, err
	}
	return append(b, 255), nil
}

var errPXE = errors.New("dhcp: option 43 is no list of PXE sub-options")

// ParsePXE reads the value of option 43 as a PXE client does; sub-options that
// are not known are passed over. Of a list that has no discovery control,
// hasControl is false.
func ParsePXE(data []byte) (p *PXE, hasControl bool, err error) {
	p = new(PXE)
	for len(data) > 0 && data[0] != 255 {
		if data[0] == 0 {
			data = data[1:]
			continue
		}
		if len(data) < 2 || int(data[1]) > len(data)-2 {
			return nil, false, errPXE
		}
		code, v := data[0], data[2:2+int(data[1])]
		data = data[2+len(v):]
		switch code {
		case 6:
			if len(v) != 1 {
				return nil, false, errPXE
			}
			p.Control, hasControl = PXEControl(v[0]), true
		case 7:
			p.Multicast = toAddr(v)
		case 8:
			for len(v) > 0 {
				if len(v) < 3 || len(v) < 3+4*int(v[2]) {
					return nil, false, errPXE
				}
				s := PXEServer{Type: binary.BigEndian.Uint16(v)}
				n := int(v[2])
				for v = v[3:]; n > 0; n-- {
					s.Addrs = append(s.Addrs, netip.AddrFrom4([4]byte(v)))
					v = v[4:]
				}
				p.Servers = append(p.Servers, s)
			}
		case 9:
			for len(v) > 0 {
				if len(v) < 3 || len(v) < 3+int(v[2]) {
					return nil, false, errPXE
				}
				end := 3 + int(v[2])
				p.Menu = append(p.Menu, PXEItem{Type: binary.BigEndian.Uint16(v), Text: string(v[3:end])})
				v = v[end:]
			}
		case 10:
			if len(v) < 1 {
				return nil, false, errPXE
			}
			p.Prompt = &PXEPrompt{Seconds: v[0], Text: string(v[1:])}
		}
	}
	return p, hasControl, nil
}

// pxeDirect has the client load the file named, and look for nothing else.
var pxeDirect = []byte{6, 1, byte(PXEDirect), 255}

// pxeRaspberryPi is the menu that the Pi's boot ROM looks for, and boots from
// whoever sent it. The one of the Pi 3 and before wants blanks behind.
func pxeRaspberryPi(padded bool) []byte {
	text := "Raspberry Pi Boot"
	if padded {
		text += "   "
	}
	p := PXE{Control: PXENoBroadcast | PXENoMulticast, Menu: []PXEItem{{Text: text}}, Prompt: &PXEPrompt{Text: "PXE"}}
	b, _ := p.Encode() // cannot fail: all of it is short
	return b
}

// BootItem is what a PXE client chose from the menu (sub-option 71 of option
// 43), when it asks the boot server of that type for its file, on port 4011:
// layer 0 is the first file. ok is false for any other request.
func (r *Request) BootItem() (server, layer uint16, ok bool) {
	for rest := r.Options.Get(dhcpv4.OptionVendorSpecificInformation); len(rest) > 0 && rest[0] != 255; {
		if rest[0] == 0 {
			rest = rest[1:]
			continue
		}
		if len(rest) < 2 || int(rest[1]) > len(rest)-2 {
			break
		}
		v := rest[2 : 2+int(rest[1])]
		if rest[0] == subBootItem && len(v) == 4 {
			return binary.BigEndian.Uint16(v), binary.BigEndian.Uint16(v[2:]), true
		}
		rest = rest[2+len(v):]
	}
	return 0, 0, false
}

// PXEBootItem is the value of option 43 in a boot server's answer: the client's
// choice once more.
func PXEBootItem(server, layer uint16) []byte {
	b := binary.BigEndian.AppendUint16([]byte{subBootItem, 4}, server)
	return append(binary.BigEndian.AppendUint16(b, layer), 255)
}

const subBootItem = 71
