package nbd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

func needMaps(t testing.TB) {
	if runtime.GOOS != "linux" || math.MaxInt == math.MaxInt32 {
		t.Skip("nothing is mapped here")
	}
}

// mapped returns what the segments of a range hold, through a pipe: they are
// for system calls only.
func mapped(t *testing.T, dev nbd.Device, off, n int64) []byte {
	t.Helper()
	segs, err := dev.(nbd.Mapper).Map(off, n, nil)
	require.NoError(t, err)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	sent := make(chan struct{})
	go func() { // ends with the reading below
		defer close(sent)
		for _, s := range segs {
			p := s.Data
			if p == nil {
				p = make([]byte, s.Zeroes)
			}
			if _, err := w.Write(p); err != nil || int64(len(p)) != s.Len() {
				break
			}
		}
		w.Close()
	}()
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	<-sent
	for i := range segs {
		segs[i].Release()
	}
	return got
}

// What is mapped is what is read, whatever was done to the device.
func TestMapIsRead(t *testing.T) {
	needMaps(t)
	content := pattern(1<<20 + 777)
	path := tempFile(t, content)
	base, err := nbd.OpenFile(path)
	require.NoError(t, err)
	defer base.Close()
	rw, err := nbd.OpenFileRW(tempFile(t, content))
	require.NoError(t, err)
	defer rw.Close()
	stored, err := nbd.OpenOverlay(base, filepath.Join(t.TempDir(), "o"), "base")
	require.NoError(t, err)
	defer stored.Close()
	below := nbd.NewOverlay(base)
	images := &nbd.Images{}
	require.NoError(t, images.Add(t.Context(), "img", path))
	defer images.Close()
	image, err := images.OpenNBD(t.Context(), &nbd.Request{Export: "img"})
	require.NoError(t, err)
	defer image.(io.Closer).Close()
	devs := map[string]nbd.Device{
		"file": base, "writable file": rw, "image": image, "stored overlay": stored,
		"overlay": nbd.NewOverlay(image), "overlay over overlays": nbd.NewOverlay(nbd.NewOverlay(below)),
		"pass": nbd.Pass{Device: stored}, "stats": new(nbd.Stats).Filter(rw), "read-only": nbd.ReadOnly(below),
	}
	for name, dev := range devs {
		t.Run(name, func(t *testing.T) {
			require.True(t, dev.Features().Map)
			rnd := rand.New(rand.NewPCG(1, 2))
			part := func() (off, n int64) {
				off = rnd.Int64N(dev.Size())
				return off, 1 + rnd.Int64N(min(dev.Size()-off, []int64{512, 9000, 700 << 10}[rnd.IntN(3)]))
			}
			for i := range 300 {
				off, n := part()
				if dev.Features().Write {
					switch i % 4 {
					case 0:
						_, err := dev.(io.WriterAt).WriteAt(pattern(int(n)), off)
						require.NoError(t, err)
					case 1:
						require.NoError(t, dev.(nbd.Zeroer).Zero(off, n, 0))
					case 2:
						require.NoError(t, dev.(nbd.Trimmer).Trim(off, n))
					}
					off, n = part()
				}
				want := make([]byte, n)
				_, err := dev.ReadAt(want, off)
				if err != nil {
					require.ErrorIs(t, err, io.EOF)
				}
				if !bytes.Equal(want, mapped(t, dev, off, n)) {
					t.Fatalf("step %d: %d bytes at %d are read in one way and mapped in another", i, n, off)
				}
			}
			_, err := dev.(nbd.Mapper).Map(dev.Size()-1, 2, nil)
			require.Error(t, err)
		})
	}
}

