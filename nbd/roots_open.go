package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// OpenNBD implements [Handler]; the type's documentation says who gets what.
// Errors: [fs.ErrNotExist] for a name that is no root and no image, a root
// that does not exist and a generation that is gone; [fs.ErrPermission] for a
// token that is older than the newest one opened (it wraps [ErrFenced] too),
// that is not ours, or for a root that somebody else has open.
func (rs *Roots) OpenNBD(ctx context.Context, req *Request) (Device, error) {
	n, err := ParseName(req.Export)
	if err != nil {
		return nil, fmt.Errorf("nbd: %q is no image and no root: %w", req.Export, fs.ErrNotExist)
	}
	if err := rs.load(); err != nil {
		return nil, err
	}
	switch {
	case n.Root == "":
		return rs.Images.OpenNBD(ctx, req)
	case n.Boot == "":
		return rs.openAsIs(ctx, n, req)
	default:
		return rs.openBoot(ctx, n, req)
	}
}

func (rs *Roots) openBoot(ctx context.Context, n Name, req *Request) (Device, error) {
	seq, kind, ok := checkToken(rs.secret, n)
	if !ok {
		return nil, fmt.Errorf("nbd: root %s: the boot token is not from this server, or from before it lost its memory: boot the machine again: %w", n.Root, fs.ErrPermission)
	}
	r, err := rs.get(ctx, n.Root, true)
	if err != nil {
		return nil, err
	}
	var cut cutOff
	// After put: a connection that ends comes back here to close its device.
	defer func() { cut.disconnect() }()
	defer rs.put(r)
	if err := rs.admit(r, n, seq, kind); err != nil {
		return nil, err
	}
	same := r.state.Image != "" && seq == r.state.opened()
	if req.Purpose != PurposeGo {
		return rs.look(ctx, n.Image, n.Generation)
	}
	if same {
		err = rs.resume(ctx, r, n)
	} else {
		cut, err = rs.take(ctx, r, n, seq, kind)
	}
	if err != nil {
		return nil, err
	}
	d := rs.attach(r, req)
	if t := rs.Trace; t != nil && t.Opened != nil {
		t.Opened(n, req.Client, !same, !same && r.state.Overlay == r.state.Opened)
	}
	return d, nil
}

// admit refuses tokens that may not open the root.
func (rs *Roots) admit(r *root, n Name, seq int64, kind Kind) error {
	if r.bad != nil {
		return r.bad
	}
	s := &r.state
	if s.Image == "" {
		rs.mu.Lock()
		floor := rs.floor
		rs.mu.Unlock()
		if seq <= floor && (r.pending == nil || r.pending.seq != seq) {
			return refuse(n, errors.New("the root was deleted"))
		}
		return nil
	}
	switch opened := s.opened(); {
	case seq < opened:
		return refuse(n, ErrFenced)
	case seq == opened && s.Overlay == "":
		return refuse(n, ErrFenced) // reset
	case seq == opened && s.lost():
		return refuse(n, errLost)
	case seq == opened && (n.Image != s.Image || !strings.HasPrefix(s.Generation, n.Generation)):
		return refuse(n, errors.New("the token belongs to another generation"))
	case seq > opened && s.kept():
		if err := s.conflict(n.Root, n.Image, kind); err != nil {
			return err
		}
		if !strings.HasPrefix(s.Generation, n.Generation) {
			return refuse(n, errors.New("the root stays on generation "+s.Generation[:GenerationDigits]))
		}
	}
	return nil
}

var errLost = errors.New("what it had written and not flushed was lost with the host")

func refuse(n Name, why error) error {
	return fmt.Errorf("nbd: root %s, boot %s: %w: boot the machine again: %w", n.Root, n.Boot, why, fs.ErrPermission)
}

// look makes a device that has the size and the features of the root and
// nothing in it.
func (rs *Roots) look(ctx context.Context, image, generation string) (Device, error) {
	base, err := rs.acquireBase(ctx, image, generation)
	if err != nil {
		return nil, err
	}
	defer base.release()
	return rootInfo(base.paddedSize()), nil
}

