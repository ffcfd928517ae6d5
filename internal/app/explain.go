package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"strconv"

	"github.com/insomniacslk/dhcp/iana"

	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// Explain says what a machine boots and why. The machine is named, or described
// by what it would show of itself: machine, mac, uuid, ip, hostname, arch,
// platform, loader. What a lease says of the mac's machine is not looked up.
func (a *App) Explain(ctx context.Context, q url.Values) ([]pxecfg.Step, error) {
	c := pxecfg.Client{Hostname: q.Get("hostname"), UUID: q.Get("uuid"), Platform: q.Get("platform"), Loader: pxecfg.Loader(q.Get("loader"))}
	var errs [3]error
	if s := q.Get("mac"); s != "" {
		c.MAC, errs[0] = net.ParseMAC(s)
	}
	if s := q.Get("ip"); s != "" {
		c.IP, errs[1] = netip.ParseAddr(s)
	}
	if s := q.Get("arch"); s != "" {
		n, err := strconv.ParseUint(s, 0, 16)
		c.Arch, c.ArchKnown, errs[2] = iana.Arch(n), true, err
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	if name := q.Get("machine"); name != "" {
		found := false
		for i := range a.cfg.Machines {
			if m := &a.cfg.Machines[i]; m.Name == name {
				c.MAC, c.UUID, c.IP, c.Hostname, found = m.MAC.HardwareAddr, m.UUID, m.Address.Addr, name, true
			}
		}
		if !found {
			return nil, fmt.Errorf("no machine is named %q; describe it by --mac, --uuid or --ip: %w", name, fs.ErrNotExist)
		}
	}
	// All that is known of it is told with each name, as where it has a lease.
	src := pxecfg.SourceFunc(func(ctx context.Context, asked pxecfg.Client) (*pxecfg.Config, error) {
		known := c
		known.Loader = asked.Loader
		return a.bootConfig(ctx, known)
	})
	return pxecfg.Explain(ctx, src, c), nil
}
