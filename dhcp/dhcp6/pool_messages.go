package dhcp6

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// ServeDHCP implements [Handler].
func (p *Pool) ServeDHCP(ctx context.Context, r *Request) (*dhcpv6.Message, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if !r.onLink(p.Prefix) {
		r.Note("the client is not on the link of %v", p.Prefix)
		return nil, nil
	}
	if err := valid(r, p.ServerID); err != nil {
		r.Note("no answer of %v: %v", p.Prefix, err)
		return nil, nil
	}
	if r.unicast() {
		switch r.MessageType {
		case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
			reply := NewReply(r, dhcpv6.MessageTypeReply, p.ServerID)
			reply.AddOption(status(iana.StatusUseMulticast, "send to the group ff02::1:2"))
			return reply, nil
		}
		return nil, nil
	}
	if r.MessageType == dhcpv6.MessageTypeInformationRequest {
		var own dhcpv6.Options
		if c, ok := p.client(r); ok {
			own = c.res.Options
		} else if p.KnownOnly {
			return nil, nil
		}
		reply := NewReply(r, dhcpv6.MessageTypeReply, p.ServerID)
		addOptions(reply, own, p.options)
		return reply, nil
	}
	c, ok := p.client(r)
	if !ok {
		return nil, nil
	}
	switch r.MessageType {
	case dhcpv6.MessageTypeConfirm:
		return p.confirm(c), nil
	case dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		return p.giveBack(ctx, c)
	}
	return p.grant(ctx, c)
}

// grant answers SOLICIT, REQUEST, RENEW and REBIND (sections 18.3.1 to 18.3.5).
func (p *Pool) grant(ctx context.Context, c *client) (*dhcpv6.Message, error) {
	kind, commit := dhcpv6.MessageTypeReply, true
	rapid := c.MessageType == dhcpv6.MessageTypeSolicit && p.RapidCommit && c.Options.GetOne(dhcpv6.OptionRapidCommit) != nil
	if c.MessageType == dhcpv6.MessageTypeSolicit && !rapid {
		kind, commit = dhcpv6.MessageTypeAdvertise, false
	}
	reply := NewReply(c.Request, kind, p.ServerID)
	if rapid {
		reply.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
	}
	if p.Preference > 0 && kind == dhcpv6.MessageTypeAdvertise {
		reply.AddOption(dhcpv6.OptPreference(p.Preference))
	}
	for i, ia := range c.Options.IANA() {
		if i >= maxIAs {
			break
		}
		out := &dhcpv6.OptIANA{IaId: ia.IaId}
		var addr netip.Addr
		err := errNoAddress
		if i == 0 {
			addr, err = p.assign(ctx, c, wanted(ia), commit)
		}
		switch {
		case err == nil:
			p.fill(out, ia, addr)
		case !errors.Is(err, errNoAddress):
			return nil, err
		case c.MessageType == dhcpv6.MessageTypeRenew:
			out.Options.Add(status(iana.StatusNoBinding, statusTextNoBinding))
		case c.MessageType == dhcpv6.MessageTypeRebind:
			p.revoke(out, ia, netip.Addr{})
		default:
			out.Options.Add(status(iana.StatusNoAddrsAvail, statusTextNoAddrs))
		}
		reply.AddOption(out)
	}
	for i, ia := range c.Options.IATA() {
		if i < maxIAs {
			out := &dhcpv6.OptIATA{IaId: ia.IaId}
			out.Options.Add(status(iana.StatusNoAddrsAvail, statusTextNoAddrs))
			reply.AddOption(out)
		}
	}
	for i, ia := range c.Options.IAPD() {
		if i < maxIAs {
			out := &dhcpv6.OptIAPD{IaId: ia.IaId}
			out.Options.Add(status(iana.StatusNoPrefixAvail, statusTextNoPrefixes))
			reply.AddOption(out)
		}
	}
	addOptions(reply, c.res.Options, p.options)
	return reply, nil
}

// maxIAs bounds the work for one message, and the answer's length.
const maxIAs = 8

// wanted is the first address that the client asks for or has.
func wanted(ia *dhcpv6.OptIANA) netip.Addr {
	if a := ia.Options.OneAddress(); a != nil {
		return toAddr(a.IPv6Addr)
	}
	return netip.Addr{}
}

