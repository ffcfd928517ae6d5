package nbd_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

func (r *raw) structured() *raw {
	r.t.Helper()
	r.send(option(optStructured, nil))
	r.wantReply(optStructured, repAck)
	return r
}

func metaData(name string, queries ...string) []byte {
	p := cat(u32(len(name)), []byte(name), u32(len(queries)))
	for _, q := range queries {
		p = cat(p, u32(len(q)), []byte(q))
	}
	return p
}

func (r *raw) meta(opt int, name string, queries ...string) (found []string) {
	r.t.Helper()
	r.send(option(opt, metaData(name, queries...)))
	for {
		typ, data := r.reply(opt)
		if typ == repAck {
			return found
		}
		require.Equal(r.t, repMeta, typ, "%q", data)
		found = append(found, string(data[4:]))
	}
}

func (r *raw) setMeta(name string, queries ...string) []string {
	r.t.Helper()
	return r.meta(optSetMeta, name, queries...)
}

// chunk takes one chunk of a structured reply.
func (r *raw) chunk(cookie uint64) (done bool, typ int, data []byte) {
	r.t.Helper()
	h := r.recv(20)
	require.Equal(r.t, uint32(magicStructured), binary.BigEndian.Uint32(h))
	require.Equal(r.t, cookie, binary.BigEndian.Uint64(h[8:]))
	flags := binary.BigEndian.Uint16(h[4:])
	require.Zero(r.t, flags&^1)
	return flags&1 != 0, int(binary.BigEndian.Uint16(h[6:])), r.recv(int(binary.BigEndian.Uint32(h[16:])))
}

// failed takes an error chunk that ends a reply.
func (r *raw) failed(cookie uint64) (code int, off int64) {
	r.t.Helper()
	done, typ, p := r.chunk(cookie)
	require.True(r.t, done)
	n := int(binary.BigEndian.Uint16(p[4:]))
	off = -1
	switch typ {
	case 1<<15 | 1:
		require.Len(r.t, p, 6+n)
	case 1<<15 | 2:
		require.Len(r.t, p, 6+n+8)
		off = int64(binary.BigEndian.Uint64(p[6+n:]))
	default:
		r.t.Fatalf("chunk of type %#x, want an error", typ)
	}
	require.NotEmpty(r.t, p[6:6+n])
	return int(binary.BigEndian.Uint32(p)), off
}

// gather takes a whole reply to a read, and says which kinds of chunks it had.
func (r *raw) gather(cookie, off uint64, n int) (p []byte, kinds []int) {
	r.t.Helper()
	p = bytes.Repeat([]byte{0xa5}, n)
	seen := 0
	for done := false; !done; {
		var typ int
		var data []byte
		done, typ, data = r.chunk(cookie)
		at := int(binary.BigEndian.Uint64(data) - off)
		switch typ {
		case 1:
			seen += copy(p[at:], data[8:])
		case 2:
			m := int(binary.BigEndian.Uint32(data[8:]))
			clear(p[at : at+m])
			seen += m
		default:
			r.t.Fatalf("chunk of type %#x", typ)
		}
		kinds = append(kinds, typ)
	}
	require.Equal(r.t, n, seen)
	return p, kinds
}

// holey is 4 MiB with zeroes in the second, and in half of the third.
func holey() []byte {
	content := pattern(4 << 20)
	clear(content[1<<20 : 5<<19])
	return content
}

