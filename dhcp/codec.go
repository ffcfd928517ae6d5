package dhcp

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Where the fields of a message are (RFC 2131 section 2).
const (
	snameAt   = 44
	fileAt    = 108
	cookieAt  = 236
	optionsAt = 240
)

var magicCookie = [4]byte{99, 130, 83, 99}

// decode parses a request of len(data)-1 bytes. The spare byte at the end
// becomes an End option, since clients exist that leave it out and the codec
// insists on it.
//
// Beyond what the codec does it takes BOOTP messages without options (RFC
// 951) and options in the fields sname and file (RFC 2132 section 9.3).
func decode(data []byte) (*dhcpv4.DHCPv4, error) {
	n := len(data) - 1
	if n >= maxDatagram {
		return nil, fmt.Errorf("dhcp: datagram of %d bytes or more", maxDatagram)
	}
	if n > 0 && dhcpv4.OpcodeType(data[0]) != dhcpv4.OpcodeBootRequest {
		return nil, errNotRequest
	}
	if n >= cookieAt && (n < optionsAt || [4]byte(data[cookieAt:]) != magicCookie) {
		var plain [optionsAt + 1]byte
		copy(plain[:], data[:cookieAt])
		copy(plain[cookieAt:], magicCookie[:])
		plain[optionsAt] = dhcpv4.OptionEnd.Code()
		return dhcpv4.FromBytes(plain[:])
	}
	data[n] = dhcpv4.OptionEnd.Code()
	m, err := dhcpv4.FromBytes(data)
	if err != nil {
		return nil, err
	}
	if o := m.Options.Get(dhcpv4.OptionOptionOverload); len(o) == 1 && o[0] != 0 {
		// RFC 3396 section 5: file first, then sname.
		if o[0]&1 != 0 {
			m.BootFileName = ""
			err = addOptions(m.Options, data[fileAt:cookieAt])
		}
		if o[0]&2 != 0 && err == nil {
			m.ServerHostName = ""
			err = addOptions(m.Options, data[snameAt:fileAt])
		}
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}

// addOptions parses the options of a field into o; those that continue one go
// to its end.
func addOptions(o dhcpv4.Options, field []byte) error {
	more := make(dhcpv4.Options)
	if err := more.FromBytes(field); err != nil {
		return fmt.Errorf("dhcp: options in file or sname: %w", err)
	}
	for code, v := range more {
		o[code] = slices.Concat(o[code], v)
	}
	return nil
}

// overload moves options out of an encoded reply that is too long into the
// fields file and sname, where the reply needs neither (option 52). It returns
// the new message, or nil when that does not make it short enough.
//
// What a ROM might not look for there stays in its place: who sent the
// message, the address and its time, and where to boot from.
func overload(reply *dhcpv4.DHCPv4, limit int) []byte {
	type field struct {
		bit      byte
		at, size int
		used     []byte
	}
	var fields []field
	if reply.BootFileName == "" {
		fields = append(fields, field{bit: 1, at: fileAt, size: cookieAt - fileAt})
	}
	if reply.ServerHostName == "" {
		fields = append(fields, field{bit: 2, at: snameAt, size: fileAt - snameAt})
	}
	rest := make(dhcpv4.Options, len(reply.Options)+1)
	var movable []uint8
	for code, v := range reply.Options {
		rest[code] = v
		if !mustKeep(code) && len(v) < 255 {
			movable = append(movable, code)
		}
	}
	// The longest first, for the least waste.
	slices.SortFunc(movable, func(a, b uint8) int {
		if d := len(rest[b]) - len(rest[a]); d != 0 {
			return d
		}
		return int(a) - int(b)
	})
	var bits byte
	for _, code := range movable {
		v := rest[code]
		for i := range fields {
			f := &fields[i]
			if len(f.used)+2+len(v)+1 <= f.size { // 1 for the End
				f.used = append(append(f.used, code, byte(len(v))), v...)
				bits |= f.bit
				delete(rest, code)
				break
			}
		}
	}
	if bits == 0 {
		return nil
	}
	rest[dhcpv4.OptionOptionOverload.Code()] = []byte{bits}
	short := *reply
	short.Options = rest
	data := marshal(&short)
	if len(data) > limit {
		return nil
	}
	for _, f := range fields {
		if len(f.used) > 0 {
			copy(data[f.at:], append(bytes.Clone(f.used), dhcpv4.OptionEnd.Code()))
		}
	}
	return data
}
