package squash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"sync"
)

// block is one unit of data on its way from the source to the image.
type block struct {
	raw  []byte // a whole block's capacity
	n    int    // bytes of raw in use
	out  []byte // compressed
	sum  [sha256.Size]byte
	ino  *inode // the file, nil for a fragment block
	zero bool
	hint hint // where the base may have it
	take bool // from there, unread
	same bool // it was taken over
	err  error
	done chan struct{} // one value when a worker is through
}

// stored returns the bytes that go into the image and the word that says so.
func (b *block) stored() ([]byte, uint32) {
	switch {
	case b.zero:
		return nil, 0
	case len(b.out) >= b.n:
		return b.raw[:b.n], uint32(b.n) | rawBlock
	}
	return b.out, uint32(len(b.out))
}

// dataWriter reads the files, lets workers compress their blocks, and writes
// the blocks in the order in which they were read: the image does not depend
// on which worker was quicker.
type dataWriter struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	w      io.WriterAt
	opts   *Options
	encs   []Encoder // one a worker
	report *report
	base   *base // nil for none

	free  chan *block // bounds the memory
	work  chan *block
	order chan *block
	wg    sync.WaitGroup

	// The reading side's.
	frag  *block
	frags uint32 // fragment blocks begun
	tails tails
	probe [1]byte

	// The writing side's, until stop returns.
	off       int64
	high      int64 // the furthest byte written
	fragTable []byte
	runs      runs
}

func (d *dataWriter) start() {
	n := 2*d.opts.Workers + 3 // a fragment block is held while others pass
	d.free = make(chan *block, n)
	d.work = make(chan *block, n)
	d.order = make(chan *block, n)
	for range n {
		d.free <- &block{done: make(chan struct{}, 1)}
	}
	for _, enc := range d.encs {
		d.wg.Go(func() { d.compress(enc) })
	}
	d.wg.Go(d.writeBlocks)
}

// stop ends the goroutines once the blocks that were submitted are through.
func (d *dataWriter) stop() {
	close(d.work)
	close(d.order)
	d.wg.Wait()
}

func (d *dataWriter) compress(enc Encoder) {
	for b := range d.work {
		if b.out == nil { // with room for what libzstd asks for beforehand
			b.out = make([]byte, 0, d.opts.BlockSize+d.opts.BlockSize/128+1024)
		}
		if d.ctx.Err() == nil {
			b.err = d.encode(b, enc)
		}
		if b.ino != nil && b.ino.twin && b.err == nil {
			// The same bytes in give the same bytes out, of which there are fewer.
			stored, _ := b.stored()
			b.sum = sha256.Sum256(stored)
		}
		b.done <- struct{}{}
	}
}

// encode makes what is stored of a block, or finds it in the base.
func (d *dataWriter) encode(b *block, enc Encoder) error {
	if b.take {
		b.same = true
		return d.base.take(b, enc)
	}
	raw := b.raw[:b.n]
	if b.zero = b.ino != nil && allZero(raw); b.zero {
		return nil
	}
	if d.base != nil {
		var err error
		if b.same, err = d.base.compare(b, enc); b.same || err != nil {
			return err
		}
	}
	var err error
	if b.out, err = enc.Encode(b.out[:0], raw); err != nil {
		return fmt.Errorf("squash: compressing: %w", err)
	}
	return nil
}

func (d *dataWriter) writeBlocks() {
	for b := range d.order {
		<-b.done
		if b.err != nil {
			d.cancel(b.err)
		} else if d.ctx.Err() == nil {
			if err := d.writeBlock(b); err != nil {
				d.cancel(err)
			}
		}
		d.free <- b
	}
}

func (d *dataWriter) writeBlock(b *block) error {
	out, word := b.stored()
	start := d.off
	if len(out) > 0 {
		if _, err := d.w.WriteAt(out, d.off); err != nil {
			return fmt.Errorf("squash: writing the image: %w", err)
		}
		d.off += int64(len(out))
		d.high = max(d.high, d.off)
	}
	if b.ino == nil {
		d.fragTable = binary.LittleEndian.AppendUint64(d.fragTable, uint64(start))
		d.fragTable = binary.LittleEndian.AppendUint32(d.fragTable, word)
		d.fragTable = binary.LittleEndian.AppendUint32(d.fragTable, 0)
	} else {
		d.fileBlock(b, start, word)
	}
	d.report.note(func(p *Progress) {
		p.Read += int64(b.n)
		if b.same {
			p.Reused += int64(b.n)
		}
		p.Written = max(p.Written, d.off)
	})
	return nil
}

