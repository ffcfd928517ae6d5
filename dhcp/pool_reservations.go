package dhcp

import (
	"fmt"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Kinds of keys that a reservation is found by.
const (
	keyHardware = iota
	keyClientID
	keyUUID
	keyCircuit
)

// key is the reservation's key and its kind. The id that a lease is held by
// (Lease.ID) is the same text, and "" for a hardware address.
func (r *Reservation) key() (kind int, key string) {
	switch {
	case len(r.HardwareAddr) > 0:
		return keyHardware, string(r.HardwareAddr)
	case len(r.ClientID) > 0:
		return keyClientID, idKey(ByClientID, string(r.ClientID))
	case r.UUID != "":
		return keyUUID, idKey(ByUUID, strings.ToLower(r.UUID))
	case len(r.CircuitID) > 0:
		return keyCircuit, idKey("circuit-id", string(r.CircuitID))
	}
	return keyHardware, ""
}

// idKey is longer than any hardware address: the two never mix.
func idKey(kind Identity, value string) string {
	const room = 17
	key := string(kind) + "=" + value
	return key + strings.Repeat("\x00", max(0, room-len(key)))
}

// id is what a lease of the client is held by, "" for its hardware address.
func (i Identity) id(r *Request) string {
	switch i {
	case ByClientID:
		if id := r.Options.Get(dhcpv4.OptionClientIdentifier); len(id) > 1 {
			return idKey(i, string(id[:min(len(id), 255)]))
		}
	case ByUUID:
		if id := r.UUID(); id != "" {
			return idKey(i, id)
		}
	}
	return ""
}

// reservation finds the client's reservation, -1 without one, and the id of
// one that is not by hardware address.
func (p *Pool) reservation(r *Request) (index int, id string) {
	if i, ok := p.known[string(r.ClientHWAddr)]; ok {
		return i, ""
	}
	if p.kinds&^(1<<keyHardware) == 0 {
		return -1, ""
	}
	circuit := ""
	if v := r.RelayInfo(relayCircuitID); len(v) > 0 {
		circuit = idKey("circuit-id", string(v))
	}
	for _, key := range []string{ByClientID.id(r), ByUUID.id(r), circuit} {
		if i, ok := p.known[key]; ok && key != "" {
			return i, key
		}
	}
	return -1, ""
}

func (p *Pool) indexReservations() error {
	p.known = make(map[string]int, len(p.Reservations))
	for i := range p.Reservations {
		r := &p.Reservations[i]
		kind, key := r.key()
		switch {
		case key == "":
			return fmt.Errorf("reservation %q %v names no machine: set HardwareAddr, ClientID, UUID or CircuitID", r.Hostname, r.Addr)
		case len(r.HardwareAddr) > 16:
			return fmt.Errorf("reservation %q %v: hardware address %q has not 1 to 16 bytes", r.Hostname, r.Addr, r.HardwareAddr)
		case kind == keyUUID:
			if _, ok := parseUUID(r.UUID); !ok {
				return fmt.Errorf("reservation %q %v: %q is no UUID", r.Hostname, r.Addr, r.UUID)
			}
		}
		if _, ok := p.known[key]; ok {
			return fmt.Errorf("two reservations for %v", r)
		}
		if !validHostname(r.Hostname) {
			return fmt.Errorf("reservation for %v: %q is no host name", r, r.Hostname)
		}
		if err := checkOptions(r.Options); err != nil {
			return fmt.Errorf("reservation for %v: %w", r, err)
		}
		p.known[key] = i
		p.kinds |= 1 << kind
		if !r.Addr.IsValid() {
			continue
		}
		if !p.Prefix.Contains(r.Addr) || p.excluded(r.Addr) {
			return fmt.Errorf("reservation for %v: %v is not an address for a machine of this subnet", r, r.Addr)
		}
		if other, ok := p.reserved[r.Addr]; ok {
			return fmt.Errorf("%v is reserved for both %v and %v", r.Addr, &p.Reservations[other], r)
		}
		p.reserved[r.Addr] = i
	}
	return nil
}

// String names the machine.
func (r *Reservation) String() string {
	switch {
	case len(r.HardwareAddr) > 0:
		return r.HardwareAddr.String()
	case len(r.ClientID) > 0:
		return "client-id " + printable(string(r.ClientID))
	case r.UUID != "":
		return "uuid " + r.UUID
	}
	return "circuit-id " + printable(string(r.CircuitID))
}