// take gives the root to a newer boot. It returns the connections to cut, also
// with an error.
func (rs *Roots) take(ctx context.Context, r *root, n Name, seq int64, kind Kind) (cut cutOff, err error) {
	kept := r.state.kept()
	generation := n.Generation
	if kept {
		generation = r.state.Generation
	}
	base, err := rs.acquireBase(ctx, n.Image, generation)
	if err != nil {
		return cut, err // before anybody was harmed
	}
	state := r.state
	state.UsedAt = time.Time{}
	state.Image, state.Kind, state.Opened, state.OpenedAt = n.Image, kind, formatSeq(seq), rs.now().UTC()
	if state.Created.IsZero() {
		state.Created = state.OpenedAt
	}
	// What can fail, as on a full disk, comes before the older boot is fenced.
	var next freshRoot
	if kept {
		err = rs.prepareKept(ctx, r, state, base)
	} else {
		next, err = rs.prepareFresh(r, state, base)
	}
	if err != nil {
		return cut, err
	}
	cut = rs.fence(r, fmt.Errorf("nbd: root %s: boot %s opened it: %w", r.name, n.Boot, ErrFenced))
	if kept {
		err = rs.adoptKept(ctx, r, state, base)
	} else {
		err = rs.adoptFresh(r, next)
	}
	if err != nil {
		return cut, err
	}
	r.minted = max(r.minted, seq)
	if r.pending != nil && r.pending.seq <= seq {
		rs.dropPending(r)
	}
	r.holder = newHolder(n.Boot)
	return cut, nil
}

// prepareKept sees to it that the overlay that is there is open, and that state
// can be saved. It releases base when it fails, and leaves all as it was.
func (rs *Roots) prepareKept(ctx context.Context, r *root, state rootState, base *imageFile) error {
	closed := r.overlay == nil
	err := error(nil)
	if closed {
		if r.base != nil {
			r.base.release()
		}
		r.base = base.retain()
		err = rs.ensureOverlay(ctx, r)
	}
	if err == nil {
		err = rs.prepare(r, state)
	}
	if err != nil {
		base.release()
		if closed {
			rs.rest(r)
		}
	}
	return err
}

// adoptKept goes on with the overlay. One whose disk or base had failed is
// opened anew: in memory it stays over the base it has. It takes base's
// reference over.
func (rs *Roots) adoptKept(ctx context.Context, r *root, state rootState, base *imageFile) error {
	if rs.stored() && (r.overlay.Sync() != nil || r.base.broken.Load()) {
		rs.rest(r)
	}
	err := rs.adopt(r, state)
	if err != nil || r.overlay != nil {
		base.release()
		return err
	}
	r.base.release()
	r.base = base
	if err := rs.openOverlay(ctx, r); err != nil {
		return err
	}
	// Who lost writes is fenced off.
	return r.overlay.store.(*fileStore).settle()
}

// freshRoot is an empty overlay on its way into a root: whole on disk before
// root.json names it.
type freshRoot struct {
	state   rootState
	overlay *Overlay
	base    *imageFile // with a reference
}

// prepareFresh makes an empty overlay. It takes base's reference over, and
// changes nothing that counts.
func (rs *Roots) prepareFresh(r *root, state rootState, base *imageFile) (freshRoot, error) {
	state.Generation, state.Overlay, state.Layers = base.digest, state.Opened, nil
	overlay, err := rs.newOverlay(r, state, base)
	if err != nil {
		base.release()
		rs.removeOverlay(r, state.Overlay)
		return freshRoot{}, err
	}
	if err := rs.pin(base); err != nil {
		rs.warnUnpinned(r, state, err)
	}
	next := freshRoot{state, overlay, base}
	if err := rs.prepare(r, state); err != nil {
		return freshRoot{}, errors.Join(err, rs.dropFresh(r, next))
	}
	return next, nil
}

// dropFresh takes prepareFresh back.
func (rs *Roots) dropFresh(r *root, next freshRoot) error {
	err := rs.closeOverlay(next.overlay)
	rs.removeOverlay(r, next.state.Overlay)
	rs.unpin(next.base.digest)
	next.base.release()
	return err
}

// adoptFresh puts the empty overlay in the old one's place, which goes.
func (rs *Roots) adoptFresh(r *root, next freshRoot) error {
	old, oldOverlay, oldBase := r.state, r.overlay, r.base
	if err := rs.adopt(r, next.state); err != nil {
		// root.json may name it already: the next load removes the other one.
		err = errors.Join(err, rs.closeOverlay(next.overlay))
		next.base.release()
		return err
	}
	r.overlay, r.base = next.overlay, next.base
	rs.discard(r, old, oldOverlay, oldBase)
	return nil
}

