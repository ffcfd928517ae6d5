package dhcp

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Match describes requests, as data. A field that is not set matches all;
// those that are must all match, each by one of its values.
type Match struct {
	// Archs are architectures (option 93), of which the client has one. 7
	// and 9 count as the same: by an erratum, x86-64 UEFI firmware sends
	// either; and so do their forms for HTTP, 16 and 17.
	Archs []iana.Arch
	// Platforms are platforms, of which the client is one.
	Platforms []Platform
	// HardwareAddrs are hardware addresses or beginnings of such (three bytes
	// for a maker).
	HardwareAddrs []net.HardwareAddr
	// UserClasses are user classes (option 77), bare or in the list of RFC
	// 3004.
	UserClasses []string
	// VendorClasses are beginnings of vendor classes (option 60).
	VendorClasses []string
	// UUIDs are machines' UUIDs (option 97) as [Request.UUID] writes them.
	UUIDs []string
	// Relays are subnets, of which one has the relay's address (giaddr).
	Relays []netip.Prefix
	// CircuitIDs and RemoteIDs are what relays or switches say about the
	// client's port (option 82, sub-options 1 and 2), compared byte by byte.
	CircuitIDs, RemoteIDs []string
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
	if len(m.HardwareAddrs) > 0 &&
		!slices.ContainsFunc(m.HardwareAddrs, func(hw net.HardwareAddr) bool { return bytes.HasPrefix(r.ClientHWAddr, hw) }) {
		return false
	}
	if len(m.UserClasses) > 0 {
		data := r.Options.Get(dhcpv4.OptionUserClassInformation)
		if !slices.ContainsFunc(m.UserClasses, func(c string) bool { return hasUserClass(data, c) }) {
			return false
		}
	}
	if len(m.VendorClasses) > 0 {
		class := string(r.Options.Get(dhcpv4.OptionClassIdentifier))
		if !slices.ContainsFunc(m.VendorClasses, func(c string) bool { return strings.HasPrefix(class, c) }) {
			return false
		}
	}
	if len(m.UUIDs) > 0 {
		id := r.UUID()
		if id == "" || !slices.ContainsFunc(m.UUIDs, func(u string) bool { return strings.EqualFold(u, id) }) {
			return false
		}
	}
	if len(m.Relays) > 0 {
		relay := toAddr(r.GatewayIPAddr)
		if !slices.ContainsFunc(m.Relays, func(p netip.Prefix) bool { return p.Contains(relay) }) {
			return false
		}
	}
	return matchesRelayInfo(r, m.CircuitIDs, relayCircuitID) && matchesRelayInfo(r, m.RemoteIDs, relayRemoteID)
}

func matchesRelayInfo(r *Request, values []string, code uint8) bool {
	return len(values) == 0 || slices.Contains(values, string(r.RelayInfo(code)))
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
	add("user-class", len(m.UserClasses), func(i int) string { return m.UserClasses[i] })
	add("vendor-class", len(m.VendorClasses), func(i int) string { return m.VendorClasses[i] })
	add("uuid", len(m.UUIDs), func(i int) string { return m.UUIDs[i] })
	add("relay", len(m.Relays), func(i int) string { return m.Relays[i].String() })
	add("circuit-id", len(m.CircuitIDs), func(i int) string { return printable(m.CircuitIDs[i]) })
	add("remote-id", len(m.RemoteIDs), func(i int) string { return printable(m.RemoteIDs[i]) })
	if parts == nil {
		return "everything"
	}
	return strings.Join(parts, " ")
}

func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "0x" + hex.EncodeToString([]byte(s))
	}
	return s
}

// validate reports values that no request has.
func (m *Match) validate() error {
	for _, u := range m.UUIDs {
		if _, ok := parseUUID(u); !ok {
			return fmt.Errorf("%q is no UUID, which has the form 00112233-4455-6677-8899-aabbccddeeff: %w", u, fs.ErrInvalid)
		}
	}
	for _, hw := range m.HardwareAddrs {
		if len(hw) > 16 {
			return fmt.Errorf("hardware address %v is longer than 16 bytes: %w", hw, fs.ErrInvalid)
		}
	}
	return nil
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

// Class gives options to the clients that match, see [Pool.Classes].
type Class struct {
	// Name is for logs.
	Name string
	Match
	// Options are sent to the members, by number.
	Options dhcpv4.Options
}
