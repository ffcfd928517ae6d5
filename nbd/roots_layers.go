package nbd

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

const (
	// maxLayers bounds what a read may have to pass through.
	maxLayers   = 16
	layerDigits = 16
)

// layer is an overlay that was frozen, because more than one root is over it.
// Roots.layerMu guards the counters.
type layer struct {
	id      string
	users   int // overlays open over it
	overlay *Overlay
	base    *imageFile // with a reference
}

func (rs *Roots) layerDir(id string) string { return filepath.Join(rs.Dir, "layers", id) }

// overlayID tells an overlay's base: an image, or a layer over one.
func overlayID(base *imageFile, layers []string) string {
	if n := len(layers); n > 0 {
		return base.digest + "+" + layers[n-1]
	}
	return base.digest
}

// openOver opens the overlay in dir, or makes one, over layers over base. dir
// is "" for memory, where the layers are open.
func (rs *Roots) openOver(dir string, base *imageFile, layers []string) (*Overlay, error) {
	rs.layerMu.Lock()
	defer rs.layerMu.Unlock()
	o, err := rs.openOverLocked(dir, base, layers)
	if err == nil {
		o.Quota = rs.quota()
	}
	return o, err
}

func (rs *Roots) openOverLocked(dir string, base *imageFile, layers []string) (*Overlay, error) {
	var dev Device = &imageDevice{imageFile: base}
	var below *layer
	if n := len(layers); n > 0 {
		var err error
		if below, err = rs.useLayer(base, layers); err != nil {
			return nil, err
		}
		dev = below.overlay
	}
	var o *Overlay
	var err error
	if dir == "" {
		o = NewOverlay(dev)
	} else if o, err = rs.disk.openOverlay(dev, dir, overlayID(base, layers)); err != nil {
		rs.dropLayer(below)
		return nil, err
	}
	o.layer = below
	return o, nil
}

// useLayer opens the topmost layer, or takes the one that is open.
func (rs *Roots) useLayer(base *imageFile, layers []string) (*layer, error) {
	id := layers[len(layers)-1]
	l := rs.layers[id]
	if l == nil {
		dir := rs.layerDir(id)
		// OpenOverlay would make a new one.
		if _, err := os.Stat(filepath.Join(dir, overlayMapName)); err != nil {
			return nil, fmt.Errorf("a layer below it is lost, restore it or reset the root: %w", err)
		}
		o, err := rs.openOverLocked(dir, base, layers[:len(layers)-1])
		if err != nil {
			return nil, err
		}
		l = &layer{id: id, overlay: o, base: base.retain()}
		rs.layers[id] = l
	}
	l.users++
	return l, nil
}

// dropLayer gives a layer back, and those below it that nobody else uses. In
// memory this is their end.
func (rs *Roots) dropLayer(l *layer) {
	for l != nil {
		if l.users--; l.users > 0 {
			return
		}
		delete(rs.layers, l.id)
		if err := l.overlay.Close(); err != nil {
			rs.logger().Debug("nbd: closing a layer", "layer", l.id, "err", err)
		}
		l.base.release()
		l = l.overlay.layer
	}
}

// closeOverlay closes a root's overlay and lets go of what is below it.
func (rs *Roots) closeOverlay(o *Overlay) error {
	err := o.Close()
	rs.layerMu.Lock()
	defer rs.layerMu.Unlock()
	rs.dropLayer(o.layer)
	return err
}

func (rs *Roots) refLayers(ids []string) {
	rs.layerMu.Lock()
	defer rs.layerMu.Unlock()
	for _, id := range ids {
		rs.layerRefs[id]++
	}
}

// unrefLayers removes the layers that no root is over any more.
func (rs *Roots) unrefLayers(ids []string) {
	rs.layerMu.Lock()
	defer rs.layerMu.Unlock()
	for _, id := range slices.Backward(ids) {
		if rs.layerRefs[id]--; rs.layerRefs[id] > 0 {
			continue
		}
		delete(rs.layerRefs, id)
		if !rs.stored() || rs.isBad() {
			continue
		}
		if err := rs.disk.removeAll(rs.layerDir(id)); err != nil {
			rs.logger().Warn("nbd: layer is left behind", "layer", id, "err", err)
		}
	}
}

