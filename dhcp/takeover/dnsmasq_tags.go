package takeover

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// dhcpMatch takes the lines that set a tag.
func (d *dnsmasq) dhcpMatch(key string, fields []string) {
	set, fields := takeTags(fields, "set:")
	if len(set) != 1 || len(fields) == 0 {
		d.note("%s has the form %s=set:TAG,VALUE", key, key)
		return
	}
	t := dnsTag{set: set[0]}
	value := strings.Join(fields, ",")
	contains := func(code uint8) func(*dhcp.Request) bool {
		return func(r *dhcp.Request) bool { return bytes.Contains(r.Options[code], []byte(value)) }
	}
	switch key {
	case "dhcp-vendorclass":
		t.match = contains(60)
	case "dhcp-userclass":
		t.match = contains(77)
	case "dhcp-mac":
		pattern := strings.Split(value, ":")
		t.match = func(r *dhcp.Request) bool { return matchMAC(pattern, r.ClientHWAddr) }
	case "dhcp-circuitid", "dhcp-remoteid":
		want := []byte(value)
		if b := hexBytes(value); b != nil && strings.Contains(value, ":") {
			want = b
		}
		sub := uint8(1)
		if key == "dhcp-remoteid" {
			sub = 2
		}
		t.match = func(r *dhcp.Request) bool { return bytes.Equal(r.RelayInfo(sub), want) }
	case "dhcp-match":
		name := strings.TrimPrefix(fields[0], "option:")
		code, ok := dhcp.OptionCode(name)
		if !ok {
			d.note("dhcp-match for %q is not taken over", fields[0])
			return
		}
		if len(fields) == 1 {
			t.match = func(r *dhcp.Request) bool { return r.Options.Has(dhcpv4.GenericOptionCode(code)) }
			break
		}
		want := strings.Join(fields[1:], ",")
		// As many bytes as the client sent, for numbers; text may be a part.
		t.match = func(r *dhcp.Request) bool {
			v, ok := r.Options[code]
			if !ok {
				return false
			}
			if n, err := strconv.ParseUint(want, 10, 32); err == nil && len(v) > 0 && len(v) <= 4 {
				var got uint64
				for _, b := range v {
					got = got<<8 | uint64(b)
				}
				return got == n
			}
			if b := hexBytes(want); b != nil && strings.Contains(want, ":") {
				return bytes.Equal(v, b)
			}
			return bytes.Contains(v, []byte(want))
		}
	}
	d.tags = append(d.tags, t)
}

func matchMAC(pattern []string, hw []byte) bool {
	if len(pattern) != len(hw) {
		return false
	}
	for i, p := range pattern {
		n, err := strconv.ParseUint(p, 16, 8)
		if p != "*" && (err != nil || byte(n) != hw[i]) {
			return false
		}
	}
	return true
}

// set is the tags of a request that got an answer in a subnet.
func (d *dnsmasq) set(r *dhcp.Request, subnet netip.Prefix) map[string]bool {
	set := map[string]bool{}
	for _, t := range d.tags {
		if t.match(r) {
			set[t.set] = true
		}
	}
	if h := d.host(r); h != nil {
		set["known"] = true
		for _, t := range h.set {
			set[t] = true
		}
	}
	if r.Interface != nil {
		set[r.Interface.Name] = true
	}
	if r.MessageType() == dhcpv4.MessageTypeNone {
		set["bootp"] = true
	}
	for _, g := range d.ranges {
		if g.prefix == subnet && allSet(g.tags, set) {
			for _, t := range g.set {
				set[t] = true
			}
		}
	}
	return set
}

func (d *dnsmasq) host(r *dhcp.Request) *dnsHost {
	for i := range d.hosts {
		h := &d.hosts[i]
		if len(h.hw) > 0 && bytes.Equal(h.hw[0], r.ClientHWAddr) || len(h.hw) == 0 && bytes.Equal(h.id, r.Options.Get(dhcpv4.OptionClientIdentifier)) {
			return h
		}
	}
	return nil
}

// allSet reports whether all tags are set; with a ! in front, not set.
func allSet(tags []string, set map[string]bool) bool {
	for _, t := range tags {
		name, not := strings.CutPrefix(t, "!")
		name, hash := strings.CutPrefix(name, "#")
		if set[name] == (not || hash) {
			return false
		}
	}
	return true
}

// pick chooses among what fits: with tags before without, then the last.
func pick[T any](list []T, set map[string]bool, tags func(*T) []string) *T {
	var best *T
	for i := range list {
		t := tags(&list[i])
		if allSet(t, set) && (best == nil || len(t) > 0 || len(tags(best)) == 0) {
			best = &list[i]
		}
	}
	return best
}

// refuse keeps silent to those that are to be ignored.
func (d *dnsmasq) refuse(p *dhcp.Pool, r *dhcp.Request) bool {
	if h := d.host(r); h != nil && h.ignore {
		r.Note("the host is ignored")
		return true
	}
	if len(d.ignore) == 0 {
		return false
	}
	set := d.set(r, p.Prefix)
	for _, tags := range d.ignore {
		if allSet(tags, set) {
			r.Note("dhcp-ignore: tags %s", strings.Join(tags, ","))
			return true
		}
	}
	return false
}

