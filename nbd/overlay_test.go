package nbd

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// bytesBase is a read-only device in memory that counts on nobody writing.
type bytesBase []byte

func (b bytesBase) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(b).ReadAt(p, off)
}
func (b bytesBase) Size() int64        { return int64(len(b)) }
func (b bytesBase) Features() Features { return Features{MultiConn: true} }

func randomBytes(seed uint64, n int) []byte {
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	p := make([]byte, n)
	_, _ = rng.Read(p)
	return p
}

// overlayKinds runs a test over each store.
func overlayKinds(t *testing.T, test func(t *testing.T, open func(base Device) *Overlay)) {
	t.Run("memory", func(t *testing.T) { test(t, NewOverlay) })
	t.Run("file", func(t *testing.T) {
		test(t, func(base Device) *Overlay {
			o, err := OpenOverlay(base, filepath.Join(t.TempDir(), "o"), "id")
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, o.Close()) })
			return o
		})
	})
}

// TestOverlayModel writes and reads pieces of any offset and length, and
// compares with a plain slice.
func TestOverlayModel(t *testing.T) {
	for _, size := range []int{1, 512, 4096, 4097, 3*chunkBytes + 5*4096 + 1536} {
		overlayKinds(t, func(t *testing.T, open func(base Device) *Overlay) {
			base := randomBytes(1, size)
			pristine := bytes.Clone(base)
			model := bytes.Clone(base)
			o := open(bytesBase(base))
			rng := rand.New(rand.NewPCG(2, uint64(size)))
			for i := range 1500 {
				off := rng.IntN(size)
				n := min(size-off, 1+rng.IntN([]int{700, 9000, 600000}[rng.IntN(3)]))
				if rng.IntN(2) == 0 { // as file systems do
					off, n = off&^511, min(size-off&^511, (n+511)&^511)
				}
				switch {
				case i == 1000:
					require.NoError(t, o.Reset())
					require.Zero(t, o.Usage())
					copy(model, base)
				case rng.IntN(4) == 0:
					flags := []ZeroFlags{0, 0, ZeroFast, ZeroNoHole}[rng.IntN(4)]
					require.NoError(t, o.Zero(int64(off), int64(n), flags))
					clear(model[off : off+n])
				case rng.IntN(8) == 0:
					require.NoError(t, o.Trim(int64(off), int64(n)))
					from, to := (off+4095)&^4095, off+n
					if to < size {
						to &^= 4095
					}
					if from < to {
						clear(model[from:to])
					}
				case rng.IntN(2) == 0:
					p := randomBytes(uint64(i), n)
					m, err := o.WriteAt(p, int64(off))
					require.NoError(t, err)
					require.Equal(t, n, m)
					copy(model[off:], p)
				default:
					p := make([]byte, n)
					_, err := o.ReadAt(p, int64(off))
					require.NoError(t, err)
					require.True(t, bytes.Equal(model[off:off+n], p), "read %d at %d", n, off)
				}
				if rng.IntN(100) == 0 {
					require.NoError(t, o.Sync())
				}
			}
			all := make([]byte, size+10)
			n, err := o.ReadAt(all, 0)
			require.ErrorIs(t, err, io.EOF)
			require.True(t, bytes.Equal(model, all[:n]))
			require.True(t, bytes.Equal(pristine, base), "the base was written to")
			checkExtents(t, o, model)
			image := filepath.Join(t.TempDir(), "image")
			require.NoError(t, o.Commit(t.Context(), image))
			all, err = os.ReadFile(image)
			require.NoError(t, err)
			require.True(t, bytes.Equal(model, all), "the committed image")
			require.LessOrEqual(t, o.Usage(), int64(size+overlayBlock))
		})
	}
}

// checkExtents asks in small steps and checks that what is said to be zero is.
func checkExtents(t *testing.T, dev Device, content []byte) {
	t.Helper()
	dst := make([]Extent, 3)
	for off := int64(0); off < dev.Size(); {
		n, err := dev.(Extenter).Extents(off, dev.Size()-off, dst)
		require.NoError(t, err)
		require.Positive(t, n)
		for _, e := range dst[:n] {
			require.Positive(t, e.Length)
			require.LessOrEqual(t, off+e.Length, dev.Size())
			if e.Zero {
				require.Empty(t, bytes.Trim(content[off:off+e.Length], "\x00"), "at %d", off)
			}
			off += e.Length
		}
	}
}

