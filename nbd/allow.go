package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
)

// Authorize is a [Handler] that asks allow before it asks h: an error refuses
// the client, and its kind chooses the reply as the Handler's own does, best
// one that wraps [fs.ErrPermission]. allow sees the name that the client asks
// for, its address and its certificate, for looks as well as for openings; it
// is called concurrently.
//
// In a list of exports only those are left that allow lets through, asked as
// for a look.
func Authorize(h Handler, allow func(ctx context.Context, r *Request) error) Handler {
	return authorized{h, allow}
}

type authorized struct {
	h     Handler
	allow func(ctx context.Context, r *Request) error
}

func (a authorized) OpenNBD(ctx context.Context, r *Request) (Device, error) {
	if err := a.allow(ctx, r); err != nil {
		return nil, err
	}
	return a.h.OpenNBD(ctx, r)
}

func (a authorized) ListNBD(ctx context.Context, r *Request) ([]ExportInfo, error) {
	l, ok := a.h.(Lister)
	if !ok {
		return nil, fmt.Errorf("nbd: no list of exports: %w", fs.ErrPermission)
	}
	list, err := l.ListNBD(ctx, r)
	if err != nil {
		return nil, err
	}
	var allowed []ExportInfo // list may be h's own
	for _, e := range list {
		one := *r
		one.Export, one.Purpose = e.Name, PurposeInfo
		if a.allow(ctx, &one) == nil {
			allowed = append(allowed, e)
		}
	}
	return allowed, nil
}

// AllowFrom is a [Handler] that refuses clients whose address is in none of
// the prefixes, with an error that wraps [fs.ErrPermission]. An IPv4 address
// in IPv6 clothes counts as what it is, a zone counts for nothing. A client
// without an address (a Unix socket, a pipe) is refused: serve h itself there.
func AllowFrom(h Handler, prefixes ...netip.Prefix) Handler {
	return Authorize(h, func(_ context.Context, r *Request) error {
		addr := r.Client.Addr().Unmap().WithZone("")
		if slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			return nil
		}
		if !addr.IsValid() {
			return fmt.Errorf("nbd: a client without an address is in none of the ranges allowed: %w", fs.ErrPermission)
		}
		return fmt.Errorf("nbd: %s is in none of the address ranges allowed: %w", addr, fs.ErrPermission)
	})
}

// OwnRoot is a [Handler] that lets a client open images, and of the writable
// roots its own only: the one that owner names for its address, as a table of
// leases can. "" and no error is a client that owns none. Names that are no
// [Name] are left to h.
func OwnRoot(h Handler, owner func(ctx context.Context, client netip.Addr) (root string, err error)) Handler {
	return Authorize(h, func(ctx context.Context, r *Request) error {
		n, err := ParseName(r.Export)
		if err != nil || n.Root == "" {
			return nil
		}
		client := r.Client.Addr().Unmap()
		if !client.IsValid() {
			return fmt.Errorf("nbd: root %s: a client without an address owns none: %w", n.Root, fs.ErrPermission)
		}
		root, err := owner(ctx, client)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && root != n.Root:
			return fmt.Errorf("nbd: root %s is not that of %s: %w", n.Root, client, fs.ErrPermission)
		default:
			return err
		}
	})
}

var _ Lister = authorized{}
