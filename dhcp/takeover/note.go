package takeover

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// Pos is a place in a file; lines and columns (in bytes) count from 1.
type Pos struct {
	File      string
	Line, Col int
}

// String has the form file:line:column.
func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }

// SyntaxError is a file that cannot be read at all.
type SyntaxError struct {
	Pos
	Msg string
}

// Error implements error.
func (e *SyntaxError) Error() string { return fmt.Sprintf("%v: %s", e.Pos, e.Msg) }

// Note is something in a file that was not taken over.
type Note struct {
	Pos
	Msg string
	// Harmless is true when clients are told the same without it.
	Harmless bool
}

// String has the form file:line:column: message.
func (n Note) String() string { return fmt.Sprintf("%v: %s", n.Pos, n.Msg) }

// sortNotes puts them in the order of the files: the one that was asked for
// before those that it includes.
func sortNotes(notes []Note, file string) {
	slices.SortStableFunc(notes, func(a, b Note) int {
		if a.File != b.File {
			switch file {
			case a.File:
				return -1
			case b.File:
				return 1
			}
		}
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Col-b.Col)
	})
}

// Options say what the files do not.
type Options struct {
	// ServerID is the server's address (option 54), where the file does not
	// say it.
	ServerID netip.Addr
	// Subnets are those of the server's interfaces, for ranges of dnsmasq that
	// do not say theirs.
	Subnets []netip.Prefix
	// Store keeps the leases of all pools; nil is a memory store for each.
	Store dhcp.LeaseStore
	// Resolve finds the address of a host name in the file; nil asks the
	// system's resolver.
	Resolve func(ctx context.Context, name string) (netip.Addr, error)
	// Open reads the files that dhcpd.conf includes and dnsmasq.conf names as
	// conf-file, by the name that stands there; with nil such a line is a note.
	Open func(name string) ([]byte, error)
	// Logger is for the pools; nil is [slog.Default].
	Logger *slog.Logger
}

func (o *Options) resolve(ctx context.Context, name string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		if !a.Is4() {
			return a, fmt.Errorf("%s is no IPv4 address", name)
		}
		return a, nil
	}
	if o.Resolve != nil {
		return o.Resolve(ctx, name)
	}
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
	if err != nil {
		return netip.Addr{}, err
	}
	return list[0].Unmap(), nil
}
