package dhcp

import (
	"net/netip"
	"sync"
	"time"
)

// offers are the addresses held for clients that have not requested them yet:
// one per client, in memory only. The zero value is ready to use. It cannot
// outgrow the pool's ranges.
type offers struct {
	mu      sync.Mutex
	byAddr  map[netip.Addr]offer
	byOwner map[string]netip.Addr
}

type offer struct {
	owner   string
	expires time.Time
}

// hold keeps a for owner and returns it, or returns what is held for owner already,
// or the zero Addr when another client has a.
func (o *offers) hold(a netip.Addr, owner string, d time.Duration) netip.Addr {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if held, ok := o.byOwner[owner]; ok && held != a {
		if now.Before(o.byAddr[held].expires) {
			o.byAddr[held] = offer{owner: owner, expires: now.Add(d)}
			return held
		}
		delete(o.byAddr, held)
		delete(o.byOwner, owner)
	}
	if old, ok := o.byAddr[a]; ok && old.owner != owner {
		if now.Before(old.expires) {
			return netip.Addr{}
		}
		delete(o.byOwner, old.owner)
	}
	if o.byAddr == nil {
		o.byAddr = make(map[netip.Addr]offer)
		o.byOwner = make(map[string]netip.Addr)
	}
	o.byAddr[a] = offer{owner: owner, expires: now.Add(d)}
	o.byOwner[owner] = a
	return a
}

// take holds a for owner, whoever has it.
func (o *offers) take(a netip.Addr, owner string, d time.Duration) {
	o.mu.Lock()
	if held, ok := o.byOwner[owner]; ok && held != a {
		delete(o.byAddr, held)
		delete(o.byOwner, owner)
	}
	if old, ok := o.byAddr[a]; ok && old.owner != owner {
		delete(o.byAddr, a)
		delete(o.byOwner, old.owner)
	}
	o.mu.Unlock()
	o.hold(a, owner, d)
}

// addr returns what is held for owner, or the zero Addr.
func (o *offers) addr(owner string) netip.Addr {
	o.mu.Lock()
	defer o.mu.Unlock()
	a, ok := o.byOwner[owner]
	if !ok || !time.Now().Before(o.byAddr[a].expires) {
		return netip.Addr{}
	}
	return a
}

// heldUntil returns until when a is held for a client other than owner, or the
// zero time.
func (o *offers) heldUntil(a netip.Addr, owner string, now time.Time) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	of, ok := o.byAddr[a]
	if !ok || of.owner == owner || !now.Before(of.expires) {
		return time.Time{}
	}
	return of.expires
}

// drop forgets what is held for owner, and reports whether anything was.
func (o *offers) drop(owner string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	a, ok := o.byOwner[owner]
	if ok {
		delete(o.byAddr, a)
		delete(o.byOwner, owner)
	}
	return ok
}
