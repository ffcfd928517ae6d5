package dhcp

import (
	"sync"
	"time"
)

// floodGuard counts what comes from each source, in buckets that fill up again.
// The zero value is ready to use.
type floodGuard struct {
	mu      sync.Mutex
	buckets map[string]*floodBucket
}

type floodBucket struct {
	left float64
	at   time.Time
}

// maxSources bounds the memory: option 82 may be made up too, where a switch
// lets it pass. A table that is full is begun anew.
const maxSources = 1 << 14

// allow takes one from the source's bucket of the given size, which is filled
// within that time.
func (g *floodGuard) allow(source string, size int, within time.Duration, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.buckets[source]
	if b == nil {
		if g.buckets == nil || len(g.buckets) >= maxSources {
			g.buckets = make(map[string]*floodBucket)
		}
		b = &floodBucket{left: float64(size), at: now}
		g.buckets[source] = b
	}
	b.left = min(float64(size), b.left+float64(size)*now.Sub(b.at).Seconds()/within.Seconds())
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

const (
	defaultNewPerPort = 120
	defaultNewPerLink = 20_000
)

// admit reports whether a machine that is new here may be made an offer.
func (p *Pool) admit(c client) bool {
	if c.dry() {
		return true
	}
	port, link := c.source()
	now := time.Now()
	ok := true
	if n := orDefaultLimit(p.MaxNewPerPort, defaultNewPerPort); port != "" && n >= 0 {
		ok = p.newOnPort.allow(port, n, time.Minute, now)
	}
	if n := orDefaultLimit(p.MaxNewPerLink, defaultNewPerLink); ok && n >= 0 {
		ok = p.newOnLink.allow(link, n, time.Minute, now)
	}
	if !ok {
		if log, missed := p.flooded.allow(time.Minute); log {
			p.logger().Warn("dhcp: more new machines than one port or link may have in a minute, some get no offer: find who makes up hardware addresses, or raise MaxNewPerPort or MaxNewPerLink",
				"link", link, "port", printable(port), "mac", c.hw.String(), "unlogged", missed)
		}
	}
	return ok
}

func orDefaultLimit(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}