// takeFresh does both, for a root that nobody has open.
func (rs *Roots) takeFresh(r *root, state rootState, base *imageFile) error {
	next, err := rs.prepareFresh(r, state, base)
	if err != nil {
		return err
	}
	return rs.adoptFresh(r, next)
}

func (rs *Roots) warnUnpinned(r *root, state rootState, err error) {
	if state.Kind != Kept {
		rs.logger().Debug("nbd: image cannot be linked", "root", r.name, "err", err)
		return
	}
	rs.logger().Warn("nbd: image cannot be linked into the directory of the roots: when its file is replaced and the server restarts, "+
		"this kept root is refused until that generation is published again. Put images and roots on one file system, both owned by the server's user",
		"root", r.name, "image", state.Image, "generation", state.Generation[:GenerationDigits], "err", err)
}

// discard gives back what an older state of the root used.
func (rs *Roots) discard(r *root, old rootState, overlay *Overlay, base *imageFile) {
	if overlay != nil {
		if err := rs.closeOverlay(overlay); err != nil {
			rs.logger().Debug("nbd: closing a discarded overlay", "root", r.name, "err", err)
		}
	}
	if base != nil {
		base.release()
	}
	rs.removeOverlay(r, old.Overlay)
	rs.unrefLayers(old.Layers)
	rs.unpin(old.Generation)
}

func (rs *Roots) removeOverlay(r *root, name string) {
	if !rs.stored() || name == "" {
		return
	}
	if err := rs.disk.removeAll(filepath.Join(rs.rootDir(r.name), name)); err != nil {
		rs.logger().Warn("nbd: overlay is left behind", "root", r.name, "err", err)
	}
}

// resume goes on with the boot that has the root.
func (rs *Roots) resume(ctx context.Context, r *root, n Name) error {
	if h := r.holder; h != nil && h.token != n.Boot && len(h.devices) > 0 {
		return fmt.Errorf("nbd: root %s is open for maintenance: close it there first: %w: %w", r.name, syscall.EBUSY, fs.ErrPermission)
	}
	err := rs.hold(ctx, r, n.Boot)
	if err == nil && r.state.lost() {
		rs.rest(r)
		err = refuse(n, errLost)
	}
	return err
}

// hold makes token the holder of a root that nobody else has open.
func (rs *Roots) hold(ctx context.Context, r *root, token string) error {
	if err := rs.ensureOverlay(ctx, r); err != nil {
		return err
	}
	if !r.state.UsedAt.IsZero() {
		rs.setUsed(r, time.Time{})
	}
	if r.holder == nil || r.holder.token != token {
		r.holder = newHolder(token)
	}
	return nil
}

// openAsIs opens a root without a token.
func (rs *Roots) openAsIs(ctx context.Context, n Name, req *Request) (Device, error) {
	r, err := rs.get(ctx, n.Root, false)
	if err != nil {
		return nil, err
	}
	defer rs.put(r)
	s := &r.state
	switch {
	case r.bad != nil:
		return nil, r.bad
	case s.Overlay == "":
		return nil, fmt.Errorf("nbd: root %s is empty: boot its machine once: %w", n.Root, fs.ErrNotExist)
	case n.Image != s.Image || !strings.HasPrefix(s.Generation, n.Generation):
		return nil, fmt.Errorf("nbd: root %s is over image %s, generation %s: %w", n.Root, s.Image, s.Generation[:GenerationDigits], fs.ErrNotExist)
	case req.Purpose != PurposeGo:
		return rs.look(ctx, s.Image, s.Generation)
	}
	if h := r.holder; h != nil {
		for d := range h.devices {
			if h.token != "" || d.client.Addr() != req.Client.Addr() {
				return nil, fmt.Errorf("nbd: root %s is open by %s: shut that machine down first: %w: %w", n.Root, d.who(), syscall.EBUSY, fs.ErrPermission)
			}
		}
	}
	if err := rs.hold(ctx, r, ""); err != nil {
		return nil, err
	}
	d := rs.attach(r, req)
	if t := rs.Trace; t != nil && t.Opened != nil {
		t.Opened(n, req.Client, false, false)
	}
	return d, nil
}

