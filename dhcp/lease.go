package dhcp

import (
	"context"
	"iter"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/iana"
)

// Lease is the binding of an address to a machine.
type Lease struct {
	// Addr is the address; a store has one lease for each.
	Addr netip.Addr

	// ID is the identity that the machine holds the lease by, where that is
	// not its hardware address (see [Pool.Identity]): any bytes, at most 512.
	ID string

	// HardwareAddr is the machine: its ROM, iPXE, initramfs and system send
	// different client identifiers, but one hardware address. It is nil for
	// a machine whose messages have none (then there is an ID), and for an
	// address in quarantine (Declined).
	HardwareAddr net.HardwareAddr

	// Hostname is the name of the machine's reservation, "" without one.
	Hostname string

	// ClientHostname is the name that the machine told last in option 12,
	// which is anything that a client can send: never who it is.
	ClientHostname string

	// ClientID is option 61 of the last request, at most 255 bytes of it, nil
	// without one.
	ClientID []byte

	// UUID and Archs are what the machine's firmware told (options 97 and
	// 93). They outlive requests of the system, which tells neither.
	UUID  string
	Archs iana.Archs

	// Expires is when the lease ends; the zero time is never.
	Expires time.Time

	// Declined marks an address that a client found in use by a stranger. It
	// is given to nobody until Expires.
	Declined bool
}

// Active reports whether the address is the machine's at the time now: the
// lease has not expired and is no quarantine.
func (l Lease) Active(now time.Time) bool {
	return !l.Declined && l.holds(now)
}

// holds reports whether the address is taken at the time now, by a machine or
// by quarantine.
func (l Lease) holds(now time.Time) bool {
	return l.Expires.IsZero() || now.Before(l.Expires)
}

// Owner is who holds the lease: ID, or without one the bytes of HardwareAddr.
// It is "" for a quarantine.
func (l Lease) Owner() string {
	switch {
	case l.Declined:
		return ""
	case l.ID != "":
		return l.ID
	}
	return string(l.HardwareAddr)
}

func (l Lease) heldBy(owner string) bool {
	return !l.Declined && l.Owner() == owner
}

// LeaseStore keeps leases. Offers are not in it: they are held by the [Pool]
// for some seconds only.
//
// All methods may be called concurrently, by several pools. Their checks and
// changes are atomic, and a change that was reported done is seen by every
// later call: that is what keeps an address from being given twice. Expired
// leases stay in the store as long as there is room, so that a machine finds
// its old address again. The slices of a Lease that a store returns are not
// changed by anybody; those of a Lease that it is given it copies.
//
// An owner is what [Lease.Owner] returns: the bytes of the hardware address,
// or the ID of the lease.
//
// Errors other than those named mean that the store is out of order; the
// client is then not answered. [github.com/seed-3ec230fa/diskless/dhcp/dhcptest]
// has a test of an implementation.
type LeaseStore interface {
	// Commit makes or renews the lease of l.Addr, with all of l as given. It
	// is refused with [fs.ErrExist] while the address is leased to another
	// owner or in quarantine, and with [syscall.ENOSPC] when there is no room
	// for it.
	Commit(ctx context.Context, l Lease) error

	// Release ends the lease of addr now and keeps it as expired. It is
	// refused with [fs.ErrNotExist] when the owner has no active lease of addr.
	Release(ctx context.Context, addr netip.Addr, owner string) error

	// Decline puts addr in quarantine until the given time. It is refused
	// with [fs.ErrExist] when the address is leased to somebody else than the
	// owner, and with [syscall.ENOSPC].
	Decline(ctx context.Context, addr netip.Addr, owner string, until time.Time) error

	// LeaseByAddr returns what is known of addr: an active or expired lease
	// or a quarantine, or [fs.ErrNotExist].
	LeaseByAddr(ctx context.Context, addr netip.Addr) (Lease, error)

	// LeasesByOwner returns the active and expired leases of the owner, in
	// any order; none is no error.
	LeasesByOwner(ctx context.Context, owner string) ([]Lease, error)

	// Leases iterates over everything in the store, in any order. Changes
	// made meanwhile may or may not be seen. It ends after an error.
	Leases(ctx context.Context) iter.Seq2[Lease, error]
}
