package nbd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// The crash test records what a stored overlay does to its directory, replays
// every prefix of that as a loss of power could have left it, and opens what
// is there. What no sync protects may be lost, reordered or torn.

// sparseBytes is a file's content.
type sparseBytes struct {
	pages map[int64][]byte
	size  int64
}

func newSparse() *sparseBytes { return &sparseBytes{pages: make(map[int64][]byte)} }

func (s *sparseBytes) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < s.size {
		m := min(int64(len(p)-n), 4096-off%4096, s.size-off)
		if page := s.pages[off/4096]; page != nil {
			copy(p[n:n+int(m)], page[off%4096:])
		} else {
			clear(p[n : n+int(m)])
		}
		n, off = n+int(m), off+m
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *sparseBytes) WriteAt(p []byte, off int64) (n int, err error) {
	s.size = max(s.size, off+int64(len(p)))
	for n < len(p) {
		if s.pages[off/4096] == nil {
			s.pages[off/4096] = make([]byte, 4096)
		}
		m := copy(s.pages[off/4096][off%4096:], p[n:])
		n, off = n+m, off+int64(m)
	}
	return n, nil
}

func (s *sparseBytes) truncate(size int64) {
	for i, page := range s.pages {
		if i*4096 >= size {
			delete(s.pages, i)
		} else if (i+1)*4096 > size {
			clear(page[size-i*4096:])
		}
	}
	s.size = size
}

// crashOp is one recorded step.
type crashOp struct {
	kind     string // write, truncate, sync, link, rename, remove, syncdir, or a mark of the test
	file     int
	off      int64
	data     []byte
	from, to string
}

// crashDir is an overlayDir that records.
type crashDir struct {
	files []*sparseBytes
	names map[string]int
	log   []crashOp
	host  string // which boot of it

	phase string // what the test is doing
	skip  string // the sync that is taken out, by label or by its place in the source
	syncs map[string]int
	sites map[string]bool
}

func newCrashDir() *crashDir {
	return &crashDir{host: "first boot", names: make(map[string]int), syncs: make(map[string]int), sites: make(map[string]bool)}
}

func (d *crashDir) record(op crashOp) { d.log = append(d.log, op) }

// allowed counts a sync by phase, file and, in the creation, order, and says
// whether it is done.
func (d *crashDir) allowed(what string) bool {
	at := site()
	d.sites[at] = true
	label := d.phase + " " + what
	if d.phase == "create" {
		n := 1
		for d.syncs[fmt.Sprintf("%s %d", label, n)] > 0 {
			n++
		}
		label = fmt.Sprintf("%s %d", label, n)
	}
	d.syncs[label]++
	return label != d.skip && at != d.skip
}

func (d *crashDir) open(name string, create bool) (overlayFile, error) {
	i, ok := d.names[name]
	if !ok {
		if !create {
			return nil, fs.ErrNotExist
		}
		i = len(d.files)
		d.files = append(d.files, newSparse())
		d.names[name] = i
		d.record(crashOp{kind: "link", file: i, to: name})
	}
	f := &crashFile{dir: d, i: i, name: name}
	if create && ok {
		return f, f.truncate(0)
	}
	return f, nil
}

func (d *crashDir) rename(from, to string) error {
	d.record(crashOp{kind: "rename", file: d.names[from], from: from, to: to})
	d.names[to] = d.names[from]
	delete(d.names, from)
	return nil
}

func (d *crashDir) sync() error {
	if d.allowed("directory") {
		d.record(crashOp{kind: "syncdir"})
	}
	return nil
}

func (d *crashDir) remove(name string) error {
	if _, ok := d.names[name]; !ok {
		return fs.ErrNotExist
	}
	d.record(crashOp{kind: "remove", from: name})
	delete(d.names, name)
	return nil
}

func (d *crashDir) boot() string { return d.host }
func (d *crashDir) close() error { return nil }

type crashFile struct {
	dir  *crashDir
	i    int
	name string
}

func (f *crashFile) content() *sparseBytes                         { return f.dir.files[f.i] }
func (f *crashFile) size() (int64, error)                          { return f.content().size, nil }
func (f *crashFile) close() error                                  { return nil }
func (f *crashFile) ReadAt(p []byte, off int64) (n int, err error) { return f.content().ReadAt(p, off) }

