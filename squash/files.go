package squash

import (
	"context"
	"fmt"
	"io"
	"path"
)

// files submits the data of the files below the root that has not been read:
// that of a directory's files, then that of the directories in it, so that the
// tails of one directory share fragments.
func (d *dataWriter) files(root *inode) error {
	type source struct {
		name string
		ino  *inode
		was  *node      // what the base has under the name
		data *aheadFile // nil if it is taken over without reading
	}
	a := newAhead(d.ctx, d.opts.Readers, d.opts.BlockSize)
	defer a.close()
	list := make(chan source, 64) // most pass quickly when there is a base
	a.wg.Go(func() {
		defer close(list)
		_ = walkFiles(".", root, func(name string, ino *inode) (err error) {
			s, open := source{name: name, ino: ino}, ino.open
			ino.open = nil // a hard link's data is stored once
			if ino.was == nil {
				if d.base != nil {
					s.was = d.base.find(name)
				}
				if s.data, err = a.add(open); err != nil {
					return err
				}
			}
			select {
			case list <- s:
				return nil
			case <-a.ctx.Done():
				return a.ctx.Err()
			}
		})
	})
	for s := range list {
		if s.data == nil {
			if err := d.takeOver(s.ino); err != nil {
				return err
			}
			continue
		}
		if err := s.data.opening(); err != nil {
			return wrapPath(s.name, err)
		}
		if err := d.file(s.name, s.ino, s.data, s.was); err != nil {
			return err
		}
		_ = s.data.Close()
	}
	return context.Cause(d.ctx)
}

func walkFiles(name string, dir *inode, visit func(string, *inode) error) error {
	for _, e := range dir.dir.entries {
		if e.ino.kind == kindFile && e.ino.open != nil {
			if err := visit(path.Join(name, e.name), e.ino); err != nil {
				return err
			}
		}
	}
	for _, e := range dir.dir.entries {
		if e.ino.kind == kindDir {
			if err := walkFiles(path.Join(name, e.name), e.ino, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeOver submits an unchanged file's blocks as the base has them.
func (d *dataWriter) takeOver(ino *inode) error {
	size, n := int64(d.opts.BlockSize), ino.was.node(ino)
	ino.was = nil
	if blocks := d.blocks(ino); blocks > 0 {
		h := d.base.f.open("", n)
		for i := range blocks {
			word, start, err := h.block(i)
			if err != nil {
				return baseError(err)
			}
			if err := d.reuse(ino, int(min(size, ino.size-i*size)), hint{start, word}, nil); err != nil {
				return err
			}
		}
	}
	if tail := n.tail(size); tail > 0 {
		return d.takeTail(ino, origin{n.frag, n.fragOff, uint32(tail)})
	}
	return nil
}

// file submits a file's content; was is what the base has under its name, or
// nil.
func (d *dataWriter) file(name string, ino *inode, f io.Reader, was *node) error {
	size := int64(d.opts.BlockSize)
	left := ino.size
	var h *file
	if was != nil {
		h = d.base.f.open(name, was)
	}
	for i := range d.blocks(ino) {
		b, err := d.take(ino)
		if err != nil {
			return err
		}
		b.n = int(min(size, left))
		if h != nil && i < was.blocks(size) {
			if word, start, err := h.block(i); err == nil {
				b.hint = hint{start, word}
			}
		}
		raw, swapped := b.room(d.opts.BlockSize), false
		if a, ok := f.(*aheadFile); ok {
			b.raw, swapped = a.swap(raw, b.n)
		}
		if !swapped {
			if err := fill(name, ino, f, raw[:b.n], left); err != nil {
				return err
			}
		}
		left -= int64(b.n)
		d.submit(b)
	}
	if left > 0 {
		if err := d.tail(name, ino, f, int(left), was); err != nil {
			return err
		}
	}
	switch _, err := io.ReadFull(f, d.probe[:]); err {
	case io.EOF:
		return nil
	case nil:
		return entryError(name, fmt.Errorf("the file has more than the %d bytes that it had when the tree was listed; build from a tree at rest", ino.size))
	default:
		return wrapPath(name, err)
	}
}

func fill(name string, ino *inode, f io.Reader, p []byte, left int64) error {
	n, err := io.ReadFull(f, p)
	switch err {
	case nil:
		return nil
	case io.EOF, io.ErrUnexpectedEOF:
		return entryError(name, fmt.Errorf("the file ended after %d bytes, it had %d when the tree was listed; build from a tree at rest", ino.size-left+int64(n), ino.size))
	}
	return wrapPath(name, err)
}