func TestOverlayBounds(t *testing.T) {
	overlayKinds(t, func(t *testing.T, open func(base Device) *Overlay) {
		o := open(bytesBase(make([]byte, 10000)))
		_, err := o.WriteAt(make([]byte, 2), 9999)
		require.ErrorIs(t, err, syscall.ENOSPC)
		_, err = o.WriteAt(make([]byte, 2), 1<<62)
		require.ErrorIs(t, err, syscall.ENOSPC)
		_, err = o.WriteAt(nil, -1)
		require.ErrorIs(t, err, fs.ErrInvalid)
		_, err = o.ReadAt(make([]byte, 1), -1)
		require.ErrorIs(t, err, fs.ErrInvalid)
		_, err = o.ReadAt(make([]byte, 1), 10000)
		require.ErrorIs(t, err, io.EOF)
		require.Zero(t, o.Usage())
		require.Equal(t, o.Features(), FeaturesOf(o))
	})
}

// TestOverlayQuota: what does not fit is refused and changes nothing; what is
// stored already can still be written.
func TestOverlayQuota(t *testing.T) {
	overlayKinds(t, func(t *testing.T, open func(base Device) *Overlay) {
		base := randomBytes(3, 10*overlayBlock)
		o := open(bytesBase(base))
		o.Quota = 2 * overlayBlock
		_, err := o.WriteAt([]byte("one"), 100)
		require.NoError(t, err)
		_, err = o.WriteAt([]byte("two"), 5*overlayBlock)
		require.NoError(t, err)
		_, err = o.WriteAt([]byte("three"), 7*overlayBlock)
		require.ErrorIs(t, err, syscall.ENOSPC)
		n, err := o.WriteAt(make([]byte, 3*overlayBlock), 0)
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.Zero(t, n)
		_, err = o.WriteAt([]byte("ONE"), 100)
		require.NoError(t, err)
		require.EqualValues(t, 2*overlayBlock, o.Usage())
		copy(base[100:], "ONE")
		copy(base[5*overlayBlock:], "two")
		got := make([]byte, len(base))
		_, err = o.ReadAt(got, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(base, got))
	})
}

// TestOverlayConcurrent: neighbours write parts of the same fresh blocks at
// the same time; none may lose what another wrote.
func TestOverlayConcurrent(t *testing.T) {
	overlayKinds(t, func(t *testing.T, open func(base Device) *Overlay) {
		const writers, piece, blocks = 8, overlayBlock / 8, 1000
		o := open(zeroBase(blocks * overlayBlock))
		want := make([]byte, o.Size())
		for i := range want {
			want[i] = byte(1 + i/piece%writers)
		}
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				q := make([]byte, piece)
				for i := range int64(blocks) {
					off := i*overlayBlock + int64(w)*piece
					p := want[off : off+piece]
					if _, err := o.WriteAt(p, off); err != nil {
						t.Error(err)
					}
					if _, err := o.ReadAt(q, off); err != nil || !bytes.Equal(p, q) {
						t.Error("a finished write was not seen", err)
					}
					if i%200 == 0 {
						if err := o.Sync(); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		got := make([]byte, o.Size())
		_, err := o.ReadAt(got, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "a neighbour's write was lost")
		require.EqualValues(t, blocks*overlayBlock, o.Usage())
	})
}

func TestOverlayKeepsWhatWasFlushed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "o")
	base := bytesBase(randomBytes(6, 1<<20+100))
	o, err := OpenOverlay(base, dir, "gen1")
	require.NoError(t, err)
	_, err = o.WriteAt([]byte("kept"), 1<<20)
	require.NoError(t, err)
	if runtime.GOOS == "linux" { // where directories have locks
		_, err = OpenOverlay(base, dir, "gen1")
		require.ErrorIs(t, err, syscall.EBUSY)
	}
	require.NoError(t, o.Close())
	_, err = o.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = o.WriteAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, fs.ErrClosed)

	o, err = OpenOverlay(base, dir, "gen1")
	require.NoError(t, err)
	p := make([]byte, 4)
	_, err = o.ReadAt(p, 1<<20)
	require.NoError(t, err)
	require.Equal(t, "kept", string(p))
	require.EqualValues(t, overlayBlock, o.Usage())
	require.NoError(t, o.Close())

	used, err := overlayUsage(dir)
	require.NoError(t, err)
	require.EqualValues(t, overlayBlock, used)
}