func (f *crashFile) WriteAt(p []byte, off int64) (n int, err error) {
	f.dir.record(crashOp{kind: "write", file: f.i, off: off, data: bytes.Clone(p)})
	return f.content().WriteAt(p, off)
}

// punch is recorded as what it reads as.
func (f *crashFile) punch(off, n int64) error {
	zeroes := make([]byte, max(0, min(n, f.content().size-off)))
	_, err := f.WriteAt(zeroes, off)
	return err
}

func (f *crashFile) truncate(size int64) error {
	f.dir.record(crashOp{kind: "truncate", file: f.i, off: size})
	f.content().truncate(size)
	return nil
}

func (f *crashFile) sync() error {
	name := f.name
	for n, i := range f.dir.names {
		if i == f.i {
			name = n // it may have been renamed
		}
	}
	if f.dir.allowed(name) {
		f.dir.record(crashOp{kind: "sync", file: f.i})
	}
	return nil
}

func (d *crashDir) apply(op crashOp) {
	for len(d.files) <= op.file {
		d.files = append(d.files, newSparse())
	}
	switch op.kind {
	case "write":
		_, _ = d.files[op.file].WriteAt(op.data, op.off)
	case "truncate":
		d.files[op.file].truncate(op.off)
	case "link", "rename":
		d.names[op.to] = op.file
		delete(d.names, op.from)
	case "remove":
		delete(d.names, op.from)
	}
}

// killed makes what is there when the process ends after the first n steps, and
// the host does not.
func (d *crashDir) killed(n int) *crashDir {
	c := newCrashDir()
	for _, op := range d.log[:n] {
		if c.apply(op); op.kind == "host ended" {
			c.host = op.to
		}
	}
	return c
}

// after makes what a loss of power after the first n steps may leave.
func (d *crashDir) after(n int, rng *rand.Rand) *crashDir {
	c := newCrashDir()
	c.host = "next boot"
	pending := make(map[int][]crashOp)
	var dirPending []crashOp
	apply := c.apply
	for _, op := range d.log[:n] {
		switch op.kind {
		case "write", "truncate":
			pending[op.file] = append(pending[op.file], op)
		case "link", "rename", "remove":
			dirPending = append(dirPending, op)
		case "sync":
			for _, p := range pending[op.file] {
				apply(p)
			}
			delete(pending, op.file)
		case "syncdir":
			for _, p := range dirPending {
				apply(p)
			}
			dirPending = nil
		}
	}
	for _, p := range dirPending {
		if rng.IntN(2) == 0 {
			apply(p)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(pending)) {
		ops := pending[file]
		keep := rng.IntN(3) // lose nearly all, half, or nearly nothing
		rng.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
		for _, p := range ops {
			if rng.IntN(10) >= []int{1, 5, 9}[keep] {
				continue
			}
			if p.kind == "write" && rng.IntN(3) == 0 { // torn, at any byte
				a := rng.IntN(len(p.data) + 1)
				b := a + rng.IntN(len(p.data)-a+1)
				p.off, p.data = p.off+int64(a), p.data[a:b]
			}
			apply(p)
		}
	}
	for len(c.files) < len(d.files) {
		c.files = append(c.files, newSparse())
	}
	return c
}

// rampBase is a large base with no zero byte in it.
type rampBase int64

func (r rampBase) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		p[i] = byte(1 + (off+int64(i))%251)
	}
	return len(p), nil
}
func (r rampBase) Size() int64        { return int64(r) }
func (r rampBase) Features() Features { return Features{} }

// crashBase needs two pages of map.
const crashBase = rampBase(mapPageSpan + 5*overlayBlock + 700)