// fileBlock notes where a file's block went, and takes its blocks back when
// the last one shows that they are in the image already.
func (d *dataWriter) fileBlock(b *block, start int64, word uint32) {
	ino := b.ino
	if len(ino.words) == 0 {
		ino.start = start
		ino.words = make([]uint32, 0, d.blocks(ino))
	}
	if b.zero {
		ino.sparse += int64(b.n)
	}
	ino.words = append(ino.words, word)
	if !ino.twin {
		return
	}
	ino.hash.add(b.sum, word)
	if int64(len(ino.words)) == d.blocks(ino) {
		if same := d.runs.find(ino); same != nil {
			d.off = ino.start
			ino.start, ino.words = same.start, same.words
		}
		ino.hash.h = nil
	}
}

// blocks is how many blocks of its own a file has.
func (d *dataWriter) blocks(ino *inode) int64 {
	size := int64(d.opts.BlockSize)
	if d.opts.FragmentSize < 0 || ino.size%size > int64(d.opts.FragmentSize) {
		return (ino.size + size - 1) / size
	}
	return ino.size / size
}

// take returns an empty block, waiting for one that is through.
func (d *dataWriter) take(ino *inode) (*block, error) {
	select {
	case b := <-d.free:
		if b.raw == nil {
			b.raw = make([]byte, d.opts.BlockSize+slack)
		}
		b.ino, b.n, b.zero, b.hint, b.take, b.same = ino, 0, false, hint{}, false, false
		return b, nil
	case <-d.ctx.Done():
		return nil, context.Cause(d.ctx)
	}
}

// submit never blocks: the channels hold every block there is.
func (d *dataWriter) submit(b *block) {
	d.order <- b
	d.work <- b
}

// files submits the data of the files below the root that has not been read:
// that of a directory's files, then that of the directories in it, so that the
// tails of one directory share fragments.
func (d *dataWriter) files(root *inode) error {
	type source struct {
		name string
		ino  *inode
		was  *node // what the base has under the name
		take bool  // take it over without reading
		data *aheadFile
	}
	a := newAhead(d.ctx, d.opts.Readers, d.opts.BlockSize)
	defer a.close()
	list := make(chan source, d.opts.Readers)
	a.wg.Go(func() {
		defer close(list)
		_ = walkFiles(".", root, func(name string, ino *inode) (err error) {
			s, open := source{name: name, ino: ino}, ino.open
			ino.open = nil // a hard link's data is stored once
			if d.base != nil {
				s.was = d.base.find(name)
				s.take = d.base.unchanged(ino, d.blocks(ino), s.was)
			}
			if !s.take {
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
		if s.take {
			if err := d.takeOver(s.name, s.ino, s.was); err != nil {
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
func (d *dataWriter) takeOver(name string, ino *inode, was *node) error {
	size := int64(d.opts.BlockSize)
	h := d.base.f.open(name, was)
	for i := range d.blocks(ino) {
		word, start, err := h.block(i)
		if err != nil {
			return fmt.Errorf("squash: Options.Base: %w", err)
		}
		b, err := d.take(ino)
		if err != nil {
			return err
		}
		b.n, b.hint, b.take = int(min(size, ino.size-i*size)), hint{start, word}, true
		d.submit(b)
	}
	if was.tail(size) == 0 {
		return nil
	}
	return d.base.tail(was, func(tail []byte) error {
		return d.tail(name, ino, bytes.NewReader(tail), len(tail), was)
	})
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
		swapped := false
		if a, ok := f.(*aheadFile); ok {
			b.raw, swapped = a.swap(b.raw, b.n)
		}
		if !swapped {
			if err := fill(name, ino, f, b.raw[:b.n], left); err != nil {
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

// tail packs the end of a file that does not fill a block into the fragment
// block that is open.
func (d *dataWriter) tail(name string, ino *inode, f io.Reader, n int, was *node) error {
	if d.frag != nil && d.frag.n+n > d.opts.FragmentSize {
		d.flushFragment()
	}
	if d.frag == nil {
		b, err := d.take(nil)
		if err != nil {
			return err
		}
		d.frag = b
		d.frags++
	}
	p := d.frag.raw[d.frag.n : d.frag.n+n]
	if err := fill(name, ino, f, p, int64(n)); err != nil {
		return err
	}
	at := place{d.frags - 1, uint32(d.frag.n)}
	if ino.twin {
		if was, again := d.tails.find(p, at); again {
			ino.frag, ino.fragOff = was.frag, was.off
			d.report.note(func(pr *Progress) { pr.Read += int64(n) })
			return nil
		}
	}
	if d.frag.n == 0 && was != nil && was.frag != none32 && was.fragOff == 0 {
		d.frag.hint = d.base.fragment(was.frag)
	}
	ino.frag, ino.fragOff = at.frag, at.off
	d.frag.n += n
	return nil
}

func (d *dataWriter) flushFragment() {
	switch {
	case d.frag == nil:
	case d.frag.n == 0: // every tail that it was opened for was there already
		d.frags--
		d.free <- d.frag
	default:
		d.submit(d.frag)
	}
	d.frag = nil
}

// allZero compares p with itself, one byte shifted: as fast as memory.
func allZero(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1])
}