func TestStructuredReads(t *testing.T) {
	content := holey()
	r := dialRaw(t, serve(t, nbdtest.NewMemory(bytes.Clone(content)))).greet(3).structured()
	_, flags := r.open("x")
	require.NotZero(t, flags&(1<<7), "no DF")
	for i, c := range []struct {
		off, n int
		flags  int
		kinds  []int
	}{
		{0, 4 << 20, 0, []int{1, 2, 1, 1}},
		{1 << 20, 4096, 0, []int{2}},
		{1 << 20, 4095, 0, []int{1}},
		{1<<20 - 1, 1<<20 + 2, 0, []int{1, 2}},
		{5<<19 - 5000, 6000, 0, []int{2, 1}},
		{5<<19 - 1, 6000, 0, []int{1}},
		{0, 4 << 20, 1 << 2, []int{1}},
		{1 << 20, 1 << 20, 1 << 2, []int{1}},
		{1, 1, 1 << 2, []int{1}},
	} {
		r.send(request(c.flags, cmdRead, uint64(i), uint64(c.off), c.n))
		got, kinds := r.gather(uint64(i), uint64(c.off), c.n)
		require.True(t, bytes.Equal(content[c.off:c.off+c.n], got), "%+v", c)
		require.Equal(t, c.kinds, kinds, "%+v", c)
	}
	r.send(request(0, cmdRead, 50, 0, 0))
	done, typ, data := r.chunk(50)
	require.True(t, done && typ == 0 && len(data) == 0)

	for _, c := range []struct{ flags, n, code int }{{0, 32<<20 + 1, eINVAL}, {1 << 2, 5 << 20, eINVAL}, {1 << 3, 512, eINVAL}, {1 << 1, 512, eINVAL}} {
		r.send(request(c.flags, cmdRead, 60, 0, c.n))
		code, _ := r.failed(60)
		require.Equal(t, c.code, code)
	}
	r.send(request(0, cmdWrite, 61, 5<<20, 3))
	r.send([]byte("abc"))
	code, _ := r.failed(61)
	require.Equal(t, eNOSPC, code)
	r.send(append(request(0, cmdWrite, 62, 0, 3), "abc"...))
	require.Zero(t, r.simple(62))
	r.send(request(0, cmdStatus, 63, 0, 512))
	code, _ = r.failed(63)
	require.Equal(t, eINVAL, code, "block status without a context")

	big := dialRaw(t, serve(t, nbd.NewReaderAt(zeroes{}, 1<<40))).greet(3).structured()
	big.open("x")
	big.send(request(1<<2, cmdRead, 1, 0, 32<<20+1))
	code, _ = big.failed(1)
	require.Equal(t, eOVERFLOW, code)
}

type zeroes struct{}

func (zeroes) ReadAt(p []byte, off int64) (int, error) { clear(p); return len(p), nil }

// With chunks an error in the middle of a long read has a place to go.
func TestStructuredReadFails(t *testing.T) {
	content := pattern(4 << 20)
	mem := nbdtest.NewMemory(bytes.Clone(content))
	dev := &stub{Memory: mem, readAt: func(p []byte, off int64) (int, error) {
		if off+int64(len(p)) > 2<<20 {
			return 0, syscall.EIO
		}
		return mem.ReadAt(p, off)
	}}
	r := dialRaw(t, serve(t, dev)).greet(3).structured()
	r.open("x")
	r.send(request(0, cmdRead, 1, 0, 4<<20))
	for range 2 {
		done, typ, _ := r.chunk(1)
		require.False(t, done)
		require.Equal(t, 1, typ)
	}
	code, off := r.failed(1)
	require.Equal(t, eIO, code)
	require.Equal(t, int64(2<<20), off)
	r.send(request(0, cmdRead, 2, 100, 512))
	got, _ := r.gather(2, 100, 512)
	require.Equal(t, content[100:612], got)
	// In one piece it cannot be said.
	r.send(request(1<<2, cmdRead, 3, 1<<20, 2<<20))
	_, err := io.Copy(io.Discard, r)
	require.NoError(t, err)
}

