package squash

import (
	"encoding/binary"
	"io"
	"io/fs"
	"math"
	"sync"
	"sync/atomic"
)

// Open opens the named file, after symbolic links. A regular file is also an
// [io.ReaderAt], an [io.Seeker] and an [io.WriterTo], a directory an
// [fs.ReadDirFile]. ReadAt may be called concurrently, with the other methods
// too; Read, Seek, WriteTo and ReadDir share a position and take turns.
func (f *FS) Open(name string) (fs.File, error) {
	n, err := f.resolve("open", name, true)
	if err != nil {
		return nil, err
	}
	if n.kind != kindDir {
		return f.open(name, n), nil
	}
	l, err := f.listing(n)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &dir{f: f, n: n, name: name, l: l}, nil
}

// ReadFile returns the content of the named file, after symbolic links.
func (f *FS) ReadFile(name string) ([]byte, error) {
	n, err := f.resolve("open", name, true)
	if err != nil {
		return nil, err
	}
	if n.kind == kindDir {
		return nil, pathError("read", name, errIsDir)
	}
	h := f.open(name, n)
	// The size is the image's word: memory follows what has been decoded.
	buf := make([]byte, 0, min(h.size, 16<<20))
	for int64(len(buf)) < h.size {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(h.size, 2*int64(len(buf))))
			copy(grown, buf)
			buf = grown
		}
		k, err := h.readAt(buf[len(buf):cap(buf)], int64(len(buf)))
		buf = buf[:len(buf)+k]
		if err != nil {
			return buf, pathError("read", name, err)
		}
	}
	return buf, nil
}

// file is an open file that is no directory.
type file struct {
	f    *FS
	n    *node
	name string
	size int64 // 0 for devices and the like, which have no data

	closed atomic.Bool
	mu     sync.Mutex // guards pos
	pos    int64

	wmu  sync.Mutex // guards what follows
	seen []mark     // the first words of groups, as far as they are known
	last *words     // the group used last
}

var (
	_ io.ReaderAt    = (*file)(nil)
	_ io.ReadSeeker  = (*file)(nil)
	_ io.WriterTo    = (*file)(nil)
	_ fs.ReadDirFile = (*dir)(nil)
)

func (f *FS) open(name string, n *node) *file {
	h := &file{f: f, n: n, name: name}
	if n.kind == kindFile {
		h.size = n.size
	}
	return h
}

// A file's words are read in groups, and only the place of each group is
// kept: a file's size costs no memory.
const groupWords = 512

type mark struct {
	off   int64 // metadata piece
	pos   int   // in the piece
	start int64 // the group's first block
}

type words struct {
	group int64
	word  []uint32
	start []int64
}

// block returns the word and the place of block i.
func (h *file) block(i int64) (word uint32, start int64, err error) {
	h.wmu.Lock()
	defer h.wmu.Unlock()
	g := i / groupWords
	if h.last == nil || h.last.group != g {
		if err := h.loadGroup(g); err != nil {
			return 0, 0, err
		}
	}
	return h.last.word[i%groupWords], h.last.start[i%groupWords], nil
}

func (h *file) loadGroup(g int64) error {
	if h.seen == nil {
		h.seen = []mark{{h.n.wordOff, h.n.wordPos, h.n.start}}
	}
	blocks := h.n.blocks(int64(h.f.sb.BlockSize))
	for at := min(g, int64(len(h.seen))-1); ; at++ {
		m := h.seen[at]
		c := h.f.inodes()
		if err := c.open(m.off, m.pos); err != nil {
			return err
		}
		n := int(min(groupWords, blocks-at*groupWords))
		b, err := c.take(4 * n)
		if err != nil {
			return err
		}
		w := &words{group: at, word: make([]uint32, n), start: make([]int64, n)}
		start := m.start
		for i := range n {
			w.word[i], w.start[i] = binary.LittleEndian.Uint32(b[4*i:]), start
			start += int64(w.word[i] &^ rawBlock)
		}
		if int64(len(h.seen)) == at+1 {
			h.seen = append(h.seen, mark{c.off, c.pos, start})
		}
		if at == g {
			h.last = w
			return nil
		}
	}
}

