package nbdattach

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-3ec230fa/diskless/nbd"
)

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	dialTimeout  = 20 * time.Second // connecting and the handshake
	// tick is how often the keeper looks whether the device is still attached.
	tick = 5 * time.Second
)

// lost notes that a connection of a device died; -1 stands for any device and
// any number.
func (d *Device) lost(index int) {
	d.mu.Lock()
	switch {
	case index < 0, d.attrs.index < 0: // or it is not known yet which one is ours
		d.dead = -1
	case index == d.attrs.index && d.dead >= 0:
		d.dead++
	}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// keep replaces connections that die. It ends with d.cancel, or with the
// device.
func (d *Device) keep(stop func()) {
	defer close(d.done)
	defer stop()
	defer d.cancel()
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.wake:
			d.err = d.replace()
		case <-t.C:
			// A device that somebody detaches says nothing of it.
			if is, err := d.kernel.attached(d.index()); err == nil && !is {
				d.err = ErrDetached
			}
		}
		if d.err != nil {
			d.s.Logger.Error("nbdattach: the device is lost", "device", d.Path(), "export", d.s.Export, "err", d.err)
			return
		}
	}
}

// replace gives the kernel a new connection for each that is dead. Its error
// is what ended the device.
func (d *Device) replace() error {
	pause := firstPause
	var refused time.Time // since when, without anything else in between
	for d.anyDead() {
		err := d.replaceOne()
		switch {
		case err == nil:
			d.replaced(1)
			pause, refused = firstPause, time.Time{}
			d.s.Logger.Info("nbdattach: a connection is replaced", "device", d.Path(), "export", d.s.Export)
			continue
		case d.ctx.Err() != nil:
			return nil
		case errors.Is(err, errNoDead):
			d.replaced(-1)
			continue
		case errors.Is(err, ErrDetached):
			return err
		case errors.Is(err, ErrChanged):
			// The blocks of two exports must not be mixed: what waits fails.
			return errors.Join(err, d.kernel.disconnect(d.index()))
		}
		if !errors.As(err, new(*refusal)) {
			refused = time.Time{}
		} else if refused.IsZero() {
			refused = time.Now()
		} else if time.Since(refused) >= d.s.RefusedFor {
			return errors.Join(fmt.Errorf("%w: %w", ErrRefused, err), d.kernel.disconnect(d.index()))
		}
		if pause == firstPause {
			d.s.Logger.Warn("nbdattach: a connection died, and there is no new one yet; requests wait",
				"device", d.Path(), "export", d.s.Export, "for", d.s.ReconnectFor, "err", err)
		}
		select {
		case <-d.ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
	return nil
}

func (d *Device) replaceOne() error {
	ctx, cancel := context.WithTimeout(d.ctx, dialTimeout)
	defer cancel()
	n, err := d.s.open(ctx)
	if err != nil {
		return err
	}
	defer n.Conn.Close()
	if err := d.same(n); err != nil {
		return err
	}
	return withSockets([]*nbd.Negotiated{n}, func(fds []uintptr) error {
		return d.kernel.reconfigure(d.timeouts(), fds)
	})
}

func (d *Device) anyDead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead != 0
}

// replaced takes n connections from those that are dead, -1 all.
func (d *Device) replaced(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case n < 0:
		d.dead = 0
	case d.dead > 0:
		d.dead -= n
	}
}
