package tftp

import (
	"container/list"
	"encoding/binary"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"github.com/pin/tftp/v3/netascii"
)

const (
	sharedSegment  = 128 << 10
	privateSegment = 8 << 10
	defaultCache   = 128 << 20
)

// cache holds what transfers of files with an ID share. A file's bytes are
// kept as the DATA packets of one block size, so that sending is all that is
// left to do, and as long as somebody reads the file.
type cache struct {
	limit   int64 // bytes; the last use decides what goes
	mu      sync.Mutex
	sources map[sourceKey]*source
	recent  list.List // of *segment, the most recent first
	held    int64
	scratch sync.Pool       // of *[]byte, for reading
	reads   *sync.WaitGroup // the goroutines that read
}

type sourceKey struct {
	id   string
	size int64
	blk  int
}

// source is a file cut into segments of whole blocks.
type source struct {
	cache  *cache
	key    sourceKey
	shared bool
	name   string // for errors
	file   File
	stream io.Reader // netascii: what can be read in order only; else nil
	per    int64     // blocks in a segment
	refs   int       // transfers and readers; guarded by cache.mu

	mu   sync.Mutex
	segs map[int64]*segment
}

// segment is a run of framed blocks. Its fields are written once, before it is
// filled.
type segment struct {
	src     *source
	n       int64 // its number
	first   int64 // its first block; blocks count from 1
	blocks  int64 // how many there are
	final   bool  // the last of them ends the file
	err     error // why there are no more
	buf     []byte
	filled  bool          // guarded by source.mu
	waiting []*transfer   // likewise
	elem    *list.Element // guarded by cache.mu
}

// open makes the file a source, or finds the one that the same content has
// already; then f is closed. release gives it back.
func (c *cache) open(f File, name string, blk int, ascii bool) *source {
	s := &source{cache: c, name: name, file: f, refs: 1, segs: make(map[int64]*segment), key: sourceKey{f.ID(), f.Size(), blk}}
	size := privateSegment
	if s.shared = s.key.id != "" && !ascii && c.limit > 0; s.shared {
		size = sharedSegment
	}
	for s.per = 1; s.per*2*int64(4+blk) <= int64(size); {
		s.per *= 2 // windows are powers of two, too, and then never straddle
	}
	if ascii {
		s.stream = netascii.ToReader(&inOrder{s: s})
	}
	if !s.shared {
		return s
	}
	c.mu.Lock()
	old := c.sources[s.key]
	if old != nil {
		old.refs++
	} else {
		if c.sources == nil {
			c.sources = make(map[sourceKey]*source)
		}
		c.sources[s.key] = s
	}
	c.mu.Unlock()
	if old != nil {
		f.Close()
		return old
	}
	return s
}

// release ends one use; the last one closes the file.
func (s *source) release() {
	c := s.cache
	c.mu.Lock()
	s.refs--
	last := s.refs == 0
	if last && s.shared {
		delete(c.sources, s.key)
	}
	c.mu.Unlock()
	if !last {
		return
	}
	s.mu.Lock()
	segs := s.segs
	s.segs = nil
	s.mu.Unlock()
	c.mu.Lock()
	for _, g := range segs {
		c.forget(g)
	}
	c.mu.Unlock()
	s.file.Close()
}

// forget takes a segment out of the account. mu is held.
func (c *cache) forget(g *segment) {
	if g.elem != nil {
		c.recent.Remove(g.elem)
		g.elem = nil
		c.held -= int64(cap(g.buf))
	}
}

// segment returns the one with the block. It is nil while it is being read; t
// is resumed then.
func (s *source) segment(t *transfer, block int64) *segment {
	n := (block - 1) / s.per
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.segs[n]
	if g == nil {
		g = s.read(n)
	}
	if !g.filled {
		g.waiting = append(g.waiting, t)
		return nil
	}
	return g
}

// ahead sees to it that the segment after g is read while g is sent.
func (s *source) ahead(g *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !g.final && g.err == nil && s.segs[g.n+1] == nil {
		s.read(g.n + 1)
	}
	if !s.shared {
		for i, old := range s.segs {
			if old.filled && (i < g.n || i > g.n+1) {
				delete(s.segs, i)
			}
		}
	}
}

