package dhcp6

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// Check plays the requests of every firmware that this package knows against
// the policy, and returns an error, [fs.ErrInvalid], that names each that would
// not boot by what it is told: what is no URL, or not one that it can load,
// and iPXE that is told to load what its loader was told to load. It is for
// when a policy is loaded. Firmware for which the policy has nothing is no
// error. Boot is asked, for a machine with a made-up hardware address; Next is
// not.
func (p *BootPolicy) Check(ctx context.Context) error {
	if p.Boot == nil {
		return fmt.Errorf("dhcp6: BootPolicy needs Boot: %w", fs.ErrInvalid)
	}
	var problems []error
	loads := make(map[string]bool) // by UEFI and HTTP Boot
	for _, c := range checkedFirmwares() {
		r := &Request{
			Message: c.f.message(dhcpv6.MessageTypeSolicit, net.HardwareAddr{2, 0, 0, 0, 0, 1}, [16]byte{1}),
			trail:   new(trail),
		}
		boot, err := p.Boot(ctx, r)
		if errors.Is(err, fs.ErrNotExist) || err == nil && boot.URL == "" {
			continue
		}
		platform := r.Platform()
		if err == nil {
			err = boot.check(platform)
		}
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("%s: %q: %w", c.name, boot.URL, err))
		case platform != dhcp.PlatformIPXE:
			loads[boot.URL] = true
		case loads[boot.URL]:
			problems = append(problems, fmt.Errorf("%s: it would load %q once more, as its loader did: put a rule for platform ipxe before", c.name, boot.URL))
		}
	}
	if problems == nil {
		return nil
	}
	return fmt.Errorf("dhcp6: %w: %w", errors.Join(problems...), fs.ErrInvalid)
}
