package squash

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
)

// storedBlock is a block of data as files describe it.
type storedBlock struct {
	start int64
	word  uint32
	want  int    // decoded bytes, -1 for a fragment block
	need  uint32 // of a fragment block: where the last tail in it ends
	path  string // of the first file in it
}

func (b *storedBlock) end() int64 { return b.start + int64(b.word&^rawBlock) }

// fragUse is what files want of a fragment block.
type fragUse struct {
	need uint32
	path string
}

// file notes a regular file's blocks.
func (v *verifier) file(name string, n *node) bool {
	c := v.f.inodes()
	if c.seek(int64(v.f.sb.InodeStart), n.ref>>16, int(n.ref&0xffff)) == nil {
		if b, err := c.take(16 + 40); err == nil && binary.LittleEndian.Uint16(b) > extended {
			sparse := binary.LittleEndian.Uint64(b[32:])
			if !v.require(sparse <= uint64(n.size), name, c.off, "a file of %d bytes with %d bytes of holes", n.size, sparse) {
				return false
			}
		}
	}
	size := int64(v.f.sb.BlockSize)
	// Inodes that overlap could stand for more blocks than anybody can look at.
	had := v.room
	if v.room -= n.blocks(size); v.room < 0 {
		return v.require(had < 0, name, c.off, "files of more blocks than the inode table has room for, so that their inodes overlap")
	}
	h := v.f.open(name, n)
	for i := range n.blocks(size) {
		if i%groupWords == 0 && v.done() {
			return false
		}
		word, start, err := h.block(i)
		if err != nil {
			return v.bad(name, err)
		}
		if word != 0 && !v.block(storedBlock{start: start, word: word, want: int(min(size, n.size-i*size)), path: name}) {
			return false
		}
	}
	if tail := n.tail(size); tail > 0 {
		u, again := v.frags[n.frag]
		if !again {
			u.path = name
		}
		u.need = max(u.need, n.fragOff+uint32(tail))
		v.frags[n.frag] = u
	}
	return true
}

// block notes a block to decode.
func (v *verifier) block(b storedBlock) bool {
	old, again := v.blocks[b.start]
	switch stored := int64(b.word &^ rawBlock); {
	case again:
		return v.require(old.word == b.word && old.want == b.want, b.path, b.start, "a block that %q describes as another", old.path)
	case stored == 0 || stored > int64(v.f.sb.BlockSize):
		return v.require(false, b.path, b.start, "a block of %d stored bytes", stored)
	case b.start < v.dataStart || b.start > int64(v.f.sb.InodeStart)-stored:
		return v.require(false, b.path, b.start, "a block of %d stored bytes that is not in the data area, bytes %d to %d", stored, v.dataStart, v.f.sb.InodeStart)
	}
	v.blocks[b.start] = b
	return true
}

// data decodes every block, in the order in which they lie in the image.
func (v *verifier) data() bool {
	for i := range v.f.sb.Fragments {
		if i%1024 == 0 && v.done() {
			return false
		}
		start, word, err := v.f.fragment(i)
		if err != nil {
			if !v.bad("", err) {
				return false
			}
			break // as will be those after it
		}
		u := v.frags[i]
		if !v.block(storedBlock{start: start, word: word, want: -1, need: u.need, path: u.path}) {
			return false
		}
	}
	all := make([]storedBlock, 0, len(v.blocks))
	for _, b := range v.blocks {
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b storedBlock) int { return cmp.Compare(a.start, b.start) })
	kept := all[:0] // what overlaps is not decoded, or a small image could be endless work
	for _, b := range all {
		if len(kept) > 0 && kept[len(kept)-1].end() > b.start {
			if last := kept[len(kept)-1]; !v.require(false, b.path, b.start, "a block that overlaps the one at byte %d, of %q", last.start, last.path) {
				return false
			}
			continue
		}
		kept = append(kept, b)
	}
	return v.decodeAll(kept)
}

type found struct {
	path string
	err  error
}

// decodeAll lets workers decode blocks and yields what they find.
func (v *verifier) decodeAll(blocks []storedBlock) bool {
	ctx, cancel := context.WithCancel(v.ctx)
	results := make(chan found)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(v.o.Workers, len(blocks)) {
		wg.Go(func() {
			dst := make([]byte, v.f.sb.BlockSize+slack)
			for i := next.Add(1) - 1; i < int64(len(blocks)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := v.decode(dst, &blocks[i]); err != nil {
					select {
					case results <- found{blocks[i].path, err}:
					case <-ctx.Done():
					}
				}
			}
		})
	}
	go func() { // ends when the workers have
		wg.Wait()
		close(results)
	}()
	defer func() {
		cancel()
		for range results { // until the workers have ended
		}
	}()
	for r := range results {
		if !v.bad(r.path, r.err) {
			return false
		}
	}
	return !v.done()
}

func (v *verifier) decode(dst []byte, b *storedBlock) error {
	buf := v.f.buffer()
	defer v.f.scratch.Put(buf)
	out := (*buf)[:b.word&^rawBlock]
	if err := v.f.readAt(out, b.start, "data"); err != nil {
		return err
	}
	var refused error // by Linux
	if b.word&rawBlock == 0 {
		refused = v.stream(out, b.start)
		size := int(v.f.sb.BlockSize)
		if b.want >= 0 {
			size = b.want
		}
		var err error
		if out, err = v.f.dec.decode(dst[:0], out, size); err != nil {
			if refused != nil {
				return refused
			}
			return &FormatError{Offset: b.start, Msg: "a block does not decode", Err: err}
		}
	}
	if b.want >= 0 && len(out) != b.want {
		return badFormat(b.start, "a block of %d bytes where %d belong", len(out), b.want)
	}
	if int(b.need) > len(out) {
		return badFormat(b.start, "a fragment block of %d bytes with a tail that ends at %d", len(out), b.need)
	}
	return refused
}
