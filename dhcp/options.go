package dhcp

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
)

// Forms of option values.
const (
	formText   = iota
	formAddr   // one address
	formAddrs  // any number, with commas
	formPairs  // addresses in pairs: static routes
	formU8     // whole numbers
	formU16    //
	formU32    //
	formI32    // with a sign
	formFlag   // true, false, on, off, 1, 0
	formDomain // names, compressed by RFC 1035
	formBytes  // 0x..., aa:bb or text
)

type optionForm struct {
	code uint8
	form int
}

// optionForms are the options by the names that ISC's dhcpd and Kea have for
// them, which dnsmasq mostly shares; some by more than one.
var optionForms = map[string]optionForm{
	"subnet-mask": {1, formAddr}, "netmask": {1, formAddr}, "time-offset": {2, formI32},
	"routers": {3, formAddrs}, "router": {3, formAddrs}, "time-servers": {4, formAddrs}, "time-server": {4, formAddrs},
	"ien116-name-servers": {5, formAddrs}, "domain-name-servers": {6, formAddrs}, "dns-server": {6, formAddrs},
	"log-servers": {7, formAddrs}, "log-server": {7, formAddrs}, "cookie-servers": {8, formAddrs}, "lpr-servers": {9, formAddrs}, "lpr-server": {9, formAddrs},
	"impress-servers": {10, formAddrs}, "resource-location-servers": {11, formAddrs}, "host-name": {12, formText}, "hostname": {12, formText},
	"boot-size": {13, formU16}, "boot-file-size": {13, formU16}, "merit-dump": {14, formText}, "domain-name": {15, formText}, "swap-server": {16, formAddr},
	"root-path": {17, formText}, "extensions-path": {18, formText}, "ip-forwarding": {19, formFlag}, "ip-forward-enable": {19, formFlag},
	"non-local-source-routing": {20, formFlag}, "policy-filter": {21, formPairs}, "max-dgram-reassembly": {22, formU16}, "default-ip-ttl": {23, formU8},
	"interface-mtu": {26, formU16}, "mtu": {26, formU16}, "all-subnets-local": {27, formFlag}, "broadcast-address": {28, formAddr}, "broadcast": {28, formAddr},
	"perform-mask-discovery": {29, formFlag}, "mask-supplier": {30, formFlag}, "router-discovery": {31, formFlag},
	"router-solicitation-address": {32, formAddr}, "static-routes": {33, formPairs}, "static-route": {33, formPairs},
	"nis-domain": {40, formText}, "nis-servers": {41, formAddrs}, "nis-server": {41, formAddrs}, "ntp-servers": {42, formAddrs}, "ntp-server": {42, formAddrs},
	"vendor-encapsulated-options": {43, formBytes}, "vendor-encap": {43, formBytes}, "netbios-name-servers": {44, formAddrs}, "netbios-ns": {44, formAddrs},
	"netbios-dd-server": {45, formAddrs}, "netbios-dd": {45, formAddrs}, "netbios-node-type": {46, formU8}, "netbios-nodetype": {46, formU8}, "netbios-scope": {47, formText},
	"font-servers": {48, formAddrs}, "x-windows-fs": {48, formAddrs}, "x-display-manager": {49, formAddrs}, "x-windows-dm": {49, formAddrs},
	"dhcp-lease-time": {51, formU32}, "dhcp-renewal-time": {58, formU32}, "T1": {58, formU32}, "dhcp-rebinding-time": {59, formU32}, "T2": {59, formU32},
	"vendor-class-identifier": {60, formText}, "vendor-class": {60, formText}, "dhcp-client-identifier": {61, formBytes}, "client-id": {61, formBytes},
	"nisplus-domain": {64, formText}, "nis+-domain": {64, formText}, "nisplus-servers": {65, formAddrs}, "nis+-server": {65, formAddrs},
	"tftp-server-name": {66, formText}, "tftp-server": {66, formText}, "bootfile-name": {67, formText}, "boot-file-name": {67, formText},
	"smtp-server": {69, formAddrs}, "pop-server": {70, formAddrs}, "nntp-server": {71, formAddrs}, "www-server": {72, formAddrs}, "irc-server": {74, formAddrs},
	"user-class": {77, formText}, "client-arch": {93, formU16}, "pxe-system-type": {93, formU16}, "client-system": {93, formU16},
	"pxe-interface-id": {94, formBytes}, "pxe-client-id": {97, formBytes}, "uuid-guid": {97, formBytes},
	"tcode": {101, formText}, "posix-timezone": {100, formText}, "pcode": {100, formText}, "tzdb-timezone": {101, formText},
	"domain-search": {119, formDomain}, "sip-server": {120, formBytes}, "classless-static-route": {121, formBytes},
	"vendor-id-encap": {125, formBytes}, "tftp-server-address": {150, formAddrs},
	"loader-configfile": {209, formText}, "pxelinux.configfile": {209, formText}, "loader-pathprefix": {210, formText}, "pxelinux.pathprefix": {210, formText},
	"loader-reboottime": {211, formU32}, "pxelinux.reboottime": {211, formU32}, "pxelinux.magic": {208, formBytes},
}

