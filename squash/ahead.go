package squash

import (
	"context"
	"io"
	"iter"
	"sync"
)

// ahead reads files before they are asked for, several at once, so that disks
// and decoders have work while what was read before is compressed or written.
// Each reader has two chunks of memory, so that a file that is not asked for
// yet holds up its reader and no other.
type ahead struct {
	ctx    context.Context
	cancel context.CancelFunc
	work   chan *aheadFile
	wg     sync.WaitGroup
}

// readers is how many files are read at once unless it is said otherwise.
const readers = 4

// newAhead starts n readers with chunks of so many bytes.
func newAhead(ctx context.Context, n, chunk int) *ahead {
	a := &ahead{work: make(chan *aheadFile)}
	a.ctx, a.cancel = context.WithCancel(ctx)
	for range n {
		a.wg.Go(func() { a.read(chunk) })
	}
	return a
}

// close ends the readers and waits for them.
func (a *ahead) close() {
	a.cancel()
	a.wg.Wait()
}

// add has a file read, as soon as a reader is free. Files are to be taken in
// the order in which they were added, each to its end or until it is closed.
func (a *ahead) add(open func() (io.ReadCloser, error)) (*aheadFile, error) {
	f := &aheadFile{ctx: a.ctx, open: open, chunks: make(chan aheadChunk), closed: make(chan struct{})}
	select {
	case a.work <- f:
		return f, nil
	case <-a.ctx.Done():
		return nil, context.Cause(a.ctx)
	}
}

func (a *ahead) read(chunk int) {
	free := make(chan []byte, 2)
	for range cap(free) {
		free <- make([]byte, chunk+slack)
	}
	for {
		select {
		case f := <-a.work:
			f.read(free, chunk)
		case <-a.ctx.Done():
			return
		}
	}
}

// aheadFile is a file that is read ahead, for one goroutine.
type aheadFile struct {
	ctx    context.Context
	open   func() (io.ReadCloser, error)
	chunks chan aheadChunk
	closed chan struct{}
	cur    aheadChunk
	left   []byte // of cur
}

// aheadChunk is a piece of a file and what came after it.
type aheadChunk struct {
	buf    []byte
	err    error
	opened bool // err is none of open's
	free   chan []byte
}

// read is the reader's side. Whatever way it ends, both buffers are in free or
// will come there.
func (f *aheadFile) read(free chan []byte, chunk int) {
	var c aheadChunk
	r, err := f.open()
	if err != nil {
		c.err = err
	} else {
		defer r.Close()
	}
	for {
		if c.err == nil {
			select {
			case buf := <-free:
				c = aheadChunk{opened: true, free: free}
				c.buf, c.err = readChunk(r, buf, chunk)
			case <-f.closed:
				return
			case <-f.ctx.Done():
				return
			}
		}
		select {
		case f.chunks <- c:
		case <-f.closed:
			c.release()
			return
		case <-f.ctx.Done():
			return
		}
		if c.err != nil {
			return
		}
	}
}

// readChunk fills a chunk, or tells why not.
func readChunk(r io.Reader, buf []byte, chunk int) ([]byte, error) {
	if h, ok := r.(*file); ok && int(h.f.sb.BlockSize) <= chunk {
		return h.next(buf)
	}
	// Not io.ReadFull, whose ErrUnexpectedEOF may be that of a cut stream as well.
	n := 0
	var err error
	for n < chunk && err == nil {
		var k int
		k, err = r.Read(buf[n:chunk])
		n += k
	}
	return buf[:n], err
}

func (c *aheadChunk) release() {
	if c.free != nil {
		c.free <- c.buf[:cap(c.buf)]
		c.free = nil
	}
}

// chunk waits for the next one when the last one is through.
func (f *aheadFile) chunk() error {
	for len(f.left) == 0 {
		if f.cur.err != nil {
			return f.cur.err
		}
		f.cur.release()
		select {
		case f.cur = <-f.chunks:
			f.left = f.cur.buf
		case <-f.ctx.Done():
			return context.Cause(f.ctx)
		}
	}
	return nil
}

// opening waits until the file is open and returns the error if it is not.
func (f *aheadFile) opening() error {
	if err := f.chunk(); err != nil && !f.cur.opened {
		return err
	}
	return nil
}

func (f *aheadFile) Read(p []byte) (int, error) {
	if err := f.chunk(); err != nil {
		return 0, err
	}
	n := copy(p, f.left)
	f.left = f.left[n:]
	return n, nil
}

// WriteTo writes chunk by chunk.
func (f *aheadFile) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if err := f.chunk(); err == io.EOF {
			return total, nil
		} else if err != nil {
			return total, err
		}
		n, err := w.Write(f.left)
		f.left = f.left[n:]
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// swap gives memory of the size of a chunk for the next n bytes of the file,
// when they begin one.
func (f *aheadFile) swap(raw []byte, n int) ([]byte, bool) {
	if f.chunk() != nil || len(f.left) != n || len(f.cur.buf) != n || cap(f.cur.buf) != cap(raw) {
		return raw, false
	}
	got := f.cur.buf
	f.cur.buf, f.left = raw, nil
	return got, true
}

// Close lets the reader go on to another file.
func (f *aheadFile) Close() error {
	f.left = nil
	f.cur.release()
	close(f.closed)
	return nil
}

// entriesAhead yields a source's entries, whose content is read ahead where it
// can be opened and the file has one name. Open is for one call.
func entriesAhead(ctx context.Context, src Source) iter.Seq2[*Entry, error] {
	type item struct {
		e    *Entry
		err  error
		file *aheadFile
		used chan struct{} // closed when a content that comes once is through
	}
	return func(yield func(*Entry, error) bool) {
		a := newAhead(ctx, readers, defaultBlock)
		defer a.close()
		items := make(chan item, readers)
		a.wg.Go(func() {
			defer close(items)
			for e, err := range src.Entries(a.ctx) {
				it := item{e: e, err: err}
				switch {
				case err != nil:
				case e.Open != nil && e.Size > 0 && e.Nlink <= 1 && kindOf(e.Mode) == kindFile:
					if it.file, err = a.add(e.Open); err != nil {
						return
					}
				case e.Content != nil:
					it.used = make(chan struct{})
				}
				select {
				case items <- it:
				case <-a.ctx.Done():
					return
				}
				if it.used != nil {
					select {
					case <-it.used:
					case <-a.ctx.Done():
						return
					}
				}
			}
		})
		for it := range items {
			e := it.e
			if it.file != nil {
				c := *e
				c.Open = func() (io.ReadCloser, error) { return it.file, it.file.opening() }
				e = &c
			}
			if !yield(e, it.err) || it.err != nil {
				return
			}
			if it.used != nil {
				close(it.used)
			}
		}
		if err := context.Cause(ctx); err != nil {
			yield(nil, err)
		}
	}
}
