package dhcp6

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/iana"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// Match describes requests, as data. A field that is not set matches all;
// those that are must all match, each by one of its values.
type Match struct {
	// Archs are architectures (option 61). 7 and 9 count as the same, and so
	// do their forms for HTTP, 16 and 17, as in [dhcp.Match].
	Archs []iana.Arch
	// Platforms are platforms, of which the client is one.
	Platforms []dhcp.Platform
	// HardwareAddrs are hardware addresses or beginnings of such.
	HardwareAddrs []net.HardwareAddr
	// DUIDs are clients' identifiers, as on the wire.
	DUIDs [][]byte
	// UUIDs are machines' UUIDs as [Request.UUID] writes them.
	UUIDs []string
	// UserClasses are user classes (option 15).
	UserClasses []string
	// VendorClasses are beginnings of vendor classes (option 16).
	VendorClasses []string
	// Links are prefixes, of which one has the address that tells the
	// client's link (see [Request.LinkAddr]).
	Links []netip.Prefix
	// InterfaceIDs are the relay's names of the client's port (option 18).
	InterfaceIDs []string
}

// Matches reports whether all fields match the request. It may be called
// concurrently.
func (m *Match) Matches(r *Request) bool {
	if len(m.Archs) > 0 {
		arch, ok := r.Arch()
		if !ok || !slices.ContainsFunc(m.Archs, func(a iana.Arch) bool { return sameArch(a) == sameArch(arch) }) {
			return false
		}
	}
	if len(m.Platforms) > 0 && !slices.Contains(m.Platforms, r.Platform()) {
		return false
	}
	if len(m.HardwareAddrs) > 0 {
		own := r.HardwareAddr()
		if own == nil || !slices.ContainsFunc(m.HardwareAddrs, func(hw net.HardwareAddr) bool { return bytes.HasPrefix(own, hw) }) {
			return false
		}
	}
	if len(m.DUIDs) > 0 {
		own := r.DUID()
		if own == nil || !slices.ContainsFunc(m.DUIDs, func(id []byte) bool { return bytes.Equal(own, id) }) {
			return false
		}
	}
	if len(m.UUIDs) > 0 {
		own := r.UUID()
		if own == "" || !slices.ContainsFunc(m.UUIDs, func(u string) bool { return strings.EqualFold(u, own) }) {
			return false
		}
	}
	if len(m.UserClasses) > 0 && !slices.ContainsFunc(r.UserClasses(), func(c string) bool { return slices.Contains(m.UserClasses, c) }) {
		return false
	}
	if len(m.VendorClasses) > 0 && !slices.ContainsFunc(r.VendorClasses(), func(c string) bool {
		return slices.ContainsFunc(m.VendorClasses, func(v string) bool { return strings.HasPrefix(c, v) })
	}) {
		return false
	}
	if len(m.Links) > 0 && !slices.ContainsFunc(m.Links, r.onLink) {
		return false
	}
	return len(m.InterfaceIDs) == 0 || slices.Contains(m.InterfaceIDs, string(r.InterfaceID()))
}

// String describes the match in the form field=values, for logs and
// [Explain]; "everything" when no field is set.
func (m *Match) String() string {
	var parts []string
	add := func(name string, n int, value func(i int) string) {
		if n == 0 {
			return
		}
		values := make([]string, n)
		for i := range values {
			values[i] = value(i)
		}
		parts = append(parts, name+"="+strings.Join(values, ","))
	}
	add("arch", len(m.Archs), func(i int) string { return fmt.Sprint(uint16(m.Archs[i])) })
	add("platform", len(m.Platforms), func(i int) string { return string(m.Platforms[i]) })
	add("mac", len(m.HardwareAddrs), func(i int) string { return m.HardwareAddrs[i].String() })
	add("duid", len(m.DUIDs), func(i int) string { return hex.EncodeToString(m.DUIDs[i]) })
	add("uuid", len(m.UUIDs), func(i int) string { return m.UUIDs[i] })
	add("user-class", len(m.UserClasses), func(i int) string { return m.UserClasses[i] })
	add("vendor-class", len(m.VendorClasses), func(i int) string { return m.VendorClasses[i] })
	add("link", len(m.Links), func(i int) string { return m.Links[i].String() })
	add("interface-id", len(m.InterfaceIDs), func(i int) string { return fmt.Sprintf("%q", m.InterfaceIDs[i]) })
	if parts == nil {
		return "everything"
	}
	return strings.Join(parts, " ")
}

func sameArch(a iana.Arch) iana.Arch {
	switch a {
	case iana.EFI_BC:
		return iana.EFI_X86_64
	case iana.EFI_BC_HTTP:
		return iana.EFI_X86_64_HTTP
	}
	return a
}
