package dhcp

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"slices"

	"github.com/insomniacslk/dhcp/iana"
)

// BootRule says what to tell the clients that it matches. A field that is not
// set matches all; those that are must all match.
type BootRule struct {
	// Archs are architectures, of which the client (option 93) has one. 7
	// and 9 count as the same: by an erratum, x86-64 UEFI firmware sends
	// either.
	Archs []iana.Arch
	// Platforms are platforms, of which the client is one.
	Platforms []Platform
	// HardwareAddrs are hardware addresses or beginnings of such (three bytes
	// for a maker), of which the client has one.
	HardwareAddrs []net.HardwareAddr

	// Boot is what the client is told.
	Boot Boot
}

// Matches reports whether the rule is for the client.
func (b *BootRule) Matches(r *Request) bool {
	if len(b.Archs) > 0 {
		arch, ok := r.Arch()
		if !ok || !slices.ContainsFunc(b.Archs, func(a iana.Arch) bool { return sameArch(a) == sameArch(arch) }) {
			return false
		}
	}
	if len(b.Platforms) > 0 && !slices.Contains(b.Platforms, r.Platform()) {
		return false
	}
	return len(b.HardwareAddrs) == 0 ||
		slices.ContainsFunc(b.HardwareAddrs, func(hw net.HardwareAddr) bool { return bytes.HasPrefix(r.ClientHWAddr, hw) })
}

func sameArch(a iana.Arch) iana.Arch {
	if a == iana.EFI_BC {
		return iana.EFI_X86_64
	}
	return a
}

// BootRules are rules of which the first that matches decides. iPXE asks for
// a boot file once more after it was loaded, with the architecture that its
// loader had: put the rules for [PlatformIPXE] before those that load it.
type BootRules []BootRule

// Boot returns the Boot of the first rule that matches, or an error that is
// [fs.ErrNotExist]. It is made for [BootPolicy.Boot].
func (rules BootRules) Boot(_ context.Context, r *Request) (Boot, error) {
	for i := range rules {
		if rules[i].Matches(r) {
			return rules[i].Boot, nil
		}
	}
	return Boot{}, fmt.Errorf("dhcp: no boot rule matches %v: %w", r.ClientHWAddr, fs.ErrNotExist)
}
