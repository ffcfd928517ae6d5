package nbdtest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// testAbilities checks that what Features announces is there and does what its
// interface says.
func testAbilities(t *testing.T, dev nbd.Device, content []byte) {
	f := dev.Features()
	t.Run("features", func(t *testing.T) { testFeatures(t, dev) })
	if f.Trim {
		t.Run("trim", func(t *testing.T) { testTrim(t, dev, content) })
	}
	if f.Zero {
		t.Run("zero", func(t *testing.T) { testZero(t, dev, content) })
	}
	if f.Cache {
		t.Run("cache", func(t *testing.T) { testCache(t, dev, content) })
	}
	if f.Extents {
		t.Run("extents", func(t *testing.T) { testExtents(t, dev, content) })
	}
}

func testFeatures(t *testing.T, dev nbd.Device) {
	f := dev.Features()
	if real := nbd.FeaturesOf(dev); real != f {
		t.Errorf("Features announces %+v, of which there is only %+v", f, real)
	}
	if m := f.MinBlock; m < 0 || m > 64<<10 || m&(m-1) != 0 {
		t.Errorf("MinBlock is %d", m)
	}
	if p := f.PreferredBlock; p != 0 && (p < max(512, f.MinBlock) || p > 32<<20 || p&(p-1) != 0) {
		t.Errorf("PreferredBlock is %d, MinBlock is %d", p, f.MinBlock)
	}
}

// testTrim: what was trimmed is anybody's guess, what is beside it is not.
func testTrim(t *testing.T, dev nbd.Device, content []byte) {
	tr, ok := dev.(nbd.Trimmer)
	if !ok {
		t.Fatal("Features announces Trim, the device is no Trimmer")
	}
	defer restore(t, dev, content)
	got := make([]byte, len(content))
	for _, r := range ranges(len(content)) {
		restore(t, dev, content)
		off, n := r[0], r[1]
		if err := tr.Trim(int64(off), int64(n)); err != nil {
			t.Fatalf("trimming %d bytes at %d: %v", n, off, err)
		}
		if m, err := dev.ReadAt(got, 0); m != len(got) || err != nil && err != io.EOF {
			t.Fatalf("reading all: %d, %v", m, err)
		}
		copy(got[off:off+n], content[off:])
		if i := firstDiff(got, content); i >= 0 {
			t.Fatalf("after trimming %d bytes at %d the device has changed at %d", n, off, i)
		}
	}
}

// testZero compares with a model after each Zero. One that must be fast may
// refuse, and has then changed nothing.
func testZero(t *testing.T, dev nbd.Device, content []byte) {
	z, ok := dev.(nbd.Zeroer)
	if !ok {
		t.Fatal("Features announces Zero, the device is no Zeroer")
	}
	w := dev.(io.WriterAt)
	fast := dev.Features().FastZero
	model := bytes.Clone(content)
	defer restore(t, dev, content)
	got := make([]byte, len(content))
	rnd := rand.New(rand.NewPCG(5, 6))
	for i, r := range ranges(len(content)) {
		off, n := r[0], r[1]
		var flags nbd.ZeroFlags
		if i%2 == 0 {
			flags |= nbd.ZeroNoHole
		}
		if fast && i%3 == 0 {
			flags |= nbd.ZeroFast
		}
		switch err := z.Zero(int64(off), int64(n), flags); {
		case err == nil:
			clear(model[off : off+n])
		case flags&nbd.ZeroFast == 0 || !errors.Is(err, errors.ErrUnsupported):
			t.Fatalf("zeroing %d bytes at %d, flags %d: %v", n, off, flags, err)
		}
		if m, err := dev.ReadAt(got, 0); m != len(got) || err != nil && err != io.EOF {
			t.Fatalf("reading all: %d, %v", m, err)
		}
		if i := firstDiff(got, model); i >= 0 {
			t.Fatalf("after zeroing %d bytes at %d, flags %d, the device is wrong at %d", n, off, flags, i)
		}
		// Something to zero, and a write over zeroes.
		p := make([]byte, min(700, len(content)))
		for i := range p {
			p[i] = byte(rnd.Uint32() | 1)
		}
		at := rnd.IntN(len(content) - len(p) + 1)
		if m, err := w.WriteAt(p, int64(at)); m != len(p) || err != nil {
			t.Fatalf("writing %d bytes at %d: %d, %v", len(p), at, m, err)
		}
		copy(model[at:], p)
	}
}

func testCache(t *testing.T, dev nbd.Device, content []byte) {
	c, ok := dev.(nbd.Cacher)
	if !ok {
		t.Fatal("Features announces Cache, the device is no Cacher")
	}
	for _, r := range ranges(len(content)) {
		if err := c.Cache(int64(r[0]), int64(r[1])); err != nil {
			t.Errorf("caching %d bytes at %d: %v", r[1], r[0], err)
		}
		if err := checkRead(dev, content, r[0], r[1]); err != nil {
			t.Error(err)
		}
	}
}

// testExtents asks with room for one, for a few and for many extents. What
// they call zero has to be.
func testExtents(t *testing.T, dev nbd.Device, content []byte) {
	x, ok := dev.(nbd.Extenter)
	if !ok {
		t.Fatal("Features announces Extents, the device is no Extenter")
	}
	if n, err := x.Extents(0, 0, make([]nbd.Extent, 1)); n != 0 || err != nil {
		t.Errorf("the extents of nothing: %d, %v", n, err)
	}
	for i, r := range ranges(len(content)) {
		off, n := r[0], r[1]
		dst := make([]nbd.Extent, []int{1, 3, 1000}[i%3])
		count, err := x.Extents(int64(off), int64(n), dst)
		if err != nil || count < 1 || count > len(dst) {
			t.Fatalf("extents of %d bytes at %d, at most %d: %d, %v", n, off, len(dst), count, err)
		}
		at := int64(off)
		for _, e := range dst[:count] {
			if e.Length <= 0 || e.Length > int64(off+n)-at {
				t.Fatalf("extents of %d bytes at %d: one of %d bytes at %d", n, off, e.Length, at)
			}
			if e.Zero && len(bytes.Trim(content[at:at+e.Length], "\x00")) > 0 {
				t.Fatalf("extents of %d bytes at %d: those from %d to %d are said to be zero and are not", n, off, at, at+e.Length)
			}
			at += e.Length
		}
	}
}
