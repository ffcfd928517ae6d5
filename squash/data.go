package squash

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// newEncoder makes the one compressor that is written. Single-segment frames
// have a window as large as their content, never larger than a block: Linux
// refuses to read others. Checksums would cost four bytes a block that no
// other writer spends.
func newEncoder(blockSize, workers int) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(max(blockSize, metaSize)),
		zstd.WithSingleSegment(true),
		zstd.WithEncoderCRC(false),
		zstd.WithEncoderConcurrency(workers),
	)
}

// block is one unit of data on its way from the source to the image.
type block struct {
	raw  []byte // a whole block's capacity
	n    int    // bytes of raw in use
	out  []byte // compressed
	ino  *inode // the file, nil for a fragment block
	zero bool
	done chan struct{} // one value when a worker is through
}

// dataWriter reads the files, lets workers compress their blocks, and writes
// the blocks in the order in which they were read: the image does not depend
// on which worker was quicker.
type dataWriter struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	src    fs.FS
	w      io.WriterAt
	opts   *Options
	enc    *zstd.Encoder

	free  chan *block // bounds the memory
	work  chan *block
	order chan *block
	wg    sync.WaitGroup

	// The reading side's.
	frag  *block
	frags uint32 // fragment blocks begun
	probe [1]byte

	// The writing side's, until stop returns.
	off       int64
	fragTable []byte
	prog      Progress
}

func (d *dataWriter) start() {
	n := 2*d.opts.Workers + 3 // a fragment block is held while others pass
	d.free = make(chan *block, n)
	d.work = make(chan *block, n)
	d.order = make(chan *block, n)
	for range n {
		d.free <- &block{done: make(chan struct{}, 1)}
	}
	for range d.opts.Workers {
		d.wg.Go(d.compress)
	}
	d.wg.Go(d.writeBlocks)
}

// stop ends the goroutines once the blocks that were submitted are through.
func (d *dataWriter) stop() {
	close(d.work)
	close(d.order)
	d.wg.Wait()
}

func (d *dataWriter) compress() {
	for b := range d.work {
		raw := b.raw[:b.n]
		b.zero = b.ino != nil && allZero(raw)
		if !b.zero {
			if b.out == nil {
				b.out = make([]byte, 0, cap(b.raw))
			}
			b.out = d.enc.EncodeAll(raw, b.out[:0])
		}
		b.done <- struct{}{}
	}
}

func (d *dataWriter) writeBlocks() {
	for b := range d.order {
		<-b.done
		if d.ctx.Err() == nil {
			if err := d.writeBlock(b); err != nil {
				d.cancel(err)
			} else if d.opts.Progress != nil {
				d.opts.Progress(d.prog)
			}
		}
		d.free <- b
	}
}

func (d *dataWriter) writeBlock(b *block) error {
	out, word := b.out, uint32(len(b.out))
	switch {
	case b.zero:
		out, word = nil, 0
	case len(out) >= b.n:
		out, word = b.raw[:b.n], uint32(b.n)|rawBlock
	}
	start := d.off
	if len(out) > 0 {
		if _, err := d.w.WriteAt(out, d.off); err != nil {
			return fmt.Errorf("squash: writing the image: %w", err)
		}
		d.off += int64(len(out))
	}
	if b.ino == nil {
		d.fragTable = binary.LittleEndian.AppendUint64(d.fragTable, uint64(start))
		d.fragTable = binary.LittleEndian.AppendUint32(d.fragTable, word)
		d.fragTable = binary.LittleEndian.AppendUint32(d.fragTable, 0)
	} else {
		if len(b.ino.words) == 0 {
			b.ino.start = start
		}
		if b.zero {
			b.ino.sparse += int64(b.n)
		}
		b.ino.words = append(b.ino.words, word)
	}
	d.prog.Read += int64(b.n)
	d.prog.Written = d.off
	return nil
}

// take returns an empty block, waiting for one that is through.
func (d *dataWriter) take(ino *inode) (*block, error) {
	select {
	case b := <-d.free:
		if b.raw == nil {
			b.raw = make([]byte, d.opts.BlockSize)
		}
		b.ino, b.n = ino, 0
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

// files submits the data of a directory's files, then that of the
// directories in it, so that the tails of one directory share fragments.
func (d *dataWriter) files(name string, dir *inode) error {
	for _, e := range dir.dir.entries {
		if e.ino.kind == kindFile && !e.ino.read {
			e.ino.read = true // a hard link's data is stored once
			full := path.Join(name, e.name)
			if err := d.file(full, e.ino); err != nil {
				return err
			}
		}
	}
	for _, e := range dir.dir.entries {
		if e.ino.kind == kindDir {
			if err := d.files(path.Join(name, e.name), e.ino); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *dataWriter) file(name string, ino *inode) (err error) {
	if err := context.Cause(d.ctx); err != nil {
		return err
	}
	f, err := d.src.Open(name)
	if err != nil {
		return wrapPath(name, err)
	}
	defer f.Close()
	size := int64(d.opts.BlockSize)
	left := ino.size
	for ; left >= size; left -= size {
		b, err := d.take(ino)
		if err != nil {
			return err
		}
		b.n = int(size)
		if err := d.fill(name, ino, f, b.raw[:b.n], left); err != nil {
			return err
		}
		d.submit(b)
	}
	if left > 0 {
		if err := d.tail(name, ino, f, int(left)); err != nil {
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

func (d *dataWriter) fill(name string, ino *inode, f fs.File, p []byte, left int64) error {
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
func (d *dataWriter) tail(name string, ino *inode, f fs.File, n int) error {
	if d.frag != nil && d.frag.n+n > d.opts.BlockSize {
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
	if err := d.fill(name, ino, f, d.frag.raw[d.frag.n:d.frag.n+n], int64(n)); err != nil {
		return err
	}
	ino.frag, ino.fragOff = d.frags-1, uint32(d.frag.n)
	d.frag.n += n
	return nil
}

func (d *dataWriter) flushFragment() {
	if d.frag != nil {
		d.submit(d.frag)
		d.frag = nil
	}
}

// allZero compares p with itself, one byte shifted: as fast as memory.
func allZero(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1])
}
