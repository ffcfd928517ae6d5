package config

import (
	"encoding/hex"
	"errors"
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
	addr, err := parse4(string(text))
	if err != nil {
		return fmt.Errorf("%q is not an IPv4 address; write it as 192.168.67.1", text)
	}
	a.Addr = addr
	return nil
}

func parse4(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(strings.TrimSpace(s))
	if err == nil && !addr.Is4() {
		err = errors.New("not IPv4")
	}
	return addr, err
}

// Prefix is an IPv4 subnet.
type Prefix struct{ netip.Prefix }

// UnmarshalText reads `192.168.67.0/24`.
func (p *Prefix) UnmarshalText(text []byte) (err error) {
	p.Prefix, err = parsePrefix(text, "a subnet; write it as 192.168.67.0/24", parse4)
	return err
}

// parsePrefix reads a subnet whose address is of the version that parse reads.
func parsePrefix(text []byte, want string, parse func(string) (netip.Addr, error)) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(string(text))
	if err == nil {
		_, err = parse(prefix.Addr().String())
	}
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not %s", text, want)
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has address bits after its mask; did you mean %s?", text, prefix.Masked())
	}
	return prefix, nil
}

// Range is an inclusive range of IPv4 addresses.
type Range struct{ From, To netip.Addr }

// UnmarshalText reads `192.168.67.100-192.168.67.199` or a single address.
func (r *Range) UnmarshalText(text []byte) (err error) {
	*r, err = parseRange(text, "a range of addresses; write it as 192.168.67.100-192.168.67.199", parse4)
	return err
}

// parseRange reads a range of addresses of the version that parse reads.
func parseRange(text []byte, want string, parse func(string) (netip.Addr, error)) (Range, error) {
	from, to, found := strings.Cut(string(text), "-")
	if !found {
		to = from
	}
	first, err1 := parse(from)
	last, err2 := parse(to)
	if err1 != nil || err2 != nil {
		return Range{}, fmt.Errorf("%q is not %s", text, want)
	}
	if last.Less(first) {
		return Range{}, fmt.Errorf("range %q ends before it begins", text)
	}
	return Range{first, last}, nil
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