// read starts reading a segment. s.mu is held.
func (s *source) read(n int64) *segment {
	g := &segment{src: s, n: n, first: n*s.per + 1}
	s.segs[n] = g
	s.cache.mu.Lock()
	s.refs++
	s.cache.mu.Unlock()
	s.cache.reads.Add(1) // while a transfer is counted, too
	go func() {          // ends when the file has been read
		defer s.cache.reads.Done()
		g.fill()
		s.mu.Lock()
		g.filled = true
		waiting := g.waiting
		g.waiting = nil
		if g.err != nil {
			delete(s.segs, n) // the next one that asks tries again; a failed stream fails again
		}
		s.mu.Unlock()
		if s.shared && g.err == nil {
			s.cache.account(g)
		}
		for _, t := range waiting {
			t.filled(g)
		}
		s.release()
	}()
	return g
}

// account counts a segment, and drops those that were not used for longest
// when there are too many.
func (c *cache) account(g *segment) {
	c.mu.Lock()
	c.held += int64(cap(g.buf))
	g.elem = c.recent.PushFront(g)
	var drop []*segment
	for c.held > c.limit && c.recent.Len() > 1 {
		old := c.recent.Back().Value.(*segment)
		c.forget(old)
		drop = append(drop, old)
	}
	c.mu.Unlock()
	for _, old := range drop {
		old.src.mu.Lock()
		if old.src.segs[old.n] == old {
			delete(old.src.segs, old.n)
		}
		old.src.mu.Unlock()
	}
}

// used says that a transfer has come to this segment.
func (c *cache) used(g *segment) {
	c.mu.Lock()
	if g.elem != nil {
		c.recent.MoveToFront(g.elem)
	}
	c.mu.Unlock()
}

// fill reads the file and frames it.
func (g *segment) fill() {
	s := g.src
	blk := int64(s.key.blk)
	off := (g.first - 1) * blk
	want := s.per * blk
	if s.stream == nil {
		want = min(want, s.key.size-off)
	}
	scratch, _ := s.cache.scratch.Get().(*[]byte)
	if scratch == nil || int64(cap(*scratch)) < want {
		b := make([]byte, want)
		scratch = &b
	}
	defer s.cache.scratch.Put(scratch)
	data := (*scratch)[:want]
	n, err := s.read1(data, off)
	data = data[:n]
	whole := int64(n) / blk
	if g.blocks = whole; err == io.EOF && whole < s.per {
		g.final = true
		g.blocks++ // the short block at the end, perhaps empty
	} else if err != nil && err != io.EOF {
		g.err = fmt.Errorf("tftp: reading %q at %d of %d: %w", s.name, off+int64(n), s.key.size, err)
	}
	g.buf = make([]byte, 0, 4*g.blocks+min(int64(n), g.blocks*blk))
	for i := range g.blocks {
		part := data[i*blk : min((i+1)*blk, int64(n))]
		g.buf = binary.BigEndian.AppendUint16(append(g.buf, 0, opDATA), uint16(g.first+i))
		g.buf = append(g.buf, part...)
	}
}

// read1 fills p from the file as the client gets it, and returns io.EOF when
// that is where it ends.
func (s *source) read1(p []byte, off int64) (n int, err error) {
	if s.stream == nil {
		n, err = s.readAt(p, off)
		if err == nil && off+int64(n) == s.key.size {
			err = io.EOF
		}
		return n, err
	}
	n, err = io.ReadFull(s.stream, p)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

// errShort: a short file must not look like a complete one to the client.
var errShort = fmt.Errorf("shorter than it said: %w", io.ErrUnexpectedEOF)

// readAt fills p with bytes of the file.
func (s *source) readAt(p []byte, off int64) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the file panicked: %v\n%s", v, debug.Stack())
		}
	}()
	for empty := 0; n < len(p); {
		m, err := s.file.ReadAt(p[n:], off+int64(n))
		if m < 0 || m > len(p)-n {
			return n, fmt.Errorf("ReadAt returned %d for %d bytes", m, len(p)-n)
		}
		n += m
		switch {
		case n == len(p):
		case err == io.EOF:
			return n, errShort
		case err != nil:
			return n, err
		case m == 0:
			if empty++; empty == 10 {
				return n, io.ErrNoProgress
			}
		}
	}
	return n, nil
}

// inOrder reads a source's file from its beginning.
type inOrder struct {
	s   *source
	off int64
}

func (r *inOrder) Read(p []byte) (int, error) {
	left := r.s.key.size - r.off
	if left == 0 {
		return 0, io.EOF
	}
	n, err := r.s.readAt(p[:min(int64(len(p)), left)], r.off)
	r.off += int64(n)
	return n, err
}

// frames returns the packets of count blocks from block on, in one piece.
func (g *segment) frames(block, count int64) []byte {
	size := int64(4 + g.src.key.blk)
	from := (block - g.first) * size
	return g.buf[from:min(from+count*size, int64(len(g.buf)))]
}
