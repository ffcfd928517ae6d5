package nbd

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"sync"
	"sync/atomic"
)

// rootHolder is who has a root: one boot, or, without a token, maintenance.
type rootHolder struct {
	token   string
	devices map[*rootDevice]struct{} // guarded by root.sem

	fenced atomic.Pointer[error]
	// ops is held shared by each operation; fencing passes through it
	// exclusively, and so waits for those in flight.
	ops sync.RWMutex
}

func newHolder(token string) *rootHolder {
	return &rootHolder{token: token, devices: make(map[*rootDevice]struct{})}
}

// cutOff is what is left to do after a holder was fenced, without any lock.
type cutOff struct {
	cause   error
	devices []*rootDevice
}

func (f cutOff) disconnect() {
	for _, d := range f.devices {
		if d.cut != nil {
			d.cut(f.cause)
		}
	}
}

// fence ends the holder's rights: when it returns, nothing of it is in flight
// and nothing more is let through.
func (rs *Roots) fence(r *root, cause error) cutOff {
	h := r.holder
	if h == nil {
		return cutOff{}
	}
	r.used = rs.now()
	h.fenced.Store(&cause)
	h.ops.Lock()
	//lint:ignore SA2001 empty on purpose: the wait is all
	h.ops.Unlock()
	r.holder = nil
	f := cutOff{cause: cause}
	for d := range h.devices {
		f.devices = append(f.devices, d)
	}
	if len(f.devices) > 0 {
		rs.logger().Info("nbd: boot fenced off", "root", r.name, "connections", len(f.devices), "cause", cause)
		if t := rs.Trace; t != nil && t.Fenced != nil {
			t.Fenced(r.name, len(f.devices), cause)
		}
	}
	return f
}

// rootDevice is one connection to a root.
type rootDevice struct {
	rs      *Roots
	root    *root
	holder  *rootHolder
	size    int64
	overlay *Overlay // changes under holder.ops
	client  netip.AddrPort
	cut     func(cause error)
	closed  sync.Once
}

// attach opens a device for the root's holder.
func (rs *Roots) attach(r *root, req *Request) *rootDevice {
	d := &rootDevice{rs: rs, root: r, holder: r.holder, size: r.overlay.Size(), overlay: r.overlay, client: req.Client, cut: req.Disconnect}
	r.holder.devices[d] = struct{}{}
	rs.logger().Debug("nbd: root opened", "root", r.name, "client", d.who(), "connections", len(r.holder.devices))
	return d
}

func (d *rootDevice) who() string {
	if d.client.IsValid() {
		return d.client.String()
	}
	return "a local client"
}

func (d *rootDevice) Size() int64        { return d.size }
func (d *rootDevice) Features() Features { return overlayFeatures(0) }

// enter begins an operation; the caller unlocks holder.ops in any case.
func (d *rootDevice) enter() error {
	d.holder.ops.RLock()
	if cause := d.holder.fenced.Load(); cause != nil {
		return *cause
	}
	return nil
}

func (d *rootDevice) ReadAt(p []byte, off int64) (int, error) {
	defer d.holder.ops.RUnlock()
	if err := d.enter(); err != nil {
		return 0, err
	}
	return d.overlay.ReadAt(p, off)
}

func (d *rootDevice) WriteAt(p []byte, off int64) (int, error) {
	defer d.holder.ops.RUnlock()
	if err := d.enter(); err != nil {
		return 0, err
	}
	return d.overlay.WriteAt(p, off)
}

func (d *rootDevice) Sync() error {
	defer d.holder.ops.RUnlock()
	if err := d.enter(); err != nil {
		return err
	}
	return d.overlay.Sync()
}

// Trim implements [Trimmer].
func (d *rootDevice) Trim(off, n int64) error {
	defer d.holder.ops.RUnlock()
	if err := d.enter(); err != nil {
		return err
	}
	return d.overlay.Trim(off, n)
}

// Zero implements [Zeroer].
func (d *rootDevice) Zero(off, n int64, flags ZeroFlags) error {
	defer d.holder.ops.RUnlock()
	if err := d.enter(); err != nil {
		return err
	}
	return d.overlay.Zero(off, n, flags)
}

// Extents implements [Extenter].
func (d *rootDevice) Extents(off, n int64, dst []Extent) (int, error) {
	defer d.holder.ops.RUnlock()
	if err := d.enter(); err != nil {
		return 0, err
	}
	return d.overlay.Extents(off, n, dst)
}

// Map implements [Mapper].
func (d *rootDevice) Map(off, n int64, dst []Segment) ([]Segment, error) {
	defer d.holder.ops.RUnlock()
	if err := d.enter(); err != nil {
		return dst, err
	}
	return d.overlay.Map(off, n, dst)
}

// Close ends the connection's part in the root. The root stays with its boot,
// which may reconnect.
func (d *rootDevice) Close() error {
	d.closed.Do(func() {
		r := d.root
		_ = r.lock(context.Background()) // never fails: it cannot be cancelled
		defer d.rs.put(r)
		delete(d.holder.devices, d)
		if r.holder == d.holder && len(d.holder.devices) == 0 {
			d.rs.setUsed(r, d.rs.now().UTC())
			d.rs.rest(r)
		}
	})
	return nil
}

// rootInfo answers for a root that is only looked at: its value is the size.
type rootInfo int64

func (i rootInfo) Size() int64                        { return int64(i) }
func (i rootInfo) Features() Features                 { return overlayFeatures(0) }
func (i rootInfo) ReadAt([]byte, int64) (int, error)  { return 0, errRootInfo }
func (i rootInfo) WriteAt([]byte, int64) (int, error) { return 0, errRootInfo }
func (i rootInfo) Sync() error                        { return errRootInfo }
func (i rootInfo) Trim(int64, int64) error            { return errRootInfo }
func (i rootInfo) Zero(int64, int64, ZeroFlags) error { return errRootInfo }
func (i rootInfo) Extents(int64, int64, []Extent) (int, error) {
	return 0, errRootInfo
}
func (i rootInfo) Map(_, _ int64, dst []Segment) ([]Segment, error) { return dst, errRootInfo }

var errRootInfo = fmt.Errorf("nbd: the root was only looked at: %w", fs.ErrPermission)