func TestMetaContexts(t *testing.T) {
	mem := nbdtest.NewMemory(make([]byte, 8192))
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: nbd.Exports{
		"any": nbd.Share(mem), "other": nbd.Share(mem), "plain": nbd.Share(nbd.NewReaderAt(zeroes{}, 8192)),
	}})
	r := dialRaw(t, addr).greet(3)
	r.send(option(optSetMeta, metaData("any", "base:allocation")))
	r.wantReply(optSetMeta, errInvalid) // structured replies come first
	r.send(option(optStructured, []byte("x")))
	r.wantReply(optStructured, errInvalid)
	r.structured()
	base := []string{"base:allocation"}
	require.Equal(t, base, r.meta(optListMeta, "any"))
	require.Equal(t, base, r.meta(optListMeta, "any", "base:"))
	require.Equal(t, base, r.meta(optListMeta, "any", "qemu:", "base:allocation"))
	require.Empty(t, r.meta(optListMeta, "any", "qemu:"))
	require.Empty(t, r.meta(optListMeta, "plain"))
	require.Empty(t, r.setMeta("any"))
	require.Empty(t, r.setMeta("any", "base:", "base:alloc", "qemu:dirty-bitmap:x", ""))
	require.Empty(t, r.setMeta("plain", "base:allocation"))
	for _, p := range [][]byte{
		nil, metaData("any", "x")[:10], append(metaData("any", "x"), 0), cat(u32(most32), []byte("any"), u32(0)),
		cat(u32(3), []byte("any"), u32(most32)), cat(u32(3), []byte("any"), u32(1), u32(most32), []byte("x")),
		cat(u32(3), []byte("any"), u32(2), u32(1), []byte("x")), metaData("a\x00", "x"),
	} {
		for _, opt := range []int{optListMeta, optSetMeta} {
			r.send(option(opt, p))
			r.wantReply(opt, errInvalid)
		}
	}
	r.send(option(optSetMeta, metaData("nobody", "base:allocation")))
	r.wantReply(optSetMeta, errUnknown)

	// A context counts for its export, until it is set anew.
	for _, c := range []struct {
		set func(r *raw)
		ok  bool
	}{
		{func(r *raw) { r.setMeta("any", "x:y", "base:allocation") }, true},
		{func(r *raw) { r.setMeta("other", "base:allocation") }, false},
		{func(r *raw) { r.setMeta("any", "base:allocation"); r.setMeta("any") }, false},
		{func(r *raw) {
			r.setMeta("any", "base:allocation")
			r.send(option(optSetMeta, nil))
			r.wantReply(optSetMeta, errInvalid)
		}, false},
	} {
		r := dialRaw(t, addr).greet(3).structured()
		c.set(r)
		r.open("any")
		r.send(request(0, cmdStatus, 1, 0, 512))
		if c.ok {
			done, typ, data := r.chunk(1)
			require.True(t, done)
			require.Equal(t, 5, typ)
			require.Equal(t, cat(u32(1), u32(512), u32(3)), data)
		} else {
			code, _ := r.failed(1)
			require.Equal(t, eINVAL, code)
		}
	}
}

func TestBlockStatus(t *testing.T) {
	content := holey()
	r := dialRaw(t, serve(t, nbdtest.NewMemory(content))).greet(3).structured()
	require.Len(t, r.setMeta("x", "base:allocation"), 1)
	r.open("x")
	for i, c := range []struct {
		flags, off, n int
		want          [][2]int
	}{
		{0, 0, 4 << 20, [][2]int{{1 << 20, 0}, {3 << 19, 3}, {3 << 19, 0}}},
		{1 << 3, 0, 4 << 20, [][2]int{{1 << 20, 0}}},
		{1 << 3, 0, 100, [][2]int{{100, 0}}},
		{0, 1<<20 - 1, 2, [][2]int{{1, 0}, {1, 3}}},
	} {
		r.send(request(c.flags, cmdStatus, uint64(i), uint64(c.off), c.n))
		want := u32(1)
		for _, e := range c.want {
			want = cat(want, u32(e[0]), u32(e[1]))
		}
		done, typ, data := r.chunk(uint64(i))
		require.True(t, done)
		require.Equal(t, 5, typ)
		require.Equal(t, want, data, "%+v", c)
	}
	for _, q := range [][]byte{
		request(0, cmdStatus, 9, 4<<20-1, 2), request(0, cmdStatus, 9, 1<<64-1, 2), request(0, cmdStatus, 9, 0, 0),
		request(1<<2, cmdStatus, 9, 0, 512), request(0, cmdStatus, 9, 4<<20, most32),
	} {
		r.send(q)
		code, _ := r.failed(9)
		require.Equal(t, eINVAL, code)
	}
}

