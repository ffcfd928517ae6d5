package dhcp

import (
	"sync"
	"time"
)

// storeClock is the time that a store counts in: the system's when the store
// was first used, and what has passed since. A clock that is set meanwhile, as
// on a machine that starts without the right time, ends no lease early and
// makes none longer. The zero value is ready to use.
type storeClock struct {
	once  sync.Once
	start time.Time // with its monotonic clock reading
}

// begin has the store count from now, if it does not count yet.
func (c *storeClock) begin(now time.Time) { c.once.Do(func() { c.start = now }) }

func (c *storeClock) started() time.Time {
	c.begin(time.Now())
	return c.start
}

// in is t as the store keeps it.
func (c *storeClock) in(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	start := c.started()
	return start.Add(t.Sub(start)).Round(0)
}

// out turns what in returned, or a file holds, into a time that is compared
// with [time.Now] by the monotonic clock.
func (c *storeClock) out(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	start := c.started()
	return start.Add(t.Sub(start))
}
