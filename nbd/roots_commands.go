package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// deletedPrefix marks the folder of a root that is being deleted; it is no
// root's name.
const deletedPrefix = ".deleted-"

// RootInfo is a root as [Roots.List] shows it.
type RootInfo struct {
	Name  string
	Image string
	Kind  Kind
	// Generation is what the root is on, [GenerationDigits] long; "" after a
	// reset, and before the first boot.
	Generation string
	// Usage is how many bytes its overlay stores, Shared how many the frozen
	// overlays below it do, which clones have in common.
	Usage, Shared int64
	// Clients are the ends of the connections that have it open; one without
	// an address is the zero value.
	Clients []netip.AddrPort
	// Pending is true when a token was given out that nobody has opened.
	Pending bool
	// Created and OpenedAt are when its first and its newest boot opened it.
	Created, OpenedAt time.Time
	// UsedAt is when its last connection ended, or the time now while there
	// is one. After a crash of the server it counts from its start.
	UsedAt time.Time
	// Err says why it cannot be used.
	Err error
}

// List returns the roots, sorted by name; those that were rendered but never
// opened are not among them.
func (rs *Roots) List(ctx context.Context) ([]RootInfo, error) {
	if err := rs.load(); err != nil {
		return nil, err
	}
	rs.mu.Lock()
	names := slices.Sorted(maps.Keys(rs.roots))
	rs.mu.Unlock()
	var list []RootInfo
	for _, name := range names {
		r, err := rs.get(ctx, name, false)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if r.bad != nil || r.state.Image != "" {
			list = append(list, rs.info(r))
		}
		rs.put(r)
	}
	return list, nil
}

func (rs *Roots) info(r *root) RootInfo {
	s := &r.state
	info := RootInfo{
		Name: r.name, Image: s.Image, Kind: s.Kind, Pending: r.pending != nil,
		Created: s.Created, OpenedAt: s.OpenedAt, Err: r.bad,
	}
	if info.UsedAt = rs.lastUse(r); r.holder != nil && len(r.holder.devices) > 0 {
		info.UsedAt = rs.now()
	}
	info.Shared = rs.layerUsage(s.Layers)
	if s.Generation != "" {
		info.Generation = s.Generation[:GenerationDigits]
	}
	switch {
	case r.overlay != nil:
		info.Usage = r.overlay.Usage()
	case s.Overlay != "" && rs.stored():
		var err error
		if info.Usage, err = overlayUsage(rs.overlayDir(r)); err != nil && info.Err == nil {
			info.Err = err
		}
	}
	if r.holder != nil {
		for d := range r.holder.devices {
			info.Clients = append(info.Clients, d.client)
		}
		slices.SortFunc(info.Clients, netip.AddrPort.Compare)
	}
	return info
}

// ListNBD implements [Lister]: the images, and the roots as IMAGE@ROOT. It waits
// for no root and looks at no file, as any client may ask for it.
func (rs *Roots) ListNBD(ctx context.Context, req *Request) ([]ExportInfo, error) {
	if err := rs.load(); err != nil {
		return nil, err
	}
	list, err := rs.Images.ListNBD(ctx, req)
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(rs.roots)) {
		if s := rs.roots[name].shown.Load(); s != nil {
			n := Name{Image: s.Image, Root: name}
			list = append(list, ExportInfo{Name: n.String(), Description: s.Kind.String() + " root on generation " + s.Generation[:GenerationDigits]})
		}
	}
	return list, err
}

// Reset throws a root's data away: connections to it are fenced, tokens given
// out until now are refused, and the next boot begins clean on the newest
// generation. [fs.ErrNotExist] when there is no such root.
func (rs *Roots) Reset(ctx context.Context, name string) error {
	return rs.command(ctx, name, "reset", nil, func(r *root, newest int64) error {
		if r.bad != nil {
			return r.bad
		}
		if r.state.Image == "" {
			return rs.raiseFloor(newest)
		}
		old, state := r.state, r.state
		state.Generation, state.Overlay, state.Opened = "", "", formatSeq(newest)
		state.Layers, state.UsedAt = nil, rs.now().UTC()
		if err := rs.save(r, state); err != nil {
			return err
		}
		overlay, base := r.overlay, r.base
		r.overlay, r.base = nil, nil
		rs.discard(r, old, overlay, base)
		return nil
	})
}

