package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Addr6 is an IPv6 address.
type Addr6 struct{ netip.Addr }

// UnmarshalText reads `fd00:67::1`.
func (a *Addr6) UnmarshalText(text []byte) error {
	addr, err := parse6(string(text))
	if err != nil {
		return fmt.Errorf("%q is not an IPv6 address; write it as fd00:67::1", text)
	}
	a.Addr = addr
	return nil
}

func parse6(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(strings.TrimSpace(s))
	if err == nil && (!addr.Is6() || addr.Is4In6() || addr.Zone() != "") {
		err = errors.New("not IPv6")
	}
	return addr, err
}

// Prefix6 is an IPv6 subnet.
type Prefix6 struct{ netip.Prefix }

// UnmarshalText reads `fd00:67::/64`.
func (p *Prefix6) UnmarshalText(text []byte) (err error) {
	p.Prefix, err = parsePrefix(text, "an IPv6 subnet; write it as fd00:67::/64", parse6)
	return err
}

// Range6 is an inclusive range of IPv6 addresses.
type Range6 Range

// UnmarshalText reads `fd00:67::1000-fd00:67::ffff` or a single address.
func (r *Range6) UnmarshalText(text []byte) error {
	v, err := parseRange(text, "a range of IPv6 addresses; write it as fd00:67::1000-fd00:67::ffff", parse6)
	*r = Range6(v)
	return err
}
