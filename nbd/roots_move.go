package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Rename gives a root another name, and so to another machine: connections to
// it are fenced, tokens given out until now are refused under both names, and
// the next boot of the new name goes on with its data when it is kept.
// [fs.ErrNotExist] when there is no root from, [fs.ErrExist] when there is a
// root to.
func (rs *Roots) Rename(ctx context.Context, from, to string) error {
	src, dst, err := rs.getPair(ctx, from, to)
	if err != nil {
		return err
	}
	cut := rs.fence(src, fmt.Errorf("nbd: root %s was renamed to %s: %w", from, to, ErrFenced))
	defer cut.disconnect()
	defer rs.put(src)
	defer rs.put(dst)
	rs.dropPending(src)
	rs.dropPending(dst)
	newest := max(rs.nextSeq(src), rs.nextSeq(dst))
	// The old name is free now: a machine that comes back under it must not
	// find an empty root.
	if err := rs.raiseFloor(newest); err != nil {
		return err
	}
	rs.settleAnyway(ctx, src)
	state := src.state
	state.Opened, state.UsedAt = formatSeq(newest), rs.now().UTC()
	if err := rs.save(src, state); err != nil {
		return err
	}
	if rs.stored() {
		err := rs.removeFolder(to) // a first boot that failed may have left it
		if err == nil {
			err = rs.disk.rename(rs.rootDir(from), rs.rootDir(to))
		}
		if err == nil {
			err = rs.disk.syncDir(filepath.Dir(rs.rootDir(to)))
		}
		if err != nil {
			return fmt.Errorf("nbd: root %s: %w", from, err)
		}
	}
	dst.state, dst.base, dst.overlay, dst.minted = src.state, src.base, src.overlay, newest
	src.state, src.base, src.overlay = rootState{}, nil, nil
	rs.tell(to, "renamed")
	return nil
}

// notInUse refuses a command on a root that a machine has open.
func notInUse(r *root) error {
	if r.holder != nil {
		for d := range r.holder.devices {
			return fmt.Errorf("nbd: root %s is open by %s: shut that machine down first: %w: %w", r.name, d.who(), syscall.EBUSY, fs.ErrPermission)
		}
	}
	return nil
}

// notEmpty refuses a command on a root that holds nothing.
func notEmpty(r *root) error {
	switch {
	case r.bad != nil:
		return r.bad
	case r.state.Overlay == "":
		return fmt.Errorf("nbd: root %s is empty: boot its machine once: %w", r.name, fs.ErrNotExist)
	}
	return nil
}

// offline is what the commands for a root whose machine is off begin with.
func offline(r *root) error { return errors.Join(notEmpty(r), notInUse(r)) }

// Attach takes a root for maintenance while its machine is off, and returns
// the export name to open it with, any number of times and from anywhere: the
// data is as the machine left it, also of an ephemeral root. It is the newest
// boot of the root from now on: the machine's own token is refused, so that a
// machine that only seemed off cannot write beside. The next boot of the
// machine ends it in turn; nothing else needs to be given back.
//
// A root that somebody has open is refused with [syscall.EBUSY] and
// [fs.ErrPermission]; [Roots.Fence] it first when its machine is dead and its
// connection is not.
func (rs *Roots) Attach(ctx context.Context, name string) (Name, error) {
	var n Name
	err := rs.command(ctx, name, "attached", offline, func(r *root, _ int64) error {
		seq := rs.nextSeq(r)
		if err := rs.supersede(ctx, r, seq); err != nil {
			return err
		}
		n = Name{Image: r.state.Image, Generation: r.state.Generation[:GenerationDigits], Root: name}
		n.Boot = makeToken(rs.secret, n, r.state.Kind, seq)
		return nil
	})
	if err != nil {
		return Name{}, err
	}
	return n, nil
}

// supersede makes seq the newest token opened; the data stays.
func (rs *Roots) supersede(ctx context.Context, r *root, seq int64) error {
	rs.settleAnyway(ctx, r)
	state := r.state
	state.Opened, state.UsedAt = formatSeq(seq), rs.now().UTC()
	return rs.save(r, state)
}

// Fence takes a root from whoever has it open and refuses all tokens given out
// until now; its data stays. Its machine must boot again.
func (rs *Roots) Fence(ctx context.Context, name string) error {
	return rs.command(ctx, name, "fenced", notEmpty, func(r *root, _ int64) error {
		return rs.supersede(ctx, r, rs.nextSeq(r))
	})
}