// readAt fills p as far as the file goes.
func (h *file) readAt(p []byte, off int64) (n int, err error) {
	size := int64(h.f.sb.BlockSize)
	blocks := h.n.blocks(size)
	p = p[:min(int64(len(p)), max(h.size-off, 0))]
	for n < len(p) {
		i, in := (off+int64(n))/size, int((off+int64(n))%size)
		if i >= blocks {
			k, err := h.readTail(p[n:], in)
			return n + k, err
		}
		want := int(min(size, h.size-i*size))
		word, start, err := h.block(i)
		if err != nil {
			return n, err
		}
		switch {
		case word == 0:
			k := min(want-in, len(p)-n)
			clear(p[n : n+k])
			n += k
		case in == 0 && len(p)-n >= want:
			// The caller's memory is large enough for the block.
			if _, err := h.f.readBlock(p[n:n:min(n+want+slack, len(p))], start, word, want); err != nil {
				return n, err
			}
			n += want
		default:
			e, err := h.f.cachedBlock(start, word, want)
			if err != nil {
				return n, err
			}
			n += copy(p[n:], e.data[in:])
			h.f.blocks.release(e)
		}
	}
	return n, nil
}

func (h *file) readTail(p []byte, in int) (n int, err error) {
	err = h.withTail(func(tail []byte) error {
		n = copy(p, tail[in:])
		return nil
	})
	return n, err
}

// withTail shows the end of the file that lies in a fragment.
func (h *file) withTail(do func([]byte) error) error {
	start, word, err := h.f.fragment(h.n.frag)
	if err != nil {
		return err
	}
	e, err := h.f.cachedBlock(start, word, -1)
	if err != nil {
		return err
	}
	defer h.f.blocks.release(e)
	tail := int(h.n.tail(int64(h.f.sb.BlockSize)))
	if int(h.n.fragOff)+tail > len(e.data) {
		return badFormat(start, "a tail of %d bytes at %d of a fragment block of %d", tail, h.n.fragOff, len(e.data))
	}
	return do(e.data[h.n.fragOff:][:tail])
}

// fragment returns where a fragment block lies.
func (f *FS) fragment(i uint32) (start int64, word uint32, err error) {
	p, err := f.lookup(int64(f.sb.FragStart), int64(i)*fragmentEntry, "the fragment table")
	if err != nil {
		return 0, 0, err
	}
	if len(p) < fragmentEntry {
		return 0, 0, badFormat(int64(f.sb.FragStart), "the fragment table is too short")
	}
	s := binary.LittleEndian.Uint64(p)
	if s > math.MaxInt64 {
		return 0, 0, badFormat(int64(f.sb.FragStart), "fragment %d lies at byte %d", i, s)
	}
	return int64(s), binary.LittleEndian.Uint32(p[8:]), nil
}

// cachedBlock returns a decoded block through the cache, to which it is to be
// released; want -1 takes any length up to the block size.
func (f *FS) cachedBlock(start int64, word uint32, want int) (*cached, error) {
	e, err := f.blocks.get(start, func(e *cached) (err error) {
		room := want
		if want < 0 {
			room = int(f.sb.BlockSize)
		}
		e.data, err = f.readBlock(f.blocks.room(room), start, word, want)
		return err
	})
	if err != nil {
		return nil, err
	}
	if want >= 0 && len(e.data) != want {
		// Two files describe the same block differently.
		defer f.blocks.release(e)
		return nil, badFormat(start, "a block of %d bytes where %d belong", len(e.data), want)
	}
	return e, nil
}

// readBlock decodes a block into dst, whose capacity is no less than want, or
// than the block size. It may write beyond.
func (f *FS) readBlock(dst []byte, start int64, word uint32, want int) ([]byte, error) {
	stored := int64(word &^ rawBlock)
	if stored == 0 || stored > int64(f.sb.BlockSize) || start < superSize || start > int64(f.sb.Used)-stored {
		return nil, badFormat(start, "a block of %d stored bytes", stored)
	}
	if word&rawBlock != 0 {
		if want >= 0 && stored != int64(want) {
			return nil, badFormat(start, "a block of %d bytes where %d belong", stored, want)
		}
		dst = dst[:stored]
		return dst, f.readAt(dst, start, "data")
	}
	buf := f.buffer()
	defer f.scratch.Put(buf)
	in := (*buf)[:stored]
	if err := f.readAt(in, start, "data"); err != nil {
		return nil, err
	}
	size := want
	if want < 0 {
		size = int(f.sb.BlockSize)
	}
	out, err := f.dec.decode(dst, in, size)
	if err != nil {
		return nil, &FormatError{Offset: start, Msg: "a block does not decode", Err: err}
	}
	if want >= 0 && len(out) != want {
		return nil, badFormat(start, "a block of %d bytes where %d belong", len(out), want)
	}
	return out, nil
}

func (h *file) err(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return pathError(op, h.name, err)
}

func (h *file) Stat() (fs.FileInfo, error) {
	if h.closed.Load() {
		return nil, h.err("stat", fs.ErrClosed)
	}
	return h.f.info("stat", h.name, h.n)
}