// A filter that may hold reads up, or that breaks them, is not gone around.
func TestSlowFiltersAreNotMapped(t *testing.T) {
	f, err := nbd.OpenFile(tempFile(t, pattern(4096)))
	require.NoError(t, err)
	defer f.Close()
	for _, filter := range []nbd.Filter{nbd.Delay{}.Filter, new(nbd.Faults).Filter} {
		dev := filter(f)
		require.False(t, dev.Features().Map)
		require.True(t, dev.Features().Slow)
		_, err := dev.(nbd.Mapper).Map(0, 512, nil)
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
	require.False(t, nbd.FeaturesOf(nbd.NewOverlay(nbd.Delay{}.Filter(f))).Map)
}

// Requests of all lengths, many at once, over what is mapped and what is not.
func TestReadsOfEveryKind(t *testing.T) {
	content := pattern(8<<20 + 100)
	clear(content[1<<20 : 3<<20])
	file, err := nbd.OpenFile(tempFile(t, content))
	require.NoError(t, err)
	defer file.Close()
	overlay := nbd.NewOverlay(file)
	for off := 0; off < 2<<20; off += 8192 { // many segments
		_, err := overlay.WriteAt(pattern(4096), int64(off))
		require.NoError(t, err)
		copy(content[off:], pattern(4096))
	}
	require.NoError(t, overlay.Zero(3<<20, 1<<20, 0))
	clear(content[3<<20 : 4<<20])
	content = append(content, make([]byte, int(file.Size())-len(content))...)
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	require.NoError(t, err)
	for name, dev := range map[string]nbd.Device{"mapped": overlay, "copied": nbd.NewReaderAt(bytes.NewReader(content), int64(len(content)))} {
		srv := &nbd.Server{Handler: anyName{dev}, Logger: quiet}
		addr := nbdtest.ServeServer(t, srv)
		if name == "mapped" {
			go func() { _ = srv.Serve(l) }() // ends with its server
		}
		for _, network := range []string{"tcp", "unix"} {
			for _, structured := range []bool{false, true} {
				t.Run(fmt.Sprint(name, network, structured), func(t *testing.T) {
					if network == "unix" {
						if name != "mapped" {
							t.SkipNow()
						}
						addr = sock
					}
					nc, err := net.Dial(network, addr)
					require.NoError(t, err)
					defer nc.Close()
					r := (&raw{t, nc}).greet(3)
					if structured {
						r.send(option(optStructured, nil))
						r.recv(20)
					}
					r.open("x")
					rnd := rand.New(rand.NewPCG(3, 4))
					for _, depth := range []int{1, 3, 700} {
						var reqs []byte
						offs, lens := make([]int, depth), make([]int, depth)
						for i := range depth {
							lens[i] = 1 + rnd.IntN([]int{512, 4096, 128 << 10, 3 << 20}[rnd.IntN(4)])
							if depth > 100 {
								lens[i] = 1 + rnd.IntN(4096)
							}
							offs[i] = rnd.IntN(len(content) - lens[i] + 1)
							reqs = append(reqs, request(0, cmdRead, uint64(i), uint64(offs[i]), lens[i])...)
						}
						go r.Write(reqs)
						for i := range depth {
							want := content[offs[i]:][:lens[i]]
							if structured {
								require.True(t, bytes.Equal(want, r.chunks(uint64(i), lens[i], offs[i])), "read %d of %d", i, depth)
								continue
							}
							require.Zero(t, r.simple(uint64(i)))
							require.True(t, bytes.Equal(want, r.recv(lens[i])), "read %d of %d", i, depth)
						}
					}
				})
			}
		}
	}
}

// chunks collects a structured read.
func (r *raw) chunks(cookie uint64, n, off int) []byte {
	r.t.Helper()
	p := bytes.Repeat([]byte{0xee}, n)
	for {
		h := r.recv(20)
		require.EqualValues(r.t, magicStructured, binary.BigEndian.Uint32(h))
		require.Equal(r.t, cookie, binary.BigEndian.Uint64(h[8:]))
		body := r.recv(int(binary.BigEndian.Uint32(h[16:])))
		at := int(binary.BigEndian.Uint64(body)) - off
		switch typ := binary.BigEndian.Uint16(h[6:]); typ {
		case 1:
			copy(p[at:], body[8:])
		case 2:
			clear(p[at:][:binary.BigEndian.Uint32(body[8:])])
		default:
			r.t.Fatalf("a chunk of type %d", typ)
		}
		if h[5]&1 != 0 {
			return p
		}
	}
}

// A file that was cut in place fails where it was cut, and nowhere else, and
// the connection goes on.
func TestCutFile(t *testing.T) {
	for _, structured := range []bool{false, true} {
		content := pattern(1 << 20)
		path := tempFile(t, content)
		f, err := nbd.OpenFile(path)
		require.NoError(t, err)
		defer f.Close()
		r := dialRaw(t, serve(t, f)).greet(3)
		if structured {
			r.send(option(optStructured, nil))
			r.recv(20)
		}
		r.open("x")
		ask := func(off, n int) {
			r.send(cat(request(0, cmdRead, 1, 0, 5000), request(0, cmdRead, 2, uint64(off), n), request(0, cmdRead, 3, 4096, 100<<10)))
		}
		good := func(cookie uint64, off, n int) {
			if structured {
				require.True(t, bytes.Equal(content[off:][:n], r.chunks(cookie, n, off)))
				return
			}
			require.Zero(t, r.simple(cookie))
			require.True(t, bytes.Equal(content[off:][:n], r.recv(n)))
		}
		ask(600<<10, 200<<10)
		good(1, 0, 5000)
		good(2, 600<<10, 200<<10)
		good(3, 4096, 100<<10)
		require.NoError(t, os.Truncate(path, 700<<10+50)) // within a page
		for _, off := range []int{600 << 10, 700<<10 + 100, 900 << 10} {
			ask(off, 120<<10)
			good(1, 0, 5000)
			if structured {
				h := r.recv(20)
				require.EqualValues(t, 1<<15|2, binary.BigEndian.Uint16(h[6:]))
				body := r.recv(int(binary.BigEndian.Uint32(h[16:])))
				require.EqualValues(t, eIO, binary.BigEndian.Uint32(body))
			} else {
				require.Equal(t, eIO, r.simple(2))
			}
			good(3, 4096, 100<<10)
		}
	}
}

// fading is a file whose first MiB is gone from memory when it is to be sent,
// and cannot be read either.
type fading struct {
	*nbd.File
	m *nbd.Mapping
}

func (d *fading) Map(off, n int64, dst []nbd.Segment) ([]nbd.Segment, error) {
	if off >= 1<<20 {
		return d.File.Map(off, n, dst)
	}
	s, ok := d.m.Segment(off, n)
	if !ok {
		return dst, errors.ErrUnsupported
	}
	return append(dst, s), d.m.Close()
}

func (d *fading) ReadAt(p []byte, off int64) (int, error) {
	if off < 1<<20 {
		return 0, syscall.EIO
	}
	return d.File.ReadAt(p, off)
}

// A reply that became an error at its first piece has no others.
func TestLongReadFailsWhenItIsSent(t *testing.T) {
	needMaps(t)
	content := pattern(4 << 20)
	path := tempFile(t, content)
	file, err := nbd.OpenFile(path)
	require.NoError(t, err)
	defer file.Close()
	for _, n := range []int{1<<20 + 512, 3 << 20} {
		f, err := os.Open(path)
		require.NoError(t, err)
		defer f.Close()
		m, err := nbd.MapFile(f, 4<<20)
		require.NoError(t, err)
		r := dialRaw(t, serve(t, &fading{file, m})).greet(3)
		r.open("x")
		r.send(cat(request(0, cmdRead, 1, 0, n), request(0, cmdRead, 2, 2<<20, 512)))
		require.Equal(t, eIO, r.simple(1))
		require.Zero(t, r.simple(2))
		require.Equal(t, content[2<<20:][:512], r.recv(512))
	}
}

// A Mapping that is closed under its users is gone for the kernel, and its
// place stays taken until the last one has let go.
func TestMappingClose(t *testing.T) {
	needMaps(t)
	f, err := os.Open(tempFile(t, pattern(64<<10)))
	require.NoError(t, err)
	defer f.Close()
	m, err := nbd.MapFile(f, 64<<10)
	require.NoError(t, err)
	seg, ok := m.Segment(4096, 8192)
	require.True(t, ok)
	for _, bad := range [][2]int64{{-1, 5}, {0, 0}, {64 << 10, 1}, {1, 64 << 10}, {1<<63 - 1, 2}} {
		_, ok := m.Segment(bad[0], bad[1])
		require.False(t, ok, bad)
	}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	n, err := w.Write(seg.Data)
	require.NoError(t, err)
	require.Equal(t, 8192, n)
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	_, err = w.Write(seg.Data)
	require.ErrorContains(t, err, "bad address")
	_, ok = m.Segment(0, 1)
	require.False(t, ok)
	seg.Release()
	seg.Release()
}

// An overlay that is reset, or closed, while replies wait for a client that
// does not take them: what comes is the old or the new content.
func TestResetUnderReaders(t *testing.T) {
	const size, block = 32 << 20, 4096
	base := bytes.Repeat([]byte{'b'}, size)
	file, err := nbd.OpenFile(tempFile(t, base))
	require.NoError(t, err)
	defer file.Close()
	stored, err := nbd.OpenOverlay(file, filepath.Join(t.TempDir(), "o"), "base")
	require.NoError(t, err)
	for name, o := range map[string]*nbd.Overlay{"memory": nbd.NewOverlay(file), "stored": stored} {
		t.Run(name, func(t *testing.T) {
			defer o.Close()
			_, err := o.WriteAt(bytes.Repeat([]byte{'o'}, size), 0)
			require.NoError(t, err)
			addr := serve(t, o)
			r := dialRaw(t, addr).greet(3)
			r.open("x")
			other := dialRaw(t, addr).greet(3)
			other.open("x")
			const n, reads = 512 << 10, 60
			for i := range reads {
				r.send(request(0, cmdRead, uint64(i), uint64(i*n), n))
			}
			r.recv(16 + 100) // the first is on its way, and the last cannot be
			require.NoError(t, o.Reset())
			// The end of the file comes back, as a hole before what is written.
			other.send(cat(request(0, cmdWrite, 7, size-block, block), bytes.Repeat([]byte{'n'}, block)))
			require.Zero(t, other.simple(7))
			got := r.recv(n - 100)
			for i := range reads {
				if i > 0 {
					require.Zero(t, r.simple(uint64(i)))
					got = r.recv(n)
				}
				for j, c := range got {
					if c != 'b' && c != 'o' {
						t.Fatalf("byte %d of read %d is %q", j, i, c)
					}
				}
				if i == reads-1 {
					require.EqualValues(t, 'b', got[n-100-1], "the reset was not seen")
				}
			}
		})
	}
}

func BenchmarkMap(b *testing.B) {
	needMaps(b)
	f, err := nbd.OpenFile(tempFile(b, make([]byte, 16<<20)))
	require.NoError(b, err)
	defer f.Close()
	o := nbd.NewOverlay(f)
	_, err = o.WriteAt(make([]byte, 8192), 4096)
	require.NoError(b, err)
	segs := make([]nbd.Segment, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		segs, err = o.Map(0, 128<<10, segs[:0])
		if err != nil || len(segs) != 4 {
			b.Fatal(len(segs), err)
		}
		for i := range segs {
			segs[i].Release()
		}
	}
}