// Rebase puts a root onto another generation of its image, "" is the newest.
// Blocks over one generation mean nothing over another, so only a root that
// nothing was written to since it began can be moved; others are refused with
// [fs.ErrPermission]: Commit or Reset them. The machine must be off, as for
// Attach, and its token is refused from then on.
func (rs *Roots) Rebase(ctx context.Context, name, generation string) error {
	if generation != "" && !validGeneration(generation) {
		return fmt.Errorf("nbd: a generation is %d to %d lower-case hexadecimal digits, not %q: %w", minGeneration, maxGeneration, generation, fs.ErrInvalid)
	}
	return rs.command(ctx, name, "rebased", func(r *root) error {
		if err := offline(r); err != nil {
			return err
		}
		clean, err := rs.clean(ctx, r)
		if err == nil && !clean {
			err = fmt.Errorf("nbd: root %s has data that belongs to generation %s: commit it to an image, or reset it: %w",
				name, r.state.Generation[:GenerationDigits], fs.ErrPermission)
		}
		return err
	}, func(r *root, _ int64) error {
		base, err := rs.generation(ctx, r.state.Image, generation)
		if err != nil {
			return err
		}
		return rs.begin(r, base)
	})
}

// begin puts an empty overlay over base in the place of the root's. It takes
// base's reference over.
func (rs *Roots) begin(r *root, base *imageFile) error {
	rs.rest(r)
	state := r.state
	state.Opened, state.UsedAt = formatSeq(rs.nextSeq(r)), rs.now().UTC()
	err := rs.takeFresh(r, state, base)
	if err == nil {
		rs.rest(r)
	}
	return err
}

// clean reports whether nothing was written to a root. Its base is not needed,
// unless a server was killed.
func (rs *Roots) clean(ctx context.Context, r *root) (bool, error) {
	switch {
	case len(r.state.Layers) > 0:
		return false, nil
	case r.overlay != nil:
		return r.overlay.store.clean(), nil
	}
	if err := rs.settle(ctx, r); err != nil {
		return false, err
	}
	text, err := os.ReadFile(filepath.Join(rs.overlayDir(r), overlayMapName))
	if err != nil {
		return false, err
	}
	return len(text) >= mapPageBytes && !slices.ContainsFunc(text[mapPageBytes:], func(b byte) bool { return b != 0 }), nil
}

// Commit publishes what a root holds as the newest generation of an image, as
// [Images.Publish] does, or, for an image that was registered outside the
// store, by a rename over its path; image may be one that does not exist yet
// when there is a store. The machine must be off, as for Attach: this reads
// the whole device.
//
// A root over that same image then goes on over the new generation, with an
// empty overlay and the same bytes; its older tokens are refused. One over
// another image stays as it is.
func (rs *Roots) Commit(ctx context.Context, name, image string) (Generation, error) {
	var gen Generation
	err := rs.command(ctx, name, "committed", offline, func(r *root, _ int64) error {
		if err := rs.ensureOverlay(ctx, r); err != nil {
			return err
		}
		defer rs.rest(r)
		var err error
		if gen, err = rs.Images.commit(ctx, image, r.overlay); err != nil || image != r.state.Image {
			return err
		}
		base, err := rs.acquireBase(ctx, image, gen.Digest)
		if err != nil {
			return err
		}
		return rs.begin(r, base)
	})
	return gen, err
}

// setUsed notes when a root was last used; the zero time is now.
func (rs *Roots) setUsed(r *root, at time.Time) {
	state := r.state
	state.UsedAt = at
	if err := rs.save(r, state); err != nil {
		rs.logger().Debug("nbd: last use of a root is not noted", "root", r.name, "err", err)
	}
}

// lastUse returns when a root that nobody has open was last used.
func (rs *Roots) lastUse(r *root) time.Time {
	last := r.state.UsedAt
	if last.IsZero() {
		last = rs.loadedAt // the server ended before the connection did
	}
	for _, t := range []time.Time{r.used, r.state.OpenedAt} {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// Expire deletes the roots of one kind that were not open for as long as
// unused, and for which no boot was rendered in that time, and returns their
// names. It stops at the first error. Call it now and then: Roots has no clock
// of its own that does.
func (rs *Roots) Expire(ctx context.Context, kind Kind, unused time.Duration) ([]string, error) {
	list, err := rs.List(ctx)
	if err != nil {
		return nil, err
	}
	var gone []string
	for _, info := range list {
		err := rs.command(ctx, info.Name, "expired", func(r *root) error {
			open := r.holder != nil && len(r.holder.devices) > 0
			waiting := r.pending != nil && rs.now().Sub(r.pending.at) < unused
			if r.bad != nil || r.state.Image == "" || r.state.Kind != kind || open || waiting || rs.now().Sub(rs.lastUse(r)) < unused {
				return errNotExpired
			}
			return nil
		}, rs.remove)
		switch {
		case err == nil:
			gone = append(gone, info.Name)
		case !errors.Is(err, errNotExpired) && !errors.Is(err, fs.ErrNotExist):
			return gone, err
		}
	}
	return gone, nil
}

var errNotExpired = errors.New("nbd: root is in use")