// TestOverlayRefuses: whatever does not fit together is refused, and left as
// it is.
func TestOverlayRefuses(t *testing.T) {
	base := bytesBase(make([]byte, 1<<20))
	for what, harm := range map[string]func(dir string) error{
		"map lost":        func(dir string) error { return os.Remove(filepath.Join(dir, "map")) },
		"data lost":       func(dir string) error { return os.Remove(filepath.Join(dir, "data")) },
		"data cut":        func(dir string) error { return os.Truncate(filepath.Join(dir, "data"), 5) },
		"map cut":         func(dir string) error { return os.Truncate(filepath.Join(dir, "map"), 4096) },
		"map empty":       func(dir string) error { return os.Truncate(filepath.Join(dir, "map"), 0) },
		"map header":      func(dir string) error { return poke(filepath.Join(dir, "map"), 30, 0xff) },
		"map magic":       func(dir string) error { return poke(filepath.Join(dir, "map"), 0, 'x') },
		"bit past base":   func(dir string) error { return poke(filepath.Join(dir, "map"), 4096+256/4, 1) },
		"bit past data":   func(dir string) error { return poke(filepath.Join(dir, "map"), 4096+255/4, 0x08) },
		"no known state":  func(dir string) error { return poke(filepath.Join(dir, "map"), 4096, 0x40) },
		"not a directory": func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "o")
			o, err := OpenOverlay(base, dir, "gen1")
			require.NoError(t, err)
			_, err = o.WriteAt([]byte("x"), 4096)
			require.NoError(t, err)
			require.NoError(t, o.Close())
			require.NoError(t, harm(dir))
			for range 2 {
				_, err = OpenOverlay(base, dir, "gen1")
				require.Error(t, err)
				t.Log(err)
			}
		})
	}
	dir := filepath.Join(t.TempDir(), "o")
	o, err := OpenOverlay(base, dir, "gen1")
	require.NoError(t, err)
	require.NoError(t, o.Close())
	_, err = OpenOverlay(base, dir, "gen2")
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = OpenOverlay(base[512:], dir, "gen1")
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = OpenOverlay(base, filepath.Join(dir, "no", "parent"), "gen1")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// hugeBase is a base that only says that it is large.
type hugeBase int64

func (b hugeBase) Size() int64                     { return int64(b) }
func (hugeBase) Features() Features                { return Features{Extents: true, Map: true} }
func (hugeBase) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }

// TestOverlayOverAnythingLarge: the size may be what another machine said.
func TestOverlayOverAnythingLarge(t *testing.T) {
	for _, size := range []int64{-1, maxOverlay + 1, 1 << 62, math.MaxInt64} {
		dir := filepath.Join(t.TempDir(), "o")
		_, err := OpenOverlay(hugeBase(size), dir, "x")
		require.ErrorIs(t, err, fs.ErrInvalid)
		o := NewOverlay(hugeBase(size))
		require.Equal(t, size, o.Size())
		if size < 0 {
			continue
		}
		p := make([]byte, 512)
		_, err = o.ReadAt(p, 0)
		require.ErrorIs(t, err, fs.ErrInvalid)
		_, err = o.WriteAt(p, 0)
		require.ErrorIs(t, err, fs.ErrInvalid)
		_, err = o.Extents(0, 512, make([]Extent, 1))
		require.ErrorIs(t, err, fs.ErrInvalid)
		_, err = o.Map(0, 512, nil)
		require.ErrorIs(t, err, fs.ErrInvalid)
		for what, err := range map[string]error{
			"trim": o.Trim(0, 4096), "zero": o.Zero(0, 4096, 0), "sync": o.Sync(), "reset": o.Reset(),
			"commit": o.Commit(t.Context(), filepath.Join(t.TempDir(), "c")),
		} {
			require.ErrorIs(t, err, fs.ErrInvalid, what)
		}
		require.Zero(t, o.Usage())
		require.False(t, o.Lost())
		require.NoError(t, o.Close())
	}
	o := NewOverlay(hugeBase(maxOverlay))
	_, err := o.WriteAt(make([]byte, 4096), maxOverlay-4096)
	require.NoError(t, err)
	require.EqualValues(t, 4096, o.Usage())
}

func poke(path string, off int64, b byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{b}, off)
	return errors.Join(err, f.Close())
}

// failingBase fails reads on demand.
type failingBase struct {
	bytesBase
	err error
}

