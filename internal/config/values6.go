package config

import (
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
		err = fmt.Errorf("not IPv6")
	}
	return addr, err
}

// Prefix6 is an IPv6 subnet.
type Prefix6 struct{ netip.Prefix }

// UnmarshalText reads `fd00:67::/64`.
func (p *Prefix6) UnmarshalText(text []byte) error {
	prefix, err := netip.ParsePrefix(string(text))
	if err != nil || !prefix.Addr().Is6() || prefix.Addr().Is4In6() {
		return fmt.Errorf("%q is not an IPv6 subnet; write it as fd00:67::/64", text)
	}
	if prefix != prefix.Masked() {
		return fmt.Errorf("%q has address bits after its mask; did you mean %s?", text, prefix.Masked())
	}
	p.Prefix = prefix
	return nil
}

// Range6 is an inclusive range of IPv6 addresses.
type Range6 struct{ From, To netip.Addr }

// UnmarshalText reads `fd00:67::1000-fd00:67::ffff` or a single address.
func (r *Range6) UnmarshalText(text []byte) error {
	from, to, found := strings.Cut(string(text), "-")
	if !found {
		to = from
	}
	var err1, err2 error
	r.From, err1 = parse6(from)
	r.To, err2 = parse6(to)
	if err1 != nil || err2 != nil {
		return fmt.Errorf("%q is not a range of IPv6 addresses; write it as fd00:67::1000-fd00:67::ffff", text)
	}
	if r.To.Less(r.From) {
		return fmt.Errorf("range %q ends before it begins", text)
	}
	return nil
}