// ensureOverlay opens the root's overlay when it is not open. When writes to it
// were lost, the boot that made them is refused from then on.
func (rs *Roots) ensureOverlay(ctx context.Context, r *root) error {
	err := rs.openOverlay(ctx, r)
	if err != nil || !r.overlay.Lost() {
		return err
	}
	rs.logger().Warn("nbd: the host ended before all that was written to a root was flushed: its machine is refused until it boots anew, with what was flushed",
		"root", r.name, "boot", r.state.Opened)
	state := r.state
	state.Lost = state.Opened
	if err = rs.save(r, state); err == nil {
		err = r.overlay.store.(*fileStore).settle()
	}
	if err != nil {
		err = errors.Join(err, rs.closeOverlay(r.overlay))
		r.overlay = nil
	}
	return err
}

// settle closes a root's overlay and takes up what a server that was killed left
// in it, so that what was lost counts as that of the boot that had it, and not of
// the next one.
func (rs *Roots) settle(ctx context.Context, r *root) error {
	rs.rest(r)
	if !rs.stored() || r.overlay != nil || r.state.Overlay == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(rs.overlayDir(r), overlayLiveName)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := rs.ensureOverlay(ctx, r)
	rs.rest(r)
	return err
}

// settleAnyway is for what must not fail for want of the base: the next boot may
// be refused once then.
func (rs *Roots) settleAnyway(ctx context.Context, r *root) {
	if err := rs.settle(ctx, r); err != nil {
		rs.logger().Warn("nbd: what a root's machine wrote last cannot be looked at", "root", r.name, "err", err)
	}
}

// openOverlay opens the root's overlay when it is not open.
func (rs *Roots) openOverlay(ctx context.Context, r *root) (err error) {
	s := &r.state
	if r.base == nil {
		r.base, err = rs.acquireBase(ctx, s.Image, s.Generation)
	} else {
		err = rs.Images.check(ctx, s.Image, r.base)
	}
	if err != nil || r.overlay != nil {
		return err
	}
	dir := rs.overlayDir(r)
	// OpenOverlay would make a new one.
	if _, err := os.Stat(filepath.Join(dir, overlayMapName)); err != nil {
		return fmt.Errorf("nbd: root %s has lost its overlay, restore it or reset the root: %w", r.name, err)
	}
	r.overlay, err = rs.openOver(dir, r.base, s.Layers)
	return err
}

func (rs *Roots) newOverlay(r *root, state rootState, base *imageFile) (*Overlay, error) {
	var err error
	dir := ""
	if rs.stored() {
		dir = rs.rootDir(r.name)
		err = rs.disk.mkdir(dir, 0o700)
		if err == nil {
			err = rs.disk.syncDir(filepath.Dir(dir))
		} else if errors.Is(err, fs.ErrExist) {
			err = nil
		}
		if err == nil {
			// A former attempt may have stopped half-way.
			err = rs.disk.removeAll(filepath.Join(dir, state.Overlay))
		}
		dir = filepath.Join(dir, state.Overlay)
	}
	var o *Overlay
	if err == nil {
		o, err = rs.openOver(dir, base, state.Layers)
	}
	if err != nil {
		return nil, fmt.Errorf("nbd: root %s: %w", r.name, err)
	}
	return o, nil
}

func (rs *Roots) quota() int64 {
	if rs.stored() {
		return limit(rs.Quota, 0, 0)
	}
	return limit(rs.Quota, 1<<30, 0)
}

// rest closes the files of an overlay that nobody has open: a server may have
// more roots than descriptors. In memory it stays.
func (rs *Roots) rest(r *root) {
	if !rs.stored() || r.overlay == nil {
		return
	}
	if err := r.overlay.Sync(); err != nil {
		// A machine that comes back must not find older blocks than it left:
		// this overlay stays open, read-only, until the next boot.
		rs.logger().Warn("nbd: root cannot be flushed: check the disk, then boot the machine again", "root", r.name, "err", err)
		if r.holder != nil {
			return
		}
	}
	if err := rs.closeOverlay(r.overlay); err != nil {
		rs.logger().Debug("nbd: closing an overlay", "root", r.name, "err", err)
	}
	r.overlay = nil
}