func (h *file) Close() error {
	if h.closed.Swap(true) {
		return h.err("close", fs.ErrClosed)
	}
	return nil
}

func (h *file) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed.Load() {
		return 0, h.err("read", fs.ErrClosed)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if h.pos >= h.size {
		return 0, io.EOF
	}
	n, err := h.readAt(p, h.pos)
	h.pos += int64(n)
	return n, h.err("read", err)
}

func (h *file) ReadAt(p []byte, off int64) (int, error) {
	if h.closed.Load() {
		return 0, h.err("read", fs.ErrClosed)
	}
	if off < 0 {
		return 0, h.err("read", fs.ErrInvalid)
	}
	n, err := h.readAt(p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, h.err("read", err)
}

func (h *file) Seek(offset int64, whence int) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed.Load() {
		return 0, h.err("seek", fs.ErrClosed)
	}
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += h.pos
	case io.SeekEnd:
		offset += h.size
	default:
		return 0, h.err("seek", fs.ErrInvalid)
	}
	if offset < 0 {
		return 0, h.err("seek", fs.ErrInvalid)
	}
	h.pos = offset
	return offset, nil
}

// WriteTo writes the rest of the file, block by block.
func (h *file) WriteTo(w io.Writer) (total int64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed.Load() {
		return 0, h.err("read", fs.ErrClosed)
	}
	buf := h.f.buffer()
	defer h.f.scratch.Put(buf)
	size := int64(h.f.sb.BlockSize)
	write := func(p []byte) error {
		n, err := w.Write(p)
		h.pos += int64(n)
		total += int64(n)
		return err
	}
	for h.pos < h.size {
		i, in := h.pos/size, h.pos%size
		var failed error
		err := func() error {
			if i >= h.n.blocks(size) {
				return h.withTail(func(tail []byte) error {
					failed = write(tail[in:])
					return nil
				})
			}
			p, err := h.wholeBlock(*buf, i)
			if err == nil {
				failed = write(p[in:])
			}
			return err
		}()
		if err != nil {
			return total, h.err("read", err)
		}
		if failed != nil {
			return total, failed
		}
	}
	return total, nil
}

// next reads the block at the position, or the tail, into buf, which has room
// for a block and slack. It may return a last piece with io.EOF.
func (h *file) next(buf []byte) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	size := int64(h.f.sb.BlockSize)
	i := h.pos / size
	switch {
	case h.closed.Load():
		return buf[:0], h.err("read", fs.ErrClosed)
	case h.pos >= h.size:
		return buf[:0], io.EOF
	case h.pos%size != 0:
		return buf[:0], h.err("read", fs.ErrInvalid)
	}
	var p []byte
	var err error
	if i < h.n.blocks(size) {
		p, err = h.wholeBlock(buf, i)
	} else {
		err = h.withTail(func(tail []byte) error {
			p = append(buf[:0], tail...)
			return nil
		})
	}
	if err != nil {
		return buf[:0], h.err("read", err)
	}
	if h.pos += int64(len(p)); h.pos == h.size {
		err = io.EOF
	}
	return p, err
}

// wholeBlock decodes block i into buf.
func (h *file) wholeBlock(buf []byte, i int64) ([]byte, error) {
	size := int64(h.f.sb.BlockSize)
	want := int(min(size, h.size-i*size))
	word, start, err := h.block(i)
	if err != nil {
		return nil, err
	}
	if word == 0 {
		clear(buf[:want])
		return buf[:want], nil
	}
	return h.f.readBlock(buf[:0], start, word, want)
}

// dir is an open directory.
type dir struct {
	f    *FS
	n    *node
	name string

	mu     sync.Mutex
	l      *listing
	closed bool
}

func (d *dir) Stat() (fs.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, pathError("stat", d.name, fs.ErrClosed)
	}
	return d.f.info("stat", d.name, d.n)
}

func (d *dir) Read([]byte) (int, error) { return 0, pathError("read", d.name, errIsDir) }

func (d *dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return pathError("close", d.name, fs.ErrClosed)
	}
	d.closed = true
	return nil
}

func (d *dir) ReadDir(n int) ([]fs.DirEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, pathError("readdir", d.name, fs.ErrClosed)
	}
	if n <= 0 {
		n = -1
	}
	list, err := d.f.readEntries(d.n, d.l, n)
	switch {
	case err != nil:
		return list, pathError("readdir", d.name, err)
	case n > 0 && len(list) == 0:
		return nil, io.EOF
	}
	return list, nil
}