func (b *failingBase) ReadAt(p []byte, off int64) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	return b.bytesBase.ReadAt(p, off)
}

func TestOverlayBaseFails(t *testing.T) {
	overlayKinds(t, func(t *testing.T, open func(base Device) *Overlay) {
		base := &failingBase{bytesBase: randomBytes(7, 3*overlayBlock)}
		o := open(base)
		base.err = syscall.EIO
		_, err := o.WriteAt([]byte("x"), 10) // cannot be merged
		require.ErrorIs(t, err, syscall.EIO)
		require.Zero(t, o.Usage())
		_, err = o.WriteAt(make([]byte, overlayBlock), overlayBlock) // need not be
		require.NoError(t, err)
		base.err = io.EOF // shorter than it said
		_, err = o.ReadAt(make([]byte, 1), 0)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		base.err = nil
		got := make([]byte, 2*overlayBlock)
		_, err = o.ReadAt(got, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(got[:overlayBlock], base.bytesBase[:overlayBlock]))
		require.True(t, bytes.Equal(got[overlayBlock:], make([]byte, overlayBlock)))
	})
}

func TestOverlayReadDoesNotAllocate(t *testing.T) {
	overlayKinds(t, func(t *testing.T, open func(base Device) *Overlay) {
		o := open(zeroBase(1 << 20))
		_, err := o.WriteAt(make([]byte, 5000), 3000)
		require.NoError(t, err)
		p := make([]byte, 64<<10)
		require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = o.ReadAt(p, 0) }))
	})
}

// zeroBase is a base of zeroes.
type zeroBase int64

func (z zeroBase) ReadAt(p []byte, off int64) (int, error) { clear(p); return len(p), nil }
func (z zeroBase) Size() int64                             { return int64(z) }
func (z zeroBase) Features() Features                      { return Features{} }

// FuzzOverlayMap opens an overlay whose map, and what a killed process left
// beside it, is anything.
func FuzzOverlayMap(f *testing.F) {
	const size = 40 * overlayBlock
	s := &fileStore{baseSize: size, id: "id"}
	s.boot, s.blocks = newCrashDir().host, newBlockMap(size)
	none, all := make([]byte, mapPageBytes), bytes.Repeat([]byte{0xff}, mapPageBytes)
	some := append([]byte{0x13}, none[1:]...)
	f.Add([]byte{}, []byte{}, []byte{})
	f.Add(s.header(), none, s.liveHeader())
	f.Add(s.header(), none, append(s.liveHeader(), some...))
	f.Add(s.header(), none, append(s.liveHeader(), all...))
	f.Add(s.header(), all, []byte{})
	f.Fuzz(func(t *testing.T, header, words, live []byte) {
		d := newCrashDir()
		files := map[string][]byte{"map": append(header[:len(header):len(header)], words...), "data": make([]byte, size), "live": live}
		for name, text := range files {
			file, err := d.open(name, true)
			require.NoError(t, err)
			_, err = file.WriteAt(text, 0)
			require.NoError(t, err)
		}
		s, err := openFileStore(d, size, "id")
		if err != nil {
			return
		}
		o := &Overlay{base: zeroBase(size), size: size, store: s}
		_, err = o.ReadAt(make([]byte, size), 0)
		require.NoError(t, err)
		require.LessOrEqual(t, s.count(), int64(size/overlayBlock))
	})
}

func BenchmarkOverlay(b *testing.B) {
	const size = 256 << 20
	for _, kind := range []string{"memory", "file"} {
		for _, op := range []string{"read", "write"} {
			b.Run(kind+"/"+op+"4k", func(b *testing.B) {
				o := NewOverlay(zeroBase(size))
				if kind == "file" {
					var err error
					o, err = OpenOverlay(zeroBase(size), filepath.Join(b.TempDir(), "o"), "")
					require.NoError(b, err)
				}
				defer o.Close()
				p := make([]byte, 4096)
				rng := rand.New(rand.NewPCG(1, 2))
				for range 2000 {
					_, _ = o.WriteAt(p, rng.Int64N(size/4096)*4096)
				}
				b.ReportAllocs()
				b.SetBytes(4096)
				for b.Loop() {
					off := rng.Int64N(size/4096) * 4096
					var err error
					if op == "read" {
						_, err = o.ReadAt(p, off)
					} else {
						_, err = o.WriteAt(p, off)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
