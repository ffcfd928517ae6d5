package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Create makes a kept root over an image before its machine has ever booted,
// so that it can be prepared: n is IMAGE@ROOT, for the newest generation, or
// IMAGE~GENERATION@ROOT. Errors: [fs.ErrExist] when there is such a root;
// [fs.ErrInvalid] for a name with a token or without a root; what Boot returns.
func (rs *Roots) Create(ctx context.Context, n Name) error {
	if err := n.Valid(); err != nil {
		return err
	}
	if n.Root == "" || n.Boot != "" {
		return nameError(n.String(), "a root is made by IMAGE@ROOT or IMAGE~GENERATION@ROOT")
	}
	if err := rs.load(); err != nil {
		return err
	}
	base, err := rs.generation(ctx, n.Image, n.Generation)
	if err != nil {
		return err
	}
	r, err := rs.getNew(ctx, n.Root)
	if err != nil {
		base.release()
		return err
	}
	defer rs.put(r)
	if err := rs.takeFresh(r, rs.newState(r, n.Image), base); err != nil {
		return err
	}
	rs.rest(r)
	rs.tell(n.Root, "created")
	return nil
}

// generation returns a generation of an image, or "" the newest, with a reference.
func (rs *Roots) generation(ctx context.Context, image, generation string) (*imageFile, error) {
	if generation == "" {
		return rs.Images.current(ctx, image)
	}
	return rs.acquireBase(ctx, image, generation)
}

// newState is that of a kept root that begins now. Tokens that were given out
// for its name before open nothing any more.
func (rs *Roots) newState(r *root, image string) rootState {
	rs.dropPending(r)
	now := rs.now().UTC()
	return rootState{
		Image: image, Kind: Kept, Opened: formatSeq(rs.nextSeq(r)),
		Created: now, OpenedAt: now, UsedAt: now,
	}
}

// getNew returns a root that does not exist yet, locked. The caller must call put.
func (rs *Roots) getNew(ctx context.Context, name string) (*root, error) {
	r, err := rs.get(ctx, name, true)
	if err != nil {
		return nil, err
	}
	if r.state.Image != "" || r.bad != nil {
		rs.put(r)
		return nil, errRootExists(name)
	}
	return r, nil
}

func errRootExists(name string) error {
	return fmt.Errorf("nbd: there is a root %q already: delete or rename it first: %w", name, fs.ErrExist)
}

// getPair locks a root and one that does not exist yet, in the order of their
// names, so that two who do this cannot wait for each other.
func (rs *Roots) getPair(ctx context.Context, from, to string) (src, dst *root, err error) {
	if n := (Name{Image: "image", Root: to}); to == "" || n.Valid() != nil {
		return nil, nil, nameError(to, "a root's name is letters, digits, '-' and '_', and begins with a letter or a digit")
	}
	if from == to {
		return nil, nil, errRootExists(to)
	}
	if err := rs.load(); err != nil {
		return nil, nil, err
	}
	if from < to {
		src, err = rs.get(ctx, from, false)
	}
	if err == nil {
		dst, err = rs.getNew(ctx, to)
	}
	if err == nil && src == nil {
		src, err = rs.get(ctx, from, false)
	}
	if err == nil && src.bad != nil {
		err = src.bad
	}
	if err == nil && src.state.Image == "" {
		err = fmt.Errorf("nbd: no root %q: boot its machine once: %w", from, fs.ErrNotExist)
	}
	if err != nil {
		for _, r := range []*root{src, dst} {
			if r != nil {
				rs.put(r)
			}
		}
		return nil, nil, err
	}
	return src, dst, nil
}

// Clone makes a kept root, to, that holds what the root from holds now, at
// once, however much that is: what from has written becomes a layer, frozen,
// that both are over from then on, each with an empty overlay of its own. A
// machine that has from open goes on and notices nothing; the clone is what
// its disk would be after a loss of power at this moment, so shut the machine
// down, or flush and freeze its file systems, for a clean one.
//
// Its costs: a layer more for both to read through, where from has written
// since its last clone (Quota counts the overlay on top only); the layer's
// space, until the last root over it is deleted, reset or has begun afresh;
// and, for Dir, a file system with hard links. More than 16 layers are refused
// with [syscall.ENOSPC]: [Roots.Commit] the root to an image, and clone or
// boot from that.
//
// Errors beside that: [fs.ErrNotExist] when from does not exist or is empty
// after a reset, [fs.ErrExist] when to does.
func (rs *Roots) Clone(ctx context.Context, from, to string) error {
	src, dst, err := rs.getPair(ctx, from, to)
	if err != nil {
		return err
	}
	defer rs.put(src)
	defer rs.put(dst)
	if src.state.Overlay == "" {
		return fmt.Errorf("nbd: root %s is empty: boot its machine once: %w", from, fs.ErrNotExist)
	}
	if err := rs.ensureOverlay(ctx, src); err != nil {
		return err
	}
	if src.holder == nil || len(src.holder.devices) == 0 {
		defer rs.rest(src)
	}
	if err := rs.freeze(src); err != nil {
		return err
	}
	state := rs.newState(dst, src.state.Image)
	state.Generation, state.Overlay, state.Layers = src.state.Generation, state.Opened, slices.Clone(src.state.Layers)
	overlay, err := rs.newOverlay(dst, state, src.base)
	if err != nil {
		return err
	}
	if err := rs.pin(src.base); err != nil {
		rs.warnUnpinned(dst, state, err)
	}
	rs.refLayers(state.Layers)
	if err := rs.save(dst, state); err != nil {
		rs.unpin(state.Generation)
		return errors.Join(err, rs.closeOverlay(overlay))
	}
	dst.overlay, dst.base = overlay, src.base.retain()
	rs.rest(dst)
	rs.tell(to, "cloned")
	return nil
}