// crashWork writes, zeroes, flushes, resets, closes and opens at random, around
// both ends of the base and the border between the pages of the map, and leaves
// marks in the log.
func crashWork(t *testing.T, seed uint64, skip string) *crashDir {
	d := newCrashDir()
	d.skip, d.phase = skip, "create"
	s, err := openFileStore(d, int64(crashBase), "id")
	require.NoError(t, err)
	o := &Overlay{base: crashBase, size: int64(crashBase), store: s}
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 25 {
		switch rng.IntN(10) {
		case 9: // and lost nothing, this time
			d.phase = "settle"
			d.host += ", then another"
			d.record(crashOp{kind: "host ended", to: d.host})
			s, err := openFileStore(d, int64(crashBase), "id")
			require.NoError(t, err)
			require.NoError(t, s.settle())
			d.record(crashOp{kind: "settled"})
			o = &Overlay{base: crashBase, size: int64(crashBase), store: s}
			o.used.Store(s.count())
		case 8:
			d.phase = "close"
			d.record(crashOp{kind: "close begins"})
			require.NoError(t, o.Close())
			d.record(crashOp{kind: "flushed"})
			d.record(crashOp{kind: "closed"})
			d.phase = "open"
			s, err := openFileStore(d, int64(crashBase), "id")
			require.NoError(t, err)
			require.False(t, s.lost)
			o = &Overlay{base: crashBase, size: int64(crashBase), store: s}
			o.used.Store(s.count())
		case 0, 1:
			d.phase = "flush"
			require.NoError(t, o.Sync())
			d.record(crashOp{kind: "flushed"})
		case 2:
			d.phase = "reset"
			d.record(crashOp{kind: "reset begins"})
			require.NoError(t, o.Reset())
			d.record(crashOp{kind: "reset"})
		default:
			spot := []int64{0, mapPageSpan, int64(crashBase)}[rng.IntN(3)]
			off := max(0, spot-4*overlayBlock+rng.Int64N(8)*512)
			n := min(1+rng.Int64N(3*overlayBlock), int64(crashBase)-off)
			data := make([]byte, n)
			for i := range data {
				data[i] = byte(rng.Uint32() | 1)
			}
			d.phase = "write"
			if rng.IntN(3) == 0 {
				clear(data)
				d.record(crashOp{kind: "wrote", off: off, data: data})
				require.NoError(t, o.Zero(off, n, 0))
				d.record(crashOp{kind: "done"})
				continue
			}
			d.record(crashOp{kind: "wrote", off: off, data: data})
			_, err := o.WriteAt(data, off)
			require.NoError(t, err)
			d.record(crashOp{kind: "done", data: data})
		}
	}
	return d
}

// checkCrash opens what is left of the first n steps, by a process that was
// killed or by a loss of power, and compares every block that was ever written
// with what may be there: the bytes that were acknowledged or flushed, or those
// of a later write; while a reset is under way, or all of that or the base.
func checkCrash(d, left *crashDir, n int) error {
	killed := left.host != "next boot"
	flushed, written, spots := newSparse(), newSparse(), map[int64]bool{}
	var current, later, ghosts []crashOp // ghosts were lost, or not
	synced := 0                          // of current
	resetting := false
	mayLose, mustLose, lost := false, false, false
	holds := func() {
		later, mustLose = slices.Clone(ghosts), false
		flushed, written = newSparse(), newSparse()
		for _, w := range current {
			_, _ = flushed.WriteAt(w.data, w.off)
			_, _ = written.WriteAt(bytes.Repeat([]byte{1}, len(w.data)), w.off)
		}
	}
	for _, op := range d.log[:n] {
		switch op.kind {
		case "wrote":
			mayLose = true
			current, later = append(current, op), append(later, op)
			for b := op.off / overlayBlock; b <= (op.off+int64(len(op.data))-1)/overlayBlock; b++ {
				spots[b] = true
			}
		case "done":
			if killed {
				holds()
			} else {
				mustLose = mustLose || op.data != nil // zeroes may have been there
			}
		case "flushed":
			synced = len(current)
			holds()
		case "host ended":
			lost = mayLose
			ghosts, current = append(ghosts, current[synced:]...), slices.Clone(current[:synced])
			holds()
		case "settled":
			mayLose, lost = false, false
		case "close begins":
			mustLose = false
		case "closed":
			mayLose = false
		case "reset begins":
			resetting, mustLose = true, false
		case "reset":
			current, ghosts, synced, mayLose, resetting = nil, nil, 0, false, false
			holds()
		}
	}
	s, err := openFileStore(left, int64(crashBase), "id")
	if err != nil {
		return fmt.Errorf("it does not open: %w", err)
	}
	switch {
	case s.lost && (killed && !lost || !mayLose):
		return errors.New("it says that writes were lost")
	case !s.lost && mustLose:
		return errors.New("it does not say that writes were lost")
	}
	o := &Overlay{base: crashBase, size: int64(crashBase), store: s}
	o.used.Store(s.count())
	isBase, isKept := true, true
	var firstBad error
	for _, b := range slices.Sorted(maps.Keys(spots)) {
		off := b * overlayBlock
		size := min(overlayBlock, int64(crashBase)-off)
		got, base, want, own := make([]byte, size), make([]byte, size), make([]byte, size), make([]byte, size)
		if _, err := o.ReadAt(got, off); err != nil {
			return err
		}
		_, _ = crashBase.ReadAt(base, off)
		_, _ = flushed.ReadAt(want, off)
		_, _ = written.ReadAt(own, off)
		for i, c := range own {
			if c == 0 {
				want[i] = base[i]
			}
		}
		isBase = isBase && bytes.Equal(got, base)
		for i := range got {
			ok := got[i] == want[i]
			for _, w := range later {
				at := off + int64(i) - w.off
				ok = ok || at >= 0 && at < int64(len(w.data)) && w.data[at] == got[i]
			}
			if !ok {
				isKept = false
				firstBad = fmt.Errorf("block %d, byte %d is %d, flushed was %d, base is %d", b, i, got[i], want[i], base[i])
				break
			}
		}
	}
	if isKept || resetting && isBase {
		return nil
	}
	return firstBad
}