// badExtents is an Extenter that does not keep its promises.
type badExtents struct {
	*nbdtest.Memory
	f func(off, n int64, dst []nbd.Extent) (int, error)
}

func (d badExtents) Extents(off, n int64, dst []nbd.Extent) (int, error) { return d.f(off, n, dst) }

func TestExtentsMisbehave(t *testing.T) {
	for name, f := range map[string]func(off, n int64, dst []nbd.Extent) (int, error){
		"error":    func(int64, int64, []nbd.Extent) (int, error) { return 0, syscall.EIO },
		"none":     func(int64, int64, []nbd.Extent) (int, error) { return 0, nil },
		"too many": func(_, _ int64, dst []nbd.Extent) (int, error) { return len(dst) + 1, nil },
		"negative": func(_, _ int64, dst []nbd.Extent) (int, error) { dst[0].Length = -1; return 1, nil },
		"too long": func(_, n int64, dst []nbd.Extent) (int, error) {
			dst[0] = nbd.Extent{Length: n + 1, Zero: true}
			return 1, nil
		},
		"panic": func(int64, int64, []nbd.Extent) (int, error) { panic("extents") },
	} {
		t.Run(name, func(t *testing.T) {
			content := pattern(64 << 10)
			r := dialRaw(t, serve(t, badExtents{nbdtest.NewMemory(content), f})).greet(3).structured()
			r.setMeta("x", "base:allocation")
			r.open("x")
			r.send(request(0, cmdStatus, 1, 0, 8192))
			code, _ := r.failed(1)
			require.Equal(t, eIO, code)
			r.send(request(0, cmdRead, 2, 0, 8192))
			got, _ := r.gather(2, 0, 8192)
			require.Equal(t, content[:8192], got)
		})
	}
}

// changes notes what of the commands without data reached the device.
type changes struct {
	*nbdtest.Memory
	features nbd.Features
	err      error
	got      []any
}

func (d *changes) Features() nbd.Features { return d.features }
func (d *changes) Trim(off, n int64) error {
	d.got = append(d.got, "trim", off, n)
	return d.err
}
func (d *changes) Zero(off, n int64, f nbd.ZeroFlags) error {
	d.got = append(d.got, "zero", off, n, f)
	return d.err
}
func (d *changes) Cache(off, n int64) error {
	d.got = append(d.got, "cache", off, n)
	return d.err
}