// OptionCode returns the number of an option by its name in ISC's dhcpd, Kea
// or dnsmasq ("routers", "ntp-server"), or of one that is given as a number.
func OptionCode(name string) (code uint8, ok bool) {
	if f, ok := optionForms[name]; ok {
		return f.code, true
	}
	n, err := strconv.ParseUint(name, 10, 8)
	return uint8(n), err == nil && n > 0 && n < 255
}

// ParseOption makes the value of an option from text. name is as for
// [OptionCode]. The form is that of the option: addresses and numbers with
// commas between them, domain names with commas or blanks, true or false, or
// text as it is. An option that is not known by name, such as "224", is text,
// or bytes in the forms 0x0a1b and 0a:1b. Errors are [fs.ErrInvalid].
func ParseOption(name, value string) (code uint8, data []byte, err error) {
	code, ok := OptionCode(name)
	if !ok {
		return 0, nil, fmt.Errorf("dhcp: no option %q: use its number: %w", name, fs.ErrInvalid)
	}
	form := formBytes
	if f, ok := optionForms[name]; ok {
		form = f.form
	} else {
		for _, f := range optionForms {
			if f.code == code {
				form = f.form
			}
		}
	}
	data, err = parseForm(form, value)
	if err == nil && len(data) > 1024 {
		err = fmt.Errorf("longer than 1024 bytes")
	}
	if err != nil {
		return 0, nil, fmt.Errorf("dhcp: option %s: %w: %w", name, err, fs.ErrInvalid)
	}
	return code, data, nil
}

func parseForm(form int, value string) (data []byte, err error) {
	switch form {
	case formText:
		if value == "" {
			return nil, fmt.Errorf("empty")
		}
		return []byte(value), nil
	case formBytes:
		return parseBytes(value), nil
	case formFlag:
		switch strings.ToLower(value) {
		case "true", "on", "1":
			return []byte{1}, nil
		case "false", "off", "0":
			return []byte{0}, nil
		}
		return nil, fmt.Errorf("%q is neither true nor false", value)
	case formDomain:
		for _, name := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '"' }) {
			for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
				if label == "" || len(label) > 63 {
					return nil, fmt.Errorf("%q is no domain name", name)
				}
				data = append(append(data, byte(len(label))), label...)
			}
			data = append(data, 0)
		}
		if data == nil {
			return nil, fmt.Errorf("no domain name")
		}
		return data, nil
	}
	items := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
	if len(items) == 0 || form == formAddr && len(items) > 1 || form == formPairs && len(items)%2 != 0 {
		return nil, fmt.Errorf("%q has not the right number of values", value)
	}
	for _, item := range items {
		switch form {
		case formAddr, formAddrs, formPairs:
			a, err := netip.ParseAddr(item)
			if err != nil || !a.Is4() {
				return nil, fmt.Errorf("%q is no IPv4 address", item)
			}
			data = append(data, a.AsSlice()...)
		case formU8, formU16, formU32:
			bits := 8 << (form - formU8)
			n, err := strconv.ParseUint(item, 0, bits)
			if err != nil {
				return nil, fmt.Errorf("%q is no number of %d bits", item, bits)
			}
			switch form {
			case formU8:
				data = append(data, byte(n))
			case formU16:
				data = binary.BigEndian.AppendUint16(data, uint16(n))
			default:
				data = binary.BigEndian.AppendUint32(data, uint32(n))
			}
		case formI32:
			n, err := strconv.ParseInt(item, 0, 32)
			if err != nil {
				return nil, fmt.Errorf("%q is no number", item)
			}
			data = binary.BigEndian.AppendUint32(data, uint32(n))
		}
	}
	return data, nil
}

// parseBytes takes 0x0a1b, 0a:1b and a:1b for bytes, and all else for text.
func parseBytes(value string) []byte {
	if rest, ok := strings.CutPrefix(value, "0x"); ok {
		if b, err := hex.DecodeString(rest); err == nil {
			return b
		}
	}
	if strings.Contains(value, ":") {
		var b []byte
		for part := range strings.SplitSeq(value, ":") {
			n, err := strconv.ParseUint(part, 16, 8)
			if err != nil || len(part) > 2 {
				return []byte(value)
			}
			b = append(b, byte(n))
		}
		return b
	}
	return []byte(value)
}