func (rs *Roots) isBad() bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.bad
}

// sweepLayers removes layers that a crash left behind.
func (rs *Roots) sweepLayers() error {
	if rs.bad {
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(rs.Dir, "layers"))
	for _, e := range entries {
		if id := e.Name(); len(id) == layerDigits && validGeneration(id) && rs.layerRefs[id] == 0 {
			err = errors.Join(err, rs.disk.removeAll(rs.layerDir(id)))
		}
	}
	return err
}

func (rs *Roots) layerUsage(ids []string) (sum int64) {
	rs.layerMu.Lock()
	defer rs.layerMu.Unlock()
	for _, id := range ids {
		if l := rs.layers[id]; l != nil {
			sum += l.overlay.Usage()
		} else if used, err := overlayUsage(rs.layerDir(id)); err == nil {
			sum += used
		}
	}
	return sum
}

// freeze makes the root's overlay a layer and puts an empty one over it. Its
// machine, if there is one, goes on with that: nothing of it is in flight.
//
// On disk the layer's files are hard links to the overlay's until root.json
// names it. A crash before that leaves the overlay as it was, one after it
// the layer; what is not named goes when the roots are next loaded.
func (rs *Roots) freeze(r *root) error {
	if h := r.holder; h != nil {
		h.ops.Lock()
		defer h.ops.Unlock()
	}
	if r.overlay.store.clean() {
		return nil
	}
	if len(r.state.Layers) >= maxLayers {
		return fmt.Errorf("nbd: root %s is over %d layers of clones: commit it to an image and clone from that: %w", r.name, maxLayers, syscall.ENOSPC)
	}
	var random [layerDigits / 2]byte
	rand.Read(random[:])
	id := hex.EncodeToString(random[:])
	old, former := r.overlay, r.state
	if rs.stored() {
		if err := old.Sync(); err != nil {
			return err
		}
		if err := rs.linkLayer(rs.overlayDir(r), id); err != nil {
			return fmt.Errorf("nbd: root %s: its overlay cannot be linked: %w", r.name, errors.Join(err, rs.disk.removeAll(rs.layerDir(id))))
		}
	} else {
		rs.layerMu.Lock()
		rs.layers[id] = &layer{id: id, overlay: old, base: r.base.retain()}
		rs.layerMu.Unlock()
	}
	state := r.state
	state.Layers = append(slices.Clone(state.Layers), id)
	state.Overlay = formatSeq(rs.nextSeq(r))
	rs.refLayers([]string{id})
	overlay, err := rs.newOverlay(r, state, r.base)
	if err != nil {
		rs.unrefLayers([]string{id})
		return err
	}
	if err := rs.save(r, state); err != nil {
		// Nobody knows which root.json a crash would leave. Both are right as
		// long as the links are there, for they are the same files.
		return errors.Join(err, rs.closeOverlay(overlay))
	}
	r.overlay = overlay
	if r.holder != nil {
		for d := range r.holder.devices {
			d.overlay = overlay
		}
	}
	if rs.stored() {
		if err := errors.Join(rs.closeOverlay(old), rs.disk.removeAll(filepath.Join(rs.rootDir(r.name), former.Overlay))); err != nil {
			rs.logger().Warn("nbd: overlay is left behind", "root", r.name, "err", err)
		}
	}
	return nil
}

func (rs *Roots) linkLayer(from, id string) error {
	dir := rs.layerDir(id)
	if err := rs.disk.mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{overlayDataName, overlayMapName} {
		if err := rs.disk.link(filepath.Join(from, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := rs.disk.syncDir(dir); err != nil {
		return err
	}
	return rs.disk.syncDir(filepath.Dir(dir))
}
