package squash

import (
	"context"
	"fmt"
)

// reuse submits a block as the base has it; for a fragment block b is what else
// to do if it has not.
func (d *dataWriter) reuse(ino *inode, n int, h hint, b *block) (err error) {
	sample := d.base.sample(h, n)
	if !sample {
		select {
		case l := <-d.light:
			l.ino, l.n, l.hint, l.zero = ino, n, h, h.word == 0
			if d.base.copies(l) {
				d.order <- l
				if b != nil {
					d.free <- b
				}
				return nil
			}
			d.light <- l
		case <-d.ctx.Done():
			return context.Cause(d.ctx)
		}
	}
	if b == nil {
		if b, err = d.take(ino); err != nil {
			return err
		}
	}
	b.n, b.hint, b.take, b.sample = n, h, true, sample
	d.submit(b)
	return nil
}

// stretch is a part of the base that goes into the image as it is.
type stretch struct{ from, to, n int64 }

const maxStretch = maxBlock

// copy has a block copied to where the image ends, with its neighbours.
func (d *dataWriter) copy(from, n int64) error {
	s := &d.copying
	if s.n > 0 && (from != s.from+s.n || s.n+n > maxStretch) {
		if err := d.copyAll(); err != nil {
			return err
		}
	}
	if s.n == 0 {
		*s = stretch{from: from, to: d.off}
	}
	s.n += n
	return nil
}

// copyAll copies what has been put together.
func (d *dataWriter) copyAll() error {
	s := &d.copying
	if s.n == 0 {
		return nil
	}
	if d.buf == nil {
		d.buf = make([]byte, maxStretch)
	}
	p := d.buf[:s.n]
	if err := d.base.f.readAt(p, s.from, "data"); err != nil {
		return baseError(err)
	}
	if _, err := d.w.WriteAt(p, s.to); err != nil {
		return fmt.Errorf("squash: writing the image: %w", err)
	}
	s.n = 0
	return nil
}
