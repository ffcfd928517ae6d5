package pxecfg

import (
	"cmp"
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// Sighting is an unknown machine that asked for a boot configuration.
type Sighting struct {
	// Client is all that its requests have told.
	Client Client
	// First and Last are the times of its first and latest request.
	First, Last time.Time
	// Count is the number of its requests.
	Count int
}

// sightings remembers unknown machines, the latest at the front of a list. A
// machine without a lease shows its UUID, its hardware address and its IP
// address in separate requests: what comes from one IP address is put together
// as long as it does not contradict.
type sightings struct {
	mu     sync.Mutex
	order  list.List // of *Sighting
	byMAC  map[string]*list.Element
	byUUID map[string]*list.Element
	byIP   map[netip.Addr]*list.Element
}

// add returns whether a hardware address is new: one name on the ladder is no
// reason to alarm anybody yet, a later one may be known.
func (s *sightings) add(c Client, now time.Time, limit int) bool {
	c = withAddress(c)
	if limit <= 0 || len(c.MAC) == 0 && c.UUID == "" && !c.IP.IsValid() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(c)
	if e == nil {
		if s.order.Len() >= limit {
			s.remove(s.order.Back())
		}
		e = s.order.PushFront(&Sighting{First: now})
	}
	s.unindex(e)
	v := e.Value.(*Sighting)
	isNew := len(c.MAC) > 0 && len(v.Client.MAC) == 0
	v.Client = merge(c, v.Client)
	v.Last = now
	v.Count++
	s.order.MoveToFront(e)
	s.index(e)
	return isNew
}

// forget drops what was seen of a machine that has turned out to be known.
func (s *sightings) forget(c Client) {
	c = withAddress(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.order.Len() == 0 {
		return
	}
	if e := s.find(c); e != nil {
		s.remove(e)
	}
}

func withAddress(c Client) Client {
	if !c.IP.IsValid() {
		c.IP = c.Peer
	}
	c.IP, c.Peer = c.IP.Unmap(), netip.Addr{}
	return c
}

func (s *sightings) list() []Sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Sighting, 0, s.order.Len())
	for e := s.order.Front(); e != nil; e = e.Next() {
		out = append(out, *e.Value.(*Sighting))
	}
	return out
}

func (s *sightings) find(c Client) *list.Element {
	if e := s.byMAC[string(c.MAC)]; e != nil {
		return e
	}
	// Two machines may share a vendor's placeholder of a UUID, or an IP
	// address one after the other.
	if c.UUID != "" {
		if e := s.byUUID[uuidKey(c.UUID)]; e != nil && compatible(c, e) {
			return e
		}
	}
	if e := s.byIP[c.IP]; e != nil && compatible(c, e) {
		return e
	}
	return nil
}

func compatible(c Client, e *list.Element) bool {
	k := e.Value.(*Sighting).Client
	return (len(c.MAC) == 0 || len(k.MAC) == 0 || sameMAC(c.MAC, k.MAC)) &&
		(c.UUID == "" || k.UUID == "" || sameUUID(c.UUID, k.UUID))
}

func (s *sightings) index(e *list.Element) {
	if s.byMAC == nil {
		s.byMAC = make(map[string]*list.Element)
		s.byUUID = make(map[string]*list.Element)
		s.byIP = make(map[netip.Addr]*list.Element)
	}
	c := e.Value.(*Sighting).Client
	if len(c.MAC) > 0 {
		s.byMAC[string(c.MAC)] = e
	}
	if c.UUID != "" {
		s.byUUID[uuidKey(c.UUID)] = e
	}
	if c.IP.IsValid() {
		s.byIP[c.IP] = e
	}
}

func (s *sightings) unindex(e *list.Element) {
	c := e.Value.(*Sighting).Client
	// A key may have gone over to another machine meanwhile.
	if s.byMAC[string(c.MAC)] == e {
		delete(s.byMAC, string(c.MAC))
	}
	if k := uuidKey(c.UUID); s.byUUID[k] == e {
		delete(s.byUUID, k)
	}
	if s.byIP[c.IP] == e {
		delete(s.byIP, c.IP)
	}
}

func (s *sightings) remove(e *list.Element) {
	s.unindex(e)
	s.order.Remove(e)
}

// merge fills what a lacks from b.
func merge(a, b Client) Client {
	a.UUID = cmp.Or(a.UUID, b.UUID)
	if len(a.MAC) == 0 {
		a.HardwareType, a.MAC = b.HardwareType, b.MAC
	}
	if !a.IP.IsValid() {
		a.IP = b.IP
	}
	if !a.Peer.IsValid() {
		a.Peer = b.Peer
	}
	a.Hostname = cmp.Or(a.Hostname, b.Hostname)
	if !a.ArchKnown {
		a.Arch, a.ArchKnown = b.Arch, b.ArchKnown
	}
	a.Platform = cmp.Or(a.Platform, b.Platform)
	a.Loader = cmp.Or(a.Loader, b.Loader)
	a.ConfigFile = cmp.Or(a.ConfigFile, b.ConfigFile)
	return a
}