// fill gives the address, and takes those away that the client has besides
// (section 18.3.4).
func (p *Pool) fill(out, asked *dhcpv6.OptIANA, addr netip.Addr) {
	t := p.lifetime()
	out.T1, out.T2 = t/2, t*4/5
	if p.LeaseTime == -1 {
		out.T1, out.T2 = infinity, infinity
	}
	out.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: addr.AsSlice(), PreferredLifetime: t, ValidLifetime: t})
	p.revoke(out, asked, addr)
}

func (p *Pool) revoke(out, asked *dhcpv6.OptIANA, but netip.Addr) {
	for i, a := range asked.Options.Addresses() {
		if had := toAddr(a.IPv6Addr); i < maxIAs && had != but && had.IsValid() {
			out.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: had.AsSlice()})
		}
	}
}

// confirm tells whether the client is still where its addresses are (section
// 18.3.3).
func (p *Pool) confirm(c *client) *dhcpv6.Message {
	found := false
	code, text := iana.StatusSuccess, "still on the link"
	for _, ia := range c.Options.IANA() {
		for _, a := range ia.Options.Addresses() {
			found = true
			if !p.Prefix.Contains(toAddr(a.IPv6Addr)) {
				code, text = iana.StatusNotOnLink, statusTextNotOnLink
			}
		}
	}
	if !found {
		return nil
	}
	reply := NewReply(c.Request, dhcpv6.MessageTypeReply, p.ServerID)
	reply.AddOption(status(code, text))
	return reply
}

// giveBack answers RELEASE and DECLINE (sections 18.3.7 and 18.3.8).
func (p *Pool) giveBack(ctx context.Context, c *client) (*dhcpv6.Message, error) {
	reply := NewReply(c.Request, dhcpv6.MessageTypeReply, p.ServerID)
	reply.AddOption(status(iana.StatusSuccess, ""))
	for i, ia := range c.Options.IANA() {
		if i >= maxIAs {
			break
		}
		for j, a := range ia.Options.Addresses() {
			if j >= maxIAs || c.dry() {
				break
			}
			err := p.drop(ctx, c, toAddr(a.IPv6Addr))
			if errors.Is(err, fs.ErrNotExist) {
				out := &dhcpv6.OptIANA{IaId: ia.IaId}
				out.Options.Add(status(iana.StatusNoBinding, statusTextNoBinding))
				reply.AddOption(out)
				break
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return reply, nil
}

// maxDeclines is how many addresses one machine can take out of use within
// DeclineTime: where everything answers for its address it would take them all.
const maxDeclines = 8

// drop ends a lease of the client's; without one it is fs.ErrNotExist.
func (p *Pool) drop(ctx context.Context, c *client, addr netip.Addr) error {
	if !addr.IsValid() || !p.Prefix.Contains(addr) {
		return fs.ErrNotExist
	}
	l, err := p.lookup(ctx, addr)
	if err != nil {
		return err
	}
	if l.Owner() != c.owner {
		return fs.ErrNotExist
	}
	if c.MessageType == dhcpv6.MessageTypeRelease {
		return p.store.Release(ctx, addr, c.owner)
	}
	_, reserved := p.reserved[addr]
	if ok, missed := p.declined.Due(time.Second); ok {
		p.logger().Warn("dhcp6: a client found its address in use by a machine that did not get it here: find that one (ping, ip -6 neigh) and give it another, or change the range or the reservation",
			"addr", addr, "client", c.who(), "reserved", reserved, "unlogged", missed)
	}
	if reserved {
		return nil // quarantine would leave the machine without any address
	}
	hold := cmp.Or(p.DeclineTime, defaultDeclineTime)
	if !p.declines.Allow(c.owner, maxDeclines, hold) {
		if ok, missed := p.disbelieved.Due(time.Minute); ok {
			p.logger().Warn("dhcp6: a machine declines each address that it gets, no more are taken out of use for it: something answers for addresses that are not its own (an ND proxy on a router?), or the machine is broken",
				"addr", addr, "client", c.who(), "unlogged", missed)
		}
		return nil
	}
	err = p.store.Decline(ctx, addr, c.owner, time.Now().Add(hold))
	if errors.Is(err, fs.ErrExist) {
		return fs.ErrNotExist // somebody else's by now
	}
	return err
}

// addOptions adds those that the reply does not have yet; the first wins.
func addOptions(reply *dhcpv6.Message, lists ...dhcpv6.Options) {
	for _, list := range lists {
		for _, o := range list {
			if reply.GetOneOption(o.Code()) == nil {
				reply.AddOption(o)
			}
		}
	}
}

func status(code iana.StatusCode, text string) *dhcpv6.OptStatusCode {
	return &dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: text}
}