// adjust sets the options for the client's tags.
func (d *dnsmasq) adjust(p *dhcp.Pool, r *dhcp.Request, reply *dhcpv4.DHCPv4) error {
	set := d.set(r, p.Prefix)
	if reply.MessageType() == dhcpv4.MessageTypeNak {
		return nil
	}
	chosen := make(map[uint8]*dnsOption)
	for i := range d.options {
		o := &d.options[i]
		if old := chosen[o.code]; allSet(o.tags, set) && (old == nil || len(o.tags) > 0 || len(old.tags) == 0) {
			chosen[o.code] = o
		}
	}
	for code, o := range chosen {
		switch {
		case o.self:
			reply.Options[code] = p.ServerID.AsSlice()
		case o.data == nil:
			delete(reply.Options, code)
		default:
			reply.Options[code] = o.data
		}
	}
	return nil
}

// boot is dhcp-boot's choice, or pxe-service's for the client's architecture.
func (d *dnsmasq) boot(p *dhcp.Pool) func(context.Context, *dhcp.Request) (dhcp.Boot, error) {
	return func(_ context.Context, r *dhcp.Request) (dhcp.Boot, error) {
		set := d.set(r, p.Prefix)
		arch, hasArch := r.Arch()
		if platform := r.Platform(); hasArch && (platform == dhcp.PlatformPXE || platform == dhcp.PlatformRaspberryPi) {
			if mine := d.servicesOf(arch, set); len(mine) > 0 {
				r.Note("pxe-service for architecture %d: %d", arch, len(mine))
				return d.serviceBoot(p.ServerID, platform, mine, set), nil
			}
		}
		if b := pick(d.boots, set, func(b *dnsBoot) []string { return b.tags }); b != nil {
			r.Note("dhcp-boot with tags %q", b.tags)
			return b.boot, nil
		}
		if !r.Platform().WantsFile() {
			return dhcp.Boot{}, nil
		}
		return dhcp.Boot{}, fmt.Errorf("no dhcp-boot for %v: %w", r.ClientHWAddr, fs.ErrNotExist)
	}
}

// build makes pools of the ranges: one for each subnet.
func (d *dnsmasq) build() {
	d.fitMenus()
	placed := make([]bool, len(d.hosts))
	var pools []*dhcp.Pool
	for _, g := range d.ranges {
		i := slices.IndexFunc(pools, func(p *dhcp.Pool) bool { return p.Prefix == g.prefix })
		if i < 0 {
			i = len(pools)
			p := &dhcp.Pool{
				Prefix: g.prefix, ServerID: d.o.ServerID, Store: d.o.Store, Logger: d.o.Logger, Domain: d.domain,
				LeaseTime: g.time, MaxLeaseTime: g.time, NotAuthoritative: !d.authority, RapidCommit: d.rapidCommit,
				BOOTP: dhcp.BOOTPReserved, // which is dnsmasq's way
			}
			// It names itself as router and name server where nothing else is said.
			if g.prefix.Contains(d.o.ServerID) {
				p.Router, p.DNS = d.o.ServerID, []netip.Addr{d.o.ServerID}
			}
			if d.bootp {
				p.BOOTP = dhcp.BOOTPAny
			}
			if !d.noPing {
				p.InUse = new(dhcp.Prober).InUse
			}
			pools = append(pools, p)
		}
		if !g.static && len(g.tags) == 0 {
			pools[i].Ranges = append(pools[i].Ranges, dhcp.Range{First: g.first, Last: g.last})
		}
	}
	for _, p := range pools {
		taken := make(map[string]bool)
		for i, h := range d.hosts {
			if h.ignore {
				placed[i] = true
				continue
			}
			if h.addr.IsValid() && !p.Prefix.Contains(h.addr) {
				continue
			}
			r := dhcp.Reservation{Addr: h.addr, Hostname: h.name}
			if len(h.hw) > 0 {
				r.HardwareAddr = h.hw[0]
			} else {
				r.ClientID = h.id
			}
			placed[i] = true
			if taken[r.String()] || h.addr.IsValid() && taken[h.addr.String()] {
				d.at = h.at
				d.note("the machine or the address is that of an earlier dhcp-host")
				continue
			}
			taken[r.String()], taken[h.addr.String()] = true, true
			p.Reservations = append(p.Reservations, r)
		}
		n := &Network{Pools: []*dhcp.Pool{p}}
		for _, g := range d.ranges {
			if g.prefix == p.Prefix && !g.static && len(g.tags) > 0 {
				n.restrict("tag:"+strings.Join(g.tags, ",tag:"), 0, []dhcp.Range{{First: g.first, Last: g.last}}, false,
					func(r *dhcp.Request) bool { return allSet(g.tags, d.set(r, p.Prefix)) })
			}
		}
		n.keepRest()
		n.refuse = func(r *dhcp.Request) bool { return d.refuse(p, r) }
		if len(d.services) > 0 {
			n.bootServer = func(r *dhcp.Request) *dhcpv4.DHCPv4 { return d.bootServer(p, r) }
		}
		n.finish(func(_ int, r *dhcp.Request, reply *dhcpv4.DHCPv4) error { return d.adjust(p, r, reply) },
			func(int) func(context.Context, *dhcp.Request) (dhcp.Boot, error) { return d.boot(p) }, d.o)
		d.config.Networks = append(d.config.Networks, n)
	}
	for i, ok := range placed {
		if !ok {
			d.at = d.hosts[i].at
			d.note("the host is not taken over: no range is in the subnet of %v", d.hosts[i].addr)
		}
	}
	d.config.BootServer = pools != nil && d.hasMenus()
	if pools == nil {
		d.at = Pos{d.file, 1, 1}
		d.note("there is no range: nobody is served")
	}
	sortNotes(d.config.Notes, d.file)
}
