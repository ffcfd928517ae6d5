package nbdtest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// TestDevice checks that dev keeps the contract of [nbd.Device] and of the
// abilities that its Features announce, and that it holds content. A device
// that can be written holds content again at the end. It is not closed.
//
// Reads are also made concurrently, so run it under the race detector.
func TestDevice(t *testing.T, dev nbd.Device, content []byte) {
	t.Helper()
	t.Run("size", func(t *testing.T) { testSize(t, dev, content) })
	t.Run("read", func(t *testing.T) { testRead(t, dev, content) })
	t.Run("read at the end", func(t *testing.T) { testEnd(t, dev, content) })
	t.Run("read concurrently", func(t *testing.T) { testConcurrent(t, dev, content) })
	testAbilities(t, dev, content)
	f := dev.Features()
	if f.Write {
		t.Run("write", func(t *testing.T) { testWrite(t, dev, content) })
		t.Run("write concurrently", func(t *testing.T) { testWriters(t, dev, content) })
		t.Run("write past the end", func(t *testing.T) { testWriteEnd(t, dev, content) })
	}
	if f.Flush {
		t.Run("sync", func(t *testing.T) {
			s, ok := dev.(nbd.Syncer)
			if !ok {
				t.Fatal("Features announces Flush, the device is no Syncer")
			}
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func testSize(t *testing.T, dev nbd.Device, content []byte) {
	if got := dev.Size(); got != int64(len(content)) {
		t.Fatalf("Size is %d, want %d", got, len(content))
	}
	if a, b := dev.Features(), dev.Features(); a != b {
		t.Fatalf("Features changes: %+v, then %+v", a, b)
	}
}

func testRead(t *testing.T, dev nbd.Device, content []byte) {
	size := len(content)
	for _, r := range ranges(size) {
		if err := checkRead(dev, content, r[0], r[1]); err != nil {
			t.Error(err)
		}
	}
	if n, err := dev.ReadAt(nil, 0); n != 0 || err != nil && err != io.EOF {
		t.Errorf("reading nothing: %d, %v", n, err)
	}
	if n, err := dev.ReadAt(make([]byte, 1), -1); n != 0 || err == nil {
		t.Errorf("reading at -1: %d, %v, want an error", n, err)
	}
}

// ranges returns offsets and lengths that meet the borders that devices have:
// sectors, blocks, and the end.
func ranges(size int) [][2]int {
	var rs [][2]int
	add := func(off, n int) {
		if off >= 0 && n > 0 && off+n <= size {
			rs = append(rs, [2]int{off, n})
		}
	}
	for _, unit := range []int{1, 512, 4096, 64 << 10} {
		for _, d := range []int{-1, 0, 1} {
			add(unit+d, unit)
			add(unit, unit+d)
			add(2*unit+d, 3)
			add(size-unit+d, unit-d)
			add(size-unit-1, unit)
		}
	}
	add(0, 1)
	add(0, size)
	add(size-1, 1)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		if size > 0 {
			off := rnd.IntN(size)
			add(off, 1+rnd.IntN(min(size-off, 20000)))
		}
	}
	return rs
}

func checkRead(dev nbd.Device, content []byte, off, n int) error {
	p := bytes.Repeat([]byte{0xa5}, n+2)
	m, err := dev.ReadAt(p[1:1+n:1+n], int64(off))
	switch {
	case m != n:
		return fmt.Errorf("reading %d bytes at %d: got %d and %v", n, off, m, err)
	case err != nil && (err != io.EOF || off+n != len(content)):
		return fmt.Errorf("reading %d bytes at %d: %v", n, off, err)
	case !bytes.Equal(p[1:1+n], content[off:off+n]):
		return fmt.Errorf("reading %d bytes at %d: wrong data", n, off)
	case p[0] != 0xa5 || p[n+1] != 0xa5:
		return fmt.Errorf("reading %d bytes at %d: bytes beside the buffer have changed", n, off)
	}
	return nil
}

func testEnd(t *testing.T, dev nbd.Device, content []byte) {
	size := len(content)
	for _, off := range []int{size, size + 1, size + 4096, size + 1<<30} {
		if n, err := dev.ReadAt(make([]byte, 512), int64(off)); n != 0 || err != io.EOF {
			t.Errorf("reading at %d of %d: %d, %v, want 0, io.EOF", off, size, n, err)
		}
	}
	if size == 0 {
		return
	}
	over := min(size, 700)
	p := make([]byte, over+100)
	n, err := dev.ReadAt(p, int64(size-over))
	if n != over || err != io.EOF || !bytes.Equal(p[:n], content[size-over:]) {
		t.Errorf("reading %d bytes, %d before the end: %d, %v, want %d bytes of content and io.EOF", len(p), over, n, err, over)
	}
}

func testConcurrent(t *testing.T, dev nbd.Device, content []byte) {
	if len(content) == 0 {
		return
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 7))
			for range 50 {
				off := rnd.IntN(len(content))
				if err := checkRead(dev, content, off, 1+rnd.IntN(min(len(content)-off, 10000))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// testWrite writes ranges one after the other and compares the whole device
// with a model after each, then puts content back.
func testWrite(t *testing.T, dev nbd.Device, content []byte) {
	w, ok := dev.(io.WriterAt)
	if !ok {
		t.Fatal("Features announces Write, the device is no io.WriterAt")
	}
	model := bytes.Clone(content)
	defer restore(t, dev, content)
	got := make([]byte, len(content))
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, r := range ranges(len(content)) {
		off, n := r[0], r[1]
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		before := bytes.Clone(p)
		if m, err := w.WriteAt(p, int64(off)); m != n || err != nil {
			t.Fatalf("writing %d bytes at %d: %d, %v", n, off, m, err)
		}
		if !bytes.Equal(p, before) {
			t.Fatalf("writing %d bytes at %d changed the caller's buffer", n, off)
		}
		copy(model[off:], p)
		clear(p) // a device must not keep it
		if m, err := dev.ReadAt(got, 0); m != len(got) || err != nil && err != io.EOF {
			t.Fatalf("reading all: %d, %v", m, err)
		}
		if i := firstDiff(got, model); i >= 0 {
			t.Fatalf("after writing %d bytes at %d the device is wrong at %d", n, off, i)
		}
	}
}

// testWriters has neighbours write interleaved pieces of a few hundred bytes:
// blocks that several writers change at once must keep all their changes.
func testWriters(t *testing.T, dev nbd.Device, content []byte) {
	const writers, piece = 8, 300
	if len(content) < writers*piece {
		return
	}
	w := dev.(io.WriterAt)
	defer restore(t, dev, content)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte(i + 1)}, piece)
			for off := i * piece; off+piece <= len(content); off += writers * piece {
				if n, err := w.WriteAt(p, int64(off)); n != piece || err != nil {
					t.Errorf("writing %d bytes at %d: %d, %v", piece, off, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	model := bytes.Clone(content)
	for off := 0; off+piece <= len(content); off += piece {
		copy(model[off:], bytes.Repeat([]byte{byte(off/piece%writers + 1)}, piece))
	}
	got := make([]byte, len(content))
	if n, err := dev.ReadAt(got, 0); n != len(got) || err != nil && err != io.EOF {
		t.Fatalf("reading all: %d, %v", n, err)
	}
	if i := firstDiff(got, model); i >= 0 {
		t.Fatalf("after concurrent writes the device is wrong at %d", i)
	}
}

func testWriteEnd(t *testing.T, dev nbd.Device, content []byte) {
	w := dev.(io.WriterAt)
	defer restore(t, dev, content)
	for _, off := range []int{-1, len(content), len(content) - 1, len(content) + 1<<30} {
		if n, err := w.WriteAt(make([]byte, 512), int64(off)); err == nil {
			t.Errorf("writing 512 bytes at %d of %d: %d and no error", off, len(content), n)
		}
	}
	if got := dev.Size(); got != int64(len(content)) {
		t.Errorf("the size became %d", got)
	}
}

func restore(t *testing.T, dev nbd.Device, content []byte) {
	if n, err := dev.(io.WriterAt).WriteAt(content, 0); n != len(content) || err != nil {
		t.Errorf("putting the content back: %d, %v", n, err)
	}
}

func firstDiff(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}
