package pxecfg

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"sync"
)

// Machine is one machine that is known: by its hardware address, its UUID, its
// IP address, or several of them. Any one of them is enough, but one that has a
// hardware address is never a client with another.
type Machine struct {
	MAC  net.HardwareAddr
	UUID string // in either byte order
	IP   netip.Addr
	// Source decides what it boots; a [*Config] is one.
	Source Source
}

// Machines is a [Source] of known machines, looked up by hardware address
// first, then UUID, then IP address; of several machines with the same key the
// first in the list is meant. The time that takes does not depend on the number
// of machines.
//
// The fields are read when the first machine is looked up and must not be
// changed afterwards. The methods may be called concurrently.
type Machines struct {
	// List holds the known machines.
	List []Machine
	// Unknown answers for all others, and what it answers is a
	// [Config.Fallback]: nil denies them (fs.ErrNotExist), [LocalDisk] sends
	// them to their own disk, any other Config is their default.
	Unknown Source
	// MaxSeen is how many unknown machines are remembered; the one that was
	// silent for longest is forgotten first. 0 means 1024, -1 none.
	MaxSeen int
	// Logger gets a warning when an unknown hardware address is seen for the
	// first time. nil means slog.Default().
	Logger *slog.Logger

	once   sync.Once
	byMAC  map[string]*Machine
	byUUID map[string]*Machine
	byIP   map[netip.Addr]*Machine
	seen   sightings
}

// Config implements [Source].
func (m *Machines) Config(ctx context.Context, c Client) (*Config, error) {
	m.once.Do(m.index)
	k := m.find(c)
	if k == nil {
		return askUnknown(ctx, m.Unknown, c, &m.seen, m.MaxSeen, m.Logger)
	}
	if !isLook(ctx) {
		m.seen.forget(c)
	}
	lookOf(ctx).match(k.String())
	return ask(ctx, k.Source, c)
}

// String names the machine by what it is known by.
func (k *Machine) String() string {
	return "machine " + Client{MAC: k.MAC, UUID: k.UUID, IP: k.IP}.String()
}

// Validate reports machines without a key, and keys that two machines have.
func (m *Machines) Validate() error {
	seen := make(map[string]int, len(m.List))
	for i, k := range m.List {
		var keys []string
		if len(k.MAC) > 0 {
			keys = append(keys, "hardware address "+k.MAC.String())
		}
		if k.UUID != "" {
			if _, ok := parseUUID(k.UUID); !ok {
				return fmt.Errorf("machine %d: UUID %q: write it as 8-4-4-4-12 hexadecimal digits: %w", i+1, k.UUID, fs.ErrInvalid)
			}
			keys = append(keys, "UUID "+uuidKey(k.UUID))
		}
		if k.IP.IsValid() {
			keys = append(keys, "address "+k.IP.Unmap().String())
		}
		if len(keys) == 0 {
			return fmt.Errorf("machine %d has no hardware address, UUID or IP address to know it by: %w", i+1, fs.ErrInvalid)
		}
		for _, key := range keys {
			if j, ok := seen[key]; ok {
				return fmt.Errorf("machines %d and %d have the same %s: %w", j, i+1, key, fs.ErrInvalid)
			}
			seen[key] = i + 1
		}
	}
	return nil
}

// Find returns the machine in List that c is, or nil. It is no request of the
// machine's: nothing is noted.
func (m *Machines) Find(c Client) *Machine {
	m.once.Do(m.index)
	return m.find(c)
}

// Seen lists the unknown machines, the latest first.
func (m *Machines) Seen() []Sighting { return m.seen.list() }

func (m *Machines) index() {
	m.byMAC = make(map[string]*Machine, len(m.List))
	m.byUUID = make(map[string]*Machine)
	m.byIP = make(map[netip.Addr]*Machine)
	for i := range m.List {
		k := &m.List[i]
		if len(k.MAC) > 0 {
			putFirst(m.byMAC, string(k.MAC), k)
		}
		if k.UUID != "" {
			putFirst(m.byUUID, uuidKey(k.UUID), k)
		}
		if k.IP.IsValid() {
			putFirst(m.byIP, k.IP.Unmap(), k)
		}
	}
}

func (m *Machines) find(c Client) *Machine {
	if k := m.byMAC[string(c.MAC)]; k != nil {
		return k
	}
	if c.UUID != "" && len(m.byUUID) > 0 {
		if k := m.byUUID[uuidKey(c.UUID)]; k != nil && k.mayBe(c) {
			return k
		}
	}
	if k := m.byIP[c.IP.Unmap()]; k != nil && k.mayBe(c) {
		return k
	}
	return nil
}

// mayBe is false where hardware addresses contradict. Any machine can send
// another's UUID, which it hears in each of its broadcasts, or take its IP
// address: neither may make it the other one.
func (k *Machine) mayBe(c Client) bool {
	return len(k.MAC) == 0 || len(c.MAC) == 0 || sameMAC(k.MAC, c.MAC)
}

func putFirst[K comparable](m map[K]*Machine, key K, k *Machine) {
	if _, ok := m[key]; !ok {
		m[key] = k
	}
}

// uuidKey is the same for both byte orders of a UUID.
func uuidKey(uuid string) string {
	b, ok := parseUUID(uuid)
	if !ok {
		return uuid
	}
	a := FormatUUID(b)
	return min(a, SwapUUID(a))
}

func archText(c Client) string {
	if !c.ArchKnown {
		return ""
	}
	return c.Arch.String()
}