func TestTrimZeroCache(t *testing.T) {
	all := nbd.Features{Write: true, Flush: true, Trim: true, Zero: true, FastZero: true, Cache: true}
	const size = 1 << 40
	for _, c := range []struct {
		name       string
		mask       func(*nbd.Features)
		flags, typ int
		off        uint64
		n          int
		err        error
		code       int
		got        []any
		synced     int
	}{
		{name: "trim", typ: cmdTrim, off: 512, n: most32, got: []any{"trim", int64(512), int64(1<<32 - 1)}},
		{name: "trim FUA", flags: 1, typ: cmdTrim, n: 1, got: []any{"trim", int64(0), int64(1)}, synced: 1},
		{name: "trim masked", mask: func(f *nbd.Features) { f.Trim = false }, typ: cmdTrim, n: 1, code: eINVAL},
		{name: "zero", typ: cmdZeroes, n: most32, got: []any{"zero", int64(0), int64(1<<32 - 1), nbd.ZeroFlags(0)}},
		{name: "zero, all flags", flags: 1 | 1<<1 | 1<<4, typ: cmdZeroes, n: 1, got: []any{"zero", int64(0), int64(1), nbd.ZeroNoHole | nbd.ZeroFast}, synced: 1},
		{name: "zero fast, is not", flags: 1 << 4, typ: cmdZeroes, n: 1, err: syscall.EOPNOTSUPP, code: eNOTSUP, got: []any{"zero", int64(0), int64(1), nbd.ZeroFast}},
		{name: "zero fast masked", mask: func(f *nbd.Features) { f.FastZero = false }, flags: 1 << 4, typ: cmdZeroes, n: 1, code: eINVAL},
		{name: "zero, no space", flags: 1, typ: cmdZeroes, n: 1, err: syscall.ENOSPC, code: eNOSPC, got: []any{"zero", int64(0), int64(1), nbd.ZeroFlags(0)}},
		{name: "zero masked", mask: func(f *nbd.Features) { f.Zero = false }, typ: cmdZeroes, n: 1, code: eINVAL},
		{name: "FUA without flush", mask: func(f *nbd.Features) { f.Flush = false }, flags: 1, typ: cmdZeroes, n: 1, code: eINVAL},
		{name: "cache", typ: cmdCache, off: 4096, n: 1 << 20, got: []any{"cache", int64(4096), int64(1 << 20)}},
		{name: "cache masked", mask: func(f *nbd.Features) { f.Cache = false }, typ: cmdCache, n: 1, code: eINVAL},
		{name: "unaligned", mask: func(f *nbd.Features) { f.MinBlock = 4096 }, typ: cmdZeroes, off: 512, n: 4096, code: eINVAL},
		{name: "unaligned length", mask: func(f *nbd.Features) { f.MinBlock = 4096 }, typ: cmdTrim, n: 512, code: eINVAL},
		{name: "unaligned read", mask: func(f *nbd.Features) { f.MinBlock = 4096 }, typ: cmdRead, n: 512, code: eINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := &changes{Memory: nbdtest.NewMemory(nil), features: all, err: c.err}
			if c.mask != nil {
				c.mask(&dev.features)
			}
			r := dialRaw(t, serve(t, sized{dev, size})).greet(3)
			r.open("x")
			r.send(request(c.flags, c.typ, 1, c.off, c.n))
			require.Equal(t, c.code, r.simple(1))
			require.Equal(t, c.got, dev.got)
			require.Equal(t, c.synced, dev.Synced())
		})
	}
}

type sized struct {
	*changes
	size int64
}

func (d sized) Size() int64 { return d.size }

func TestBlockSizes(t *testing.T) {
	mem := nbdtest.NewMemory(make([]byte, 128<<10))
	features := mem.Features()
	features.MinBlock, features.PreferredBlock = 64<<10, 1<<20
	dev := &stub{Memory: mem, features: &features}
	dev.writeAt = func(p []byte, off int64) (int, error) {
		if (off|int64(len(p)))&(64<<10-1) != 0 {
			t.Errorf("a write of %d bytes at %d", len(p), off)
		}
		return mem.WriteAt(p, off)
	}
	r := dialRaw(t, serve(t, dev)).greet(3)
	r.send(option(optGo, goData("x", 3)))
	r.wantReply(optGo, repInfo)
	require.Equal(t, cat(u16(3), u32(64<<10), u32(1<<20), u32(32<<20)), r.wantReply(optGo, repInfo))
	r.wantReply(optGo, repAck)
	content := pattern(128 << 10)
	r.send(append(request(0, cmdWrite, 1, 0, len(content)), content...))
	require.Zero(t, r.simple(1))
	require.True(t, bytes.Equal(content, mem.Bytes()))
	r.send(append(request(0, cmdWrite, 2, 0, 512), content[:512]...))
	require.Equal(t, eINVAL, r.simple(2))

	for _, bad := range []nbd.Features{{MinBlock: 3}, {MinBlock: -1}, {MinBlock: 128 << 10}, {PreferredBlock: 256}, {MinBlock: 8192, PreferredBlock: 4096}, {PreferredBlock: 64 << 20}} {
		r := dialRaw(t, serve(t, &stub{Memory: mem, features: &bad})).greet(3)
		r.send(option(optGo, goData("x", 3)))
		r.wantReply(optGo, errShut)
	}
	odd := nbd.Features{MinBlock: 4096}
	r = dialRaw(t, serve(t, &stub{Memory: nbdtest.NewMemory(make([]byte, 5000)), features: &odd})).greet(3)
	r.send(option(optGo, goData("x", 3)))
	r.wantReply(optGo, errShut)
}
