package squash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// block is one unit of data on its way from the source to the image.
type block struct {
	raw    []byte // a whole block's capacity, or nil, see room
	n      int    // bytes of raw in use
	out    []byte // compressed, or what the base has stored
	sum    [sha256.Size]byte
	ino    *inode // the file, nil for a fragment block
	zero   bool
	hint   hint   // where the base may have it
	parts  []part // of a fragment block, what the base has and raw has not
	take   bool   // from the base, unread
	copy   bool   // the same, by the writing side: there is no memory in this one
	sample bool   // and make sure of it
	same   bool   // it was taken over
	err    error
	done   chan struct{} // one value when a worker is through
}

// room returns raw, which a block that is only taken over does without.
func (b *block) room(size int) []byte {
	if b.raw == nil {
		b.raw = make([]byte, size+slack)
	}
	return b.raw
}

// stored returns the bytes that go into the image and the word that says so.
func (b *block) stored() ([]byte, uint32) {
	switch {
	case b.zero:
		return nil, 0
	case b.same:
		return b.out, b.hint.word
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
	light chan *block // those without memory
	work  chan *block
	order chan *block
	wg    sync.WaitGroup

	// The reading side's.
	frag  *block
	frags uint32 // fragment blocks begun
	tails *tails
	probe [1]byte

	// The writing side's, until stop returns.
	off       int64
	high      int64   // the furthest byte written
	copying   stretch // put together, not copied yet
	buf       []byte
	fragTable []byte
	runs      runs
}

func (d *dataWriter) start() {
	n := 2*d.opts.Workers + 3 // a fragment block is held while others pass
	light := 0
	if d.base != nil {
		light = 1024 // so many blocks are between two that have to be compressed
	}
	d.free = make(chan *block, n)
	d.light = make(chan *block, light)
	d.work = make(chan *block, n)
	d.order = make(chan *block, n+light)
	for range light {
		d.light <- &block{copy: true, same: true}
	}
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
			if b.ino != nil && b.ino.twin && b.err == nil {
				// The same bytes in give the same bytes out, of which there are fewer.
				stored, _ := b.stored()
				b.sum = sha256.Sum256(stored)
			}
		}
		b.done <- struct{}{}
	}
}

// encode makes what is stored of a block, or finds it in the base.
func (d *dataWriter) encode(b *block, enc Encoder) (err error) {
	if b.take {
		if b.same, err = d.base.take(b, enc); b.same || err != nil {
			return err
		}
	}
	if len(b.parts) > 0 {
		if err := d.base.fill(b); err != nil {
			return err
		}
	}
	raw := b.raw[:b.n]
	if b.zero = b.ino != nil && allZero(raw); b.zero {
		return nil
	}
	if d.base != nil {
		if b.same, err = d.base.compare(b, enc); b.same || err != nil {
			return err
		}
	}
	if b.out, err = enc.Encode(b.out[:0], raw); err != nil {
		return fmt.Errorf("squash: compressing: %w", err)
	}
	return nil
}

func (d *dataWriter) writeBlocks() {
	for b := range d.order {
		if !b.copy {
			<-b.done
		}
		if b.err != nil {
			d.cancel(b.err)
		} else if d.ctx.Err() == nil {
			if err := d.writeBlock(b); err != nil {
				d.cancel(err)
			}
		}
		if b.copy {
			d.light <- b
		} else {
			d.free <- b
		}
	}
	if d.ctx.Err() == nil {
		if err := d.copyAll(); err != nil {
			d.cancel(err)
		}
	}
}

func (d *dataWriter) writeBlock(b *block) error {
	out, word := b.stored()
	start, n := d.off, int64(len(out))
	if b.copy {
		n = int64(word &^ rawBlock)
		if err := d.copy(b.hint.start, n); err != nil {
			return err
		}
	} else if n > 0 {
		if err := d.copyAll(); err != nil {
			return err
		}
		if _, err := d.w.WriteAt(out, start); err != nil {
			return fmt.Errorf("squash: writing the image: %w", err)
		}
	}
	d.off += n
	d.high = max(d.high, d.off)
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
		b.ino, b.n, b.zero, b.hint, b.parts = ino, 0, false, hint{}, b.parts[:0]
		b.take, b.sample, b.same = false, false, false
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

// allZero compares p with itself, one byte shifted: as fast as memory.
func allZero(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1])
}
