package config

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// HardwareAddr is a MAC address in any of the usual spellings.
type HardwareAddr struct{ net.HardwareAddr }

// UnmarshalText reads `52:54:00:12:34:56` and its forms with dashes or dots.
func (a *HardwareAddr) UnmarshalText(text []byte) error {
	mac, err := net.ParseMAC(string(text))
	if err != nil || len(mac) != 6 {
		return fmt.Errorf("%q is not a hardware address; write it as 52:54:00:12:34:56", text)
	}
	a.HardwareAddr = mac
	return nil
}

// MACPrefix is the beginning of hardware addresses, such as a vendor's.
type MACPrefix struct{ net.HardwareAddr }

// UnmarshalText reads `52:54:00`.
func (a *MACPrefix) UnmarshalText(text []byte) error {
	digits := strings.ReplaceAll(strings.ReplaceAll(string(text), ":", ""), "-", "")
	mac, err := hex.DecodeString(digits)
	if err != nil || len(mac) == 0 || len(mac) > 6 {
		return fmt.Errorf("%q is not the beginning of a hardware address; write it as 52:54:00", text)
	}
	a.HardwareAddr = mac
	return nil
}

// Addr is an IPv4 address.
type Addr struct{ netip.Addr }

// UnmarshalText reads `192.168.67.1`.
func (a *Addr) UnmarshalText(text []byte) error {
	addr, err := netip.ParseAddr(string(text))
	if err != nil || !addr.Is4() {
		return fmt.Errorf("%q is not an IPv4 address; write it as 192.168.67.1", text)
	}
	a.Addr = addr
	return nil
}

// Prefix is an IPv4 subnet.
type Prefix struct{ netip.Prefix }

// UnmarshalText reads `192.168.67.0/24`.
func (p *Prefix) UnmarshalText(text []byte) error {
	prefix, err := netip.ParsePrefix(string(text))
	if err != nil || !prefix.Addr().Is4() {
		return fmt.Errorf("%q is not a subnet; write it as 192.168.67.0/24", text)
	}
	if prefix != prefix.Masked() {
		return fmt.Errorf("%q has address bits after its mask; did you mean %s?", text, prefix.Masked())
	}
	p.Prefix = prefix
	return nil
}

// Range is an inclusive range of IPv4 addresses.
type Range struct{ From, To netip.Addr }

// UnmarshalText reads `192.168.67.100-192.168.67.199` or a single address.
func (r *Range) UnmarshalText(text []byte) error {
	from, to, found := strings.Cut(string(text), "-")
	if !found {
		to = from
	}
	var err1, err2 error
	r.From, err1 = netip.ParseAddr(strings.TrimSpace(from))
	r.To, err2 = netip.ParseAddr(strings.TrimSpace(to))
	if err1 != nil || err2 != nil || !r.From.Is4() || !r.To.Is4() {
		return fmt.Errorf("%q is not a range of addresses; write it as 192.168.67.100-192.168.67.199", text)
	}
	if r.To.Less(r.From) {
		return fmt.Errorf("range %q ends before it begins", text)
	}
	return nil
}

// Duration is a time span such as `12h` or `90s`.
type Duration struct{ time.Duration }

// UnmarshalText reads what [time.ParseDuration] reads, above zero.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v <= 0 {
		return fmt.Errorf("%q is not a time span; write it as 12h or 90s", text)
	}
	d.Duration = v
	return nil
}

// Size is a number of bytes.
type Size struct{ Bytes int64 }

// UnmarshalText reads `512MiB`, `20GiB` or `2TiB`.
func (s *Size) UnmarshalText(text []byte) error {
	number, shift := string(text), -1
	for unit, bits := range map[string]int{"MiB": 20, "GiB": 30, "TiB": 40} {
		if n, ok := strings.CutSuffix(number, unit); ok {
			number, shift = n, bits
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 32)
	if err != nil || shift < 0 || n <= 0 || n > 1<<20 {
		return fmt.Errorf("%q is not a size; write it as 512MiB, 20GiB or 2TiB", text)
	}
	s.Bytes = n << shift
	return nil
}