// Delete removes a root with its data: connections to it are fenced and tokens
// given out until now are refused. [fs.ErrNotExist] when there is no such root.
func (rs *Roots) Delete(ctx context.Context, name string) error {
	return rs.command(ctx, name, "deleted", nil, rs.remove)
}

// remove is Delete's part under the root's lock.
func (rs *Roots) remove(r *root, newest int64) error {
	// First of all: a running machine that comes back must not find an
	// empty root where its own was.
	if err := rs.raiseFloor(newest); err != nil {
		return err
	}
	if rs.stored() {
		if err := rs.removeFolder(r.name); err != nil {
			return err
		}
	}
	old, overlay, base := r.state, r.overlay, r.base
	r.state, r.overlay, r.base, r.bad = rootState{}, nil, nil, nil
	old.Overlay = "" // went with the folder
	rs.discard(r, old, overlay, base)
	return nil
}

// removeFolder removes a root's folder at once, as far as a crash can see.
func (rs *Roots) removeFolder(name string) error {
	dir := rs.rootDir(name)
	doomed := filepath.Join(filepath.Dir(dir), deletedPrefix+name)
	if err := rs.disk.removeAll(doomed); err != nil {
		return err
	}
	err := rs.disk.rename(dir, doomed)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = rs.disk.syncDir(filepath.Dir(dir))
	}
	if err != nil {
		return err
	}
	if err := rs.disk.removeAll(doomed); err != nil {
		rs.logger().Warn("nbd: folder of a deleted root is left behind", "root", name, "err", err)
	}
	return nil
}

// command does something to a root that its machine must not be in the way
// of, unless may, which can be nil, says no before anybody is harmed. newest
// is at least every token minted so far.
func (rs *Roots) command(ctx context.Context, name, verb string, may func(r *root) error, do func(r *root, newest int64) error) error {
	if err := rs.load(); err != nil {
		return err
	}
	r, err := rs.get(ctx, name, false)
	if err != nil {
		return err
	}
	if may != nil {
		if err := may(r); err != nil {
			rs.put(r)
			return err
		}
	}
	cut := rs.fence(r, fmt.Errorf("nbd: root %s was %s: %w", name, verb, ErrFenced))
	defer cut.disconnect()
	defer rs.put(r)
	r.minted = max(r.minted, r.state.opened(), rs.now().UnixMilli())
	rs.dropPending(r)
	if err := do(r, r.minted); err != nil {
		return err
	}
	rs.tell(name, verb)
	return nil
}

// tell lets the log and the Trace know of a command that was done.
func (rs *Roots) tell(name, verb string) {
	rs.logger().Info("nbd: root "+verb, "root", name)
	if t := rs.Trace; t != nil && t.Changed != nil {
		t.Changed(name, verb)
	}
}

// Close cuts all connections to roots, flushes the overlays and lets go of
// files and images; Images stays open. With Dir set, everything is there again
// for the next Roots on it. Later calls fail with [fs.ErrClosed].
func (rs *Roots) Close() error {
	rs.loadMu.Lock()
	defer rs.loadMu.Unlock()
	if rs.closed {
		return nil
	}
	rs.closed = true
	rs.mu.Lock()
	roots := rs.roots
	rs.roots = nil
	rs.mu.Unlock()
	var errs []error
	for _, r := range roots {
		_ = r.lock(context.Background())
		r.gone = true
		cut := rs.fence(r, fmt.Errorf("nbd: root %s: the server stops: %w", r.name, fs.ErrClosed))
		if r.overlay != nil {
			errs = append(errs, rs.closeOverlay(r.overlay))
			r.overlay = nil
		}
		if r.base != nil {
			r.base.release()
			r.base = nil
		}
		<-r.sem
		cut.disconnect()
	}
	if rs.lock != nil {
		errs = append(errs, rs.lock.Close())
	}
	return errors.Join(errs...)
}

// sweepDeleted finishes deletions that a crash cut short.
func (rs *Roots) sweepDeleted() error {
	dir := filepath.Join(rs.Dir, "roots")
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), deletedPrefix) {
			err = errors.Join(err, rs.disk.removeAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

var (
	_ Handler = (*Roots)(nil)
	_ Lister  = (*Roots)(nil)
)
