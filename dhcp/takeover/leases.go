package takeover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// DHCPDLeases reads a dhcpd.leases file of ISC's server. Of the entries for an
// address the last one counts, as there. Leases that ended are in the result
// too, so that machines get the same address again; an abandoned address is in
// quarantine for a day. Entries of other kinds, and fields that say nothing
// about who has what, are passed over; an entry that is not understood is a
// note.
func DHCPDLeases(file string, data []byte) ([]dhcp.Lease, []Note, error) {
	nodes, p, err := parseBlocks(file, data)
	if err != nil {
		return nil, nil, err
	}
	var notes []Note
	var list []dhcp.Lease
	last := make(map[netip.Addr]int)
	for _, n := range nodes {
		if n.word(0) != "lease" {
			continue
		}
		l, err := leaseEntry(n)
		if err != nil {
			notes = append(notes, Note{Pos: p.pos(n.words[0]), Msg: err.Error()})
			continue
		}
		if i, ok := last[l.Addr]; ok {
			list[i] = l
			continue
		}
		last[l.Addr] = len(list)
		list = append(list, l)
	}
	return list, notes, nil
}

func leaseEntry(n *node) (l dhcp.Lease, err error) {
	if l.Addr, err = netip.ParseAddr(n.word(1)); err != nil || !l.Addr.Is4() {
		return l, fmt.Errorf("%q is no IPv4 address", n.word(1))
	}
	state, ends := "active", time.Time{}
	never := false
	for _, f := range n.block {
		switch f.word(0) {
		case "ends":
			if ends, never, err = leaseTime(f); err != nil {
				return l, err
			}
		case "binding":
			if f.word(1) == "state" {
				state = f.word(2)
			}
		case "abandoned":
			state = "abandoned"
		case "hardware":
			if l.HardwareAddr = hexBytes(f.word(2)); len(l.HardwareAddr) > 16 {
				return l, fmt.Errorf("%q is no hardware address", f.word(2))
			}
		case "uid":
			if len(f.words) > 1 {
				id := []byte(f.word(1))
				if b := hexBytes(f.word(1)); b != nil && !f.words[1].quoted {
					id = b
				}
				l.ClientID = id[:min(len(id), 255)]
			}
		case "client-hostname":
			if name := f.word(1); validName(name) {
				l.ClientHostname = name
			}
		}
	}
	switch {
	case state == "abandoned":
		return dhcp.Lease{Addr: l.Addr, Declined: true, Expires: time.Now().Add(24 * time.Hour)}, nil
	case len(l.HardwareAddr) == 0:
		return l, fmt.Errorf("the lease of %v names no hardware address", l.Addr)
	case ends.IsZero() && !never:
		return l, fmt.Errorf("the lease of %v does not say when it ends", l.Addr)
	}
	l.Expires = ends
	if state != "active" && (never || ends.After(time.Now())) {
		l.Expires = time.Now() // released, or taken back
	}
	return l, nil
}

// leaseTime reads "ends 4 2026/11/19 10:20:30" (UTC), "ends never" and "ends
// epoch 1700000000".
func leaseTime(f *node) (t time.Time, never bool, err error) {
	switch f.word(1) {
	case "never":
		return t, true, nil
	case "epoch":
		n, err := strconv.ParseInt(f.word(2), 10, 64)
		if err != nil || n < 1 || n > 1<<33 {
			return t, false, fmt.Errorf("%q is no time", f.word(2))
		}
		return time.Unix(n, 0), false, nil
	}
	t, err = time.Parse("2006/01/02 15:04:05", f.word(2)+" "+f.word(3))
	if err != nil || t.Year() > 2200 {
		return t, false, fmt.Errorf("%q is no time", strings.TrimSpace(joinWords(f.words[1:])))
	}
	return t, false, nil
}

// Restore puts leases into a store. One that the store refuses because the
// address has another holder there already is passed over and counted.
func Restore(ctx context.Context, store dhcp.LeaseStore, leases []dhcp.Lease) (refused int, err error) {
	for _, l := range leases {
		if l.Declined {
			err = store.Decline(ctx, l.Addr, "", l.Expires)
		} else {
			err = store.Commit(ctx, l)
		}
		switch {
		case errors.Is(err, fs.ErrExist):
			refused++
		case err != nil:
			return refused, err
		}
	}
	return refused, nil
}
