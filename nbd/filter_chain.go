package nbd

import (
	"context"
	"fmt"
	"io/fs"
)

// Filtered is a [Handler] whose devices are those of h, each behind the
// filters: the first filter is next to the device, the last one next to the
// client. It lists what h lists.
func Filtered(h Handler, filters ...Filter) Handler {
	return decorated{h, func(ctx context.Context, r *Request) (Device, error) {
		dev, err := h.OpenNBD(ctx, r)
		if err != nil || dev == nil {
			return nil, err
		}
		for _, f := range filters {
			dev = f(dev)
		}
		return dev, nil
	}}
}

// decorated is a handler in front of another one, which lists.
type decorated struct {
	Handler
	open HandlerFunc
}

func (d decorated) OpenNBD(ctx context.Context, r *Request) (Device, error) { return d.open(ctx, r) }

func (d decorated) ListNBD(ctx context.Context, r *Request) ([]ExportInfo, error) {
	return listOf(ctx, d.Handler, r)
}

// listOf asks h for its list, or refuses it as a server does of a handler that
// has none.
func listOf(ctx context.Context, h Handler, r *Request) ([]ExportInfo, error) {
	if l, ok := h.(Lister); ok {
		return l.ListNBD(ctx, r)
	}
	return nil, fmt.Errorf("nbd: the exports are not listed: %w", fs.ErrPermission)
}

// ReadOnly is a [Filter] that lets nothing be written: its devices have no
// Write, Trim and Zero, and answer writes with [fs.ErrPermission]. What others
// write to the device is still seen, so MultiConn is as the device says.
func ReadOnly(dev Device) Device { return &readOnly{Pass{dev}} }

type readOnly struct{ Pass }

func (d *readOnly) Features() Features {
	f := d.Pass.Features()
	f.Write, f.Trim, f.Zero, f.FastZero = false, false, false, false
	return f
}

var errReadOnly = fmt.Errorf("nbd: the device is read-only: %w", fs.ErrPermission)

func (d *readOnly) WriteAt([]byte, int64) (int, error) { return 0, errReadOnly }
func (d *readOnly) Trim(int64, int64) error            { return errReadOnly }
func (d *readOnly) Zero(int64, int64, ZeroFlags) error { return errReadOnly }