// crashes counts the states after a loss of power that are wrong.
func crashes(t *testing.T, skip string, stopAtFirst bool) (states int, bad error) {
	for seed := range uint64(6) {
		d := crashWork(t, seed, skip)
		for n := range len(d.log) + 1 {
			for try := range uint64(5) {
				states++
				left := d.killed(n)
				if try > 0 {
					left = d.after(n, rand.New(rand.NewPCG(seed, uint64(n)*100+try)))
				}
				if err := checkCrash(d, left, n); err != nil {
					bad = fmt.Errorf("seed %d, after step %d, try %d: %w", seed, n, try, err)
					if stopAtFirst {
						return states, bad
					}
				}
			}
		}
	}
	return states, bad
}

// TestOverlaySurvivesPowerLoss proves the order of writes and syncs, and that a
// killed process loses nothing.
func TestOverlaySurvivesPowerLoss(t *testing.T) {
	states, bad := crashes(t, "", true)
	require.NoError(t, bad)
	t.Logf("%d states opened", states)
}

// TestOverlayNeedsEverySync takes the syncs out one at a time: the test above
// must notice each.
func TestOverlayNeedsEverySync(t *testing.T) {
	labels, sites := make(map[string]bool), make(map[string]bool)
	for seed := range uint64(6) {
		d := crashWork(t, seed, "")
		for label := range d.syncs {
			labels[label] = true
		}
		maps.Copy(sites, d.sites)
	}
	require.ElementsMatch(t, syncSites(t, "overlay_[flm]*.go", "sync"), slices.Collect(maps.Keys(sites)))
	require.Len(t, labels, 12, "made, written, flushed, reset, closed and settled: a line may do for two of them")
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		t.Run(label, func(t *testing.T) {
			_, bad := crashes(t, label, true)
			require.Error(t, bad, "it is not needed, or the test does not see it")
			t.Log(bad)
		})
	}
}

// TestLiveForgetsWhatWasLost: what live said of writes that were lost with the
// host does not count when its file is used again.
func TestLiveForgetsWhatWasLost(t *testing.T) {
	d := newCrashDir()
	open := func() (*Overlay, *fileStore) {
		s, err := openFileStore(d, int64(crashBase), "id")
		require.NoError(t, err)
		return &Overlay{base: crashBase, size: int64(crashBase), store: s}, s
	}
	write := func(o *Overlay, block int64) {
		_, err := o.WriteAt(make([]byte, overlayBlock), block*overlayBlock)
		require.NoError(t, err)
	}
	o, _ := open()
	write(o, 1)
	d.files[d.names[overlayDataName]].truncate(0) // of the page cache live alone got to the disk
	d.host = "another boot"
	_, s := open()
	require.True(t, s.lost)
	require.NoError(t, s.settle())

	o, s = open()
	require.False(t, s.lost)
	write(o, chunkBlocks+5)
	o, s = open() // after a kill
	require.False(t, s.lost)
	require.EqualValues(t, 1, s.count())
	for block, want := range map[int64]byte{1: 1 + overlayBlock%251, chunkBlocks + 5: 0} {
		got := make([]byte, 1)
		_, err := o.ReadAt(got, block*overlayBlock)
		require.NoError(t, err)
		require.Equal(t, want, got[0], "block %d", block)
	}
}
