package dhcp

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func (p *Pool) discover(ctx context.Context, c client) (*dhcpv4.DHCPv4, error) {
	addr, err := p.choose(ctx, c)
	if err != nil || !addr.IsValid() {
		return nil, err
	}
	if p.RapidCommit && c.Options.Has(dhcpv4.OptionRapidCommit) {
		if !c.dry() {
			err := p.commit(ctx, c, addr, p.expires(c))
			if errors.Is(err, fs.ErrExist) || errors.Is(err, errLate) { // went to somebody else meanwhile: the client tries again
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
		}
		reply := p.reply(c, dhcpv4.MessageTypeAck)
		setOption(reply, dhcpv4.OptionRapidCommit, nil)
		p.setLease(reply, c, addr)
		return reply, nil
	}
	reply := p.reply(c, dhcpv4.MessageTypeOffer)
	p.setLease(reply, c, addr)
	return reply, nil
}

func (p *Pool) request(ctx context.Context, c client, onLink bool) (*dhcpv4.DHCPv4, error) {
	if c.serverSet && c.server != c.self {
		// The client chose another server's offer.
		if !c.dry() && p.offers.drop(c.owner) {
			p.search.freed()
		}
		c.notef("the client chose the server %v, this one is %v", c.server, c.self)
		if onLink && !c.dry() && c.server.IsValid() && !slices.Contains(p.Peers, c.server) && p.rogues.First(c.server.String()) {
			p.logger().Warn("dhcp: another DHCP server gives addresses on this network: stop it, or name it in Peers",
				"server", c.server, "subnet", p.Prefix, "mac", c.machine(), "addr", c.requested)
		}
		return nil, nil
	}
	addr, renewing := c.requested, false
	if !addr.IsValid() {
		// RENEWING and REBINDING put it in ciaddr (RFC 2131 section 4.3.2).
		addr, renewing = c.ciaddr, true
	}
	if !addr.IsValid() {
		return nil, ErrDrop
	}
	granted := false
	err := p.keepsSurely(ctx, c, addr)
	if err == nil {
		granted, err = p.grant(ctx, c, addr, renewing)
	}
	if err == nil && !granted {
		var again bool
		if again, err = p.catchUp(ctx, c); again && err == nil {
			granted, err = p.grant(ctx, c, addr, renewing)
		}
	}
	switch {
	case errors.Is(err, errLate) && c.serverSet:
		return nil, ErrDrop // it asked a while ago, and is well
	case err != nil && !errors.Is(err, errLate):
		return nil, err
	case !granted:
		return p.refuse(c, addr)
	}
	reply := p.reply(c, dhcpv4.MessageTypeAck)
	p.setLease(reply, c, addr)
	reply.ClientIPAddr = c.ClientIPAddr
	return reply, nil
}

// grant makes the lease that a REQUEST asks for, if the client may have it.
func (p *Pool) grant(ctx context.Context, c client, addr netip.Addr, renewing bool) (bool, error) {
	ok, err := p.mayHave(ctx, c, addr, renewing)
	if err != nil || !ok || c.dry() {
		return ok, err
	}
	err = p.commit(ctx, c, addr, p.expires(c))
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// refuse is a NAK, or silence where another server may know better.
func (p *Pool) refuse(c client, addr netip.Addr) (*dhcpv4.DHCPv4, error) {
	c.notef("the machine cannot have %v", addr)
	if p.NotAuthoritative && !c.serverSet {
		return nil, nil
	}
	if !c.dry() {
		p.offers.drop(c.owner)
	}
	reply := NewReply(c.Request, dhcpv4.MessageTypeNak)
	setOption(reply, dhcpv4.OptionServerIdentifier, c.self.AsSlice())
	setOption(reply, dhcpv4.OptionMessage, []byte("address not available"))
	return reply, nil
}

// commit makes the lease, and ends others that the machine has here.
func (p *Pool) commit(ctx context.Context, c client, addr netip.Addr, expires time.Time) error {
	old, err := p.store.LeasesByOwner(ctx, c.owner)
	if err != nil {
		return err
	}
	l := Lease{
		Addr: addr, ID: c.id, HardwareAddr: c.hw, UUID: c.UUID(), Archs: c.ClientArch(), Expires: expires,
		ClientID: c.Options.Get(dhcpv4.OptionClientIdentifier),
		Hostname: c.res.Hostname,
	}
	// A client chooses these: nothing long, and no name that is none.
	l.Archs = l.Archs[:min(len(l.Archs), 16)]
	l.ClientID = l.ClientID[:min(len(l.ClientID), 255)]
	if name := c.HostName(); validHostname(name) {
		l.ClientHostname = name
	}
	slices.SortFunc(old, func(a, b Lease) int { return b.Expires.Compare(a.Expires) })
	for _, o := range old {
		l.UUID = cmp.Or(l.UUID, o.UUID)
		if l.Archs == nil {
			l.Archs = o.Archs
		}
	}
	if err := p.store.Commit(ctx, l); err != nil {
		return err
	}
	p.offers.drop(c.owner)
	if err := p.keeps(ctx, c, addr); err != nil {
		if errors.Is(err, errLate) {
			if err := p.store.Release(ctx, addr, c.owner); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return err
	}
	for _, o := range old {
		if o.Addr != addr && p.Prefix.Contains(o.Addr) && o.Active(time.Now()) {
			if err := p.store.Release(ctx, o.Addr, c.owner); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			p.search.freed()
		}
	}
	return nil
}

func (p *Pool) inform(c client) *dhcpv4.DHCPv4 {
	// RFC 2131 section 4.3.5: parameters only, neither address nor lease time.
	reply := p.reply(c, dhcpv4.MessageTypeAck)
	reply.ClientIPAddr = c.ClientIPAddr
	return reply
}

func (p *Pool) release(ctx context.Context, c client) (*dhcpv4.DHCPv4, error) {
	if c.serverSet && c.server != c.self && c.server != p.ServerID || c.dry() {
		return nil, nil
	}
	switch err := p.store.Release(ctx, c.ciaddr, c.owner); {
	case err == nil:
		p.search.freed()
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return nil, ErrDrop
}

// maxDeclines is how many addresses one machine can take out of use within
// DeclineTime: where everything answers its ARP it would take them all.
const maxDeclines = 8

// decline takes an address out of use that the client, by ARP, found to be
// somebody else's. Only the machine that was given it is believed.
func (p *Pool) decline(ctx context.Context, c client) (*dhcpv4.DHCPv4, error) {
	if c.serverSet && c.server != c.self || !p.Prefix.Contains(c.requested) || c.dry() {
		return nil, nil
	}
	l, err := p.store.LeaseByAddr(ctx, c.requested)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if !(err == nil && l.heldBy(c.owner)) && p.offers.addr(c.owner) != c.requested {
		return nil, ErrDrop
	}
	p.offers.drop(c.owner)
	_, reserved := p.reserved[c.requested]
	if ok, missed := p.declined.Due(time.Second); ok {
		p.logger().Warn("dhcp: a client found its address in use by a machine that did not get it here: find that one (arping) and move it, or change the range or the reservation",
			"addr", c.requested, "mac", c.machine(), "reserved", reserved, "unlogged", missed)
	}
	if reserved {
		// Quarantine would leave the machine without any address.
		return nil, ErrDrop
	}
	if !p.declines.Allow(c.owner, maxDeclines, p.declineTime()) {
		if ok, missed := p.disbelieved.Due(time.Minute); ok {
			p.logger().Warn("dhcp: a machine declines each address that it gets, no more are taken out of use for it: something answers ARP for addresses that are not its own (proxy ARP on a router?), or the machine is broken",
				"addr", c.requested, "mac", c.machine(), "unlogged", missed)
		}
		return nil, ErrDrop
	}
	if err := p.store.Decline(ctx, c.requested, c.owner, time.Now().Add(p.declineTime())); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return nil, ErrDrop
}

// bootp answers a client of RFC 951 and RFC 1497, which has one message only
// and keeps what it is told (RFC 1534 section 2).
func (p *Pool) bootp(ctx context.Context, c client) (*dhcpv4.DHCPv4, error) {
	addr := c.res.Addr
	if p.BOOTP == BOOTPAny {
		var err error
		if addr, err = p.choose(ctx, c); err != nil {
			return nil, err
		}
	} else if addr.IsValid() {
		if free, err := p.available(ctx, addr, c.owner); err != nil || !free {
			return nil, err
		}
	}
	if !addr.IsValid() {
		return nil, nil
	}
	if !c.dry() {
		switch err := p.commit(ctx, c, addr, time.Time{}); {
		case errors.Is(err, fs.ErrExist), errors.Is(err, errLate):
			return nil, nil
		case err != nil:
			return nil, err
		}
	}
	reply := p.reply(c, dhcpv4.MessageTypeNone)
	delete(reply.Options, dhcpv4.OptionServerIdentifier.Code())
	reply.YourIPAddr = toIP(addr)
	return reply, nil
}
