package dhcp

import (
	"cmp"
	"time"
)

const (
	defaultNewPerPort = 120
	defaultNewPerLink = 20_000
)

// admit reports whether a machine that is new here may be made an offer, or given
// what it asks for.
func (p *Pool) admit(c client) bool {
	if c.dry() {
		return true
	}
	port, link := c.source()
	ok := true
	if n := cmp.Or(p.MaxNewPerPort, defaultNewPerPort); port != "" && n >= 0 {
		ok = p.newOnPort.Allow(port, n, time.Minute)
	}
	if n := cmp.Or(p.MaxNewPerLink, defaultNewPerLink); ok && n >= 0 {
		ok = p.newOnLink.Allow(link, n, time.Minute)
	}
	if !ok {
		if log, missed := p.flooded.Due(time.Minute); log {
			p.logger().Warn("dhcp: more new machines than one port or link may have in a minute, some get no answer: find who makes up hardware addresses, or raise MaxNewPerPort or MaxNewPerLink",
				"link", link, "port", printable(port), "mac", c.machine(), "unlogged", missed)
		}
	}
	return ok
}
