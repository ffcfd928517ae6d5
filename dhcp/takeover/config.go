package takeover

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// Config is a configuration that was taken over. It is a [dhcp.Handler].
type Config struct {
	// Networks are the links, each with its subnets.
	Networks []*Network
	// Notes are what was not taken over, in the order of the file.
	Notes []Note
	// BootServer is true when machines that chose from a menu come to port 4011
	// for their boot file, where this must be the Handler too (see
	// [dhcp.Server.ProxyPort]).
	BootServer bool
}

// Network is the subnets of one link, as a [dhcp.Handler].
type Network struct {
	// Name is that of a shared network, "" for a single subnet.
	Name string
	// Pools are its subnets, with the ranges for all clients. They can be
	// changed before the first request.
	Pools []*dhcp.Pool
	// Members are ranges for some clients only. For a new address they are
	// tried in this order, before those of Pools, or where they are for all but
	// some, after those.
	Members []*Members

	shared   dhcp.SharedNetwork
	policies []*dhcp.BootPolicy // one for each of Pools
	// refuse is asked before anything happens; adjust changes the reply.
	refuse func(r *dhcp.Request) bool
	adjust func(pool int, r *dhcp.Request, reply *dhcpv4.DHCPv4) error
	// bootServer answers on port 4011, nil when that is no port of its own.
	bootServer func(r *dhcp.Request) *dhcpv4.DHCPv4
}

var (
	_ dhcp.Handler = (*Config)(nil)
	_ dhcp.Handler = (*Network)(nil)
)

// Validate checks all pools, see [dhcp.Pool.Validate].
func (c *Config) Validate() error {
	for _, n := range c.Networks {
		if err := n.shared.Validate(); err != nil {
			return err
		}
		for _, m := range n.Members {
			if err := m.shared.Validate(); err != nil {
				return err
			}
		}
	}
	return nil
}

// ServeDHCP implements [dhcp.Handler].
func (c *Config) ServeDHCP(ctx context.Context, r *dhcp.Request) (*dhcpv4.DHCPv4, error) {
	handlers := make([]dhcp.Handler, len(c.Networks))
	for i, n := range c.Networks {
		handlers[i] = n
	}
	return dhcp.First(handlers...).ServeDHCP(ctx, r)
}

// bootServerPort is where PXE clients ask boot servers.
const bootServerPort = 4011

type replyKey struct{}

// ServeDHCP implements [dhcp.Handler]. The subnet of the address that a client
// gets decides what it boots.
func (n *Network) ServeDHCP(ctx context.Context, r *dhcp.Request) (*dhcpv4.DHCPv4, error) {
	if n.refuse != nil && n.refuse(r) {
		return nil, nil
	}
	if n.bootServer != nil && r.Local.Port() == bootServerPort {
		return n.bootServer(r), nil
	}
	reply, err := n.serve(ctx, r)
	if reply == nil || err != nil {
		return reply, err
	}
	addr, _ := netip.AddrFromSlice(reply.YourIPAddr.To4())
	if !addr.IsValid() || addr.IsUnspecified() {
		addr, _ = netip.AddrFromSlice(r.ClientIPAddr.To4())
	}
	i := slices.IndexFunc(n.Pools, func(p *dhcp.Pool) bool { return p.Prefix.Contains(addr) })
	if i < 0 {
		return reply, nil
	}
	if err := n.adjust(i, r, reply); err != nil {
		return nil, err
	}
	return n.policies[i].ServeDHCP(context.WithValue(ctx, replyKey{}, reply), r)
}

// finish puts the parts together when all fields are set.
func (n *Network) finish(adjust func(pool int, r *dhcp.Request, reply *dhcpv4.DHCPv4) error, boot func(pool int) func(context.Context, *dhcp.Request) (dhcp.Boot, error), o *Options) {
	n.shared.Pools, n.adjust = n.Pools, adjust
	for _, m := range n.Members {
		m.shared.Pools = m.Pools
	}
	for i := range n.Pools {
		n.policies = append(n.policies, &dhcp.BootPolicy{
			Logger: o.Logger, Boot: boot(i),
			Next: dhcp.HandlerFunc(func(ctx context.Context, _ *dhcp.Request) (*dhcpv4.DHCPv4, error) {
				return ctx.Value(replyKey{}).(*dhcpv4.DHCPv4), nil
			}),
		})
	}
}

// Check is [dhcp.BootPolicy.Check] for every subnet.
func (c *Config) Check(ctx context.Context, port4011 bool) error {
	if c.BootServer && !port4011 {
		return fmt.Errorf("dhcp: a menu (pxe-service) sends machines to port 4011, which is not served: serve it (Server.ProxyPort): %w", fs.ErrInvalid)
	}
	for _, n := range c.Networks {
		for _, p := range n.policies {
			if err := p.Check(ctx, port4011); err != nil {
				return err
			}
		}
	}
	return nil
}
