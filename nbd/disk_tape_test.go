package nbd

import (
	"crypto/sha256"
	"encoding/hex"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tape records what is done to the files and directories under dir, so that a
// test can make what a loss of power at any moment may leave of it. A file's
// content is durable with its sync, a name with that of its directory; of what
// is not, any part may be there.
type tape struct {
	dir   string
	steps []tapeStep
	live  tapeTree
	nodes int
	skip  string          // the sync that is taken out, by the place in the source
	first int             // the step before which that was first
	sites map[string]bool // the syncs that were asked for
}

// tapeTree is directories by number, 0 is tape.dir, with what is in them.
type tapeTree map[int]map[string]int

type tapeStep struct {
	kind string // entry, write, truncate, sync, syncdir, or world
	node int    // the file or directory; entry: where the name goes
	dirs []int  // entry: whose sync makes it durable
	name string // entry
	id   int    // entry: what it names, -1 nothing any more
	from string // entry of a rename: the name that goes, in dirs[1]
	off  int64
	data []byte
	any  []*crashWorld // world: one of these must be found
}

// fastDir is a directory in memory, where there is one: nothing in it is to last.
func fastDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "nbd-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func newTape(t *testing.T) *tape {
	return &tape{dir: fastDir(t), live: tapeTree{0: {}}, sites: make(map[string]bool)}
}

func (p *tape) disk() disk {
	return disk{hook: p.hook, wrap: func(path string, d overlayDir) overlayDir { return &tapeDir{d, p, path} }}
}

// site is the line in the source that asked for a sync.
func site() string {
	pc := make([]uintptr, 20)
	frames := runtime.CallersFrames(pc[:runtime.Callers(2, pc)])
	for {
		f, more := frames.Next()
		name := f.Function[strings.LastIndex(f.Function, "/")+1:]
		switch {
		case strings.HasSuffix(f.File, "_test.go"), strings.HasPrefix(name, "nbd.disk.do"),
			strings.HasPrefix(name, "nbd.disk.syncFile"), strings.HasPrefix(name, "nbd.disk.syncDir"):
		default:
			return filepath.Base(f.File) + ":" + strconv.Itoa(f.Line)
		}
		if !more {
			return "?"
		}
	}
}

// synced records a sync, unless it is the one that is taken out.
func (p *tape) synced(kind string, node int) {
	at := site()
	p.sites[at] = true
	switch {
	case at != p.skip:
		p.steps = append(p.steps, tapeStep{kind: kind, node: node})
	case p.first == 0:
		p.first = len(p.steps)
	}
}

// where returns the directory and the last part of a path, and what has that
// name, -1 for nothing.
func (p *tape) where(path string) (dir int, name string, id int) {
	rel, err := filepath.Rel(p.dir, path)
	if err != nil || rel == "." || strings.HasPrefix(rel, "..") {
		return -1, "", map[bool]int{true: 0, false: -1}[rel == "."]
	}
	parts := strings.Split(rel, "/")
	for _, part := range parts[:len(parts)-1] {
		var ok bool
		if dir, ok = p.live[dir][part]; !ok {
			panic("tape: nobody made the directory of " + path)
		}
	}
	name = parts[len(parts)-1]
	if id, ok := p.live[dir][name]; ok {
		return dir, name, id
	}
	return dir, name, -1
}

func (p *tape) entry(s tapeStep) {
	s.kind = "entry"
	p.steps = append(p.steps, s)
	p.live.apply(s)
}

func (t tapeTree) apply(s tapeStep) {
	if t[s.node] == nil {
		t[s.node] = make(map[string]int)
	}
	if s.id < 0 {
		delete(t[s.node], s.name)
		return
	}
	t[s.node][s.name] = s.id
	if s.from != "" {
		delete(t[s.dirs[1]], s.from)
	}
}

func (p *tape) create(dir int, name string) int {
	p.nodes++
	p.entry(tapeStep{node: dir, dirs: []int{dir}, name: name, id: p.nodes})
	return p.nodes
}

// file returns a file; one that was written past the tape is taken as it is.
func (p *tape) file(path string) int {
	dir, name, id := p.where(path)
	if id < 0 {
		id = p.create(dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			panic(err)
		}
		p.steps = append(p.steps, tapeStep{kind: "write", node: id, data: text})
	}
	return id
}

func (p *tape) removed(dir int, name string, id int) {
	for _, inner := range slices.Sorted(maps.Keys(p.live[id])) {
		p.removed(id, inner, p.live[id][inner])
	}
	p.entry(tapeStep{node: dir, dirs: []int{dir}, name: name, id: -1})
}

func (p *tape) hook(s diskStep, do func() error) error {
	dir, name, id := p.where(s.path)
	if (s.op == opSync || s.op == opLink || s.op == opRename) && id < 0 {
		if info, err := os.Stat(s.path); err == nil && info.Mode().IsRegular() {
			id = p.file(s.path)
		}
	}
	if s.op != opSync && s.op != opSyncDir {
		if err := do(); err != nil {
			return err
		}
	}
	if dir < 0 && id < 0 {
		return nil
	}
	switch s.op {
	case opMkdir:
		p.live[p.create(dir, name)] = map[string]int{}
	case opLink:
		to, toName, _ := p.where(s.to)
		p.entry(tapeStep{node: to, dirs: []int{to}, name: toName, id: id})
	case opRename:
		to, toName, _ := p.where(s.to)
		p.entry(tapeStep{node: to, dirs: []int{to, dir}, name: toName, id: id, from: name})
	case opRemove:
		if id >= 0 {
			p.removed(dir, name, id)
		}
	case opWrite:
		if id < 0 {
			id = p.create(dir, name)
		}
		p.steps = append(p.steps, tapeStep{kind: "truncate", node: id}, tapeStep{kind: "write", node: id, data: s.text})
	case opSync:
		p.synced("sync", id)
	case opSyncDir:
		p.synced("syncdir", id)
	}
	return nil
}

// tapeDir is an overlay's directory on tape.
type tapeDir struct {
	overlayDir
	tape *tape
	path string
}

func (d *tapeDir) open(name string, create bool) (overlayFile, error) {
	f, err := d.overlayDir.open(name, create)
	if err != nil {
		return nil, err
	}
	dir, _, id := d.tape.where(filepath.Join(d.path, name))
	switch {
	case id < 0:
		id = d.tape.create(dir, name)
	case create:
		d.tape.steps = append(d.tape.steps, tapeStep{kind: "truncate", node: id})
	}
	return &tapeFile{f, d.tape, id}, nil
}

func (d *tapeDir) rename(from, to string) error {
	dir, _, id := d.tape.where(filepath.Join(d.path, from))
	if err := d.overlayDir.rename(from, to); err != nil {
		return err
	}
	d.tape.entry(tapeStep{node: dir, dirs: []int{dir, dir}, name: to, id: id, from: from})
	return nil
}

func (d *tapeDir) remove(name string) error {
	if err := d.overlayDir.remove(name); err != nil {
		return err
	}
	dir, _, id := d.tape.where(filepath.Join(d.path, name))
	d.tape.removed(dir, name, id)
	return nil
}

func (d *tapeDir) boot() string { return "before the loss of power" }

func (d *tapeDir) sync() error {
	_, _, id := d.tape.where(d.path)
	d.tape.synced("syncdir", id)
	return nil
}

type tapeFile struct {
	overlayFile
	tape *tape
	id   int
}

func (f *tapeFile) WriteAt(p []byte, off int64) (int, error) {
	f.tape.steps = append(f.tape.steps, tapeStep{kind: "write", node: f.id, off: off, data: slices.Clone(p)})
	return f.overlayFile.WriteAt(p, off)
}

func (f *tapeFile) truncate(size int64) error {
	f.tape.steps = append(f.tape.steps, tapeStep{kind: "truncate", node: f.id, off: size})
	return f.overlayFile.truncate(size)
}

// punch is recorded as what it reads as.
func (f *tapeFile) punch(off, n int64) error {
	size, err := f.size()
	if n = min(n, size-off); err != nil || n <= 0 {
		return err
	}
	_, err = f.WriteAt(make([]byte, n), off)
	return err
}

func (f *tapeFile) sync() error { f.tape.synced("sync", f.id); return nil }

// after makes, in dir, what a loss of power after the first n steps may leave.
func (p *tape) after(t *testing.T, n int, rng *rand.Rand, dir string) {
	files := make(map[int]*sparseBytes)
	tree := tapeTree{0: {}}
	var names []tapeStep
	contents := make(map[int][]tapeStep)
	file := func(id int) *sparseBytes {
		if files[id] == nil {
			files[id] = newSparse()
		}
		return files[id]
	}
	write := func(s tapeStep) {
		if s.kind == "truncate" {
			file(s.node).truncate(s.off)
			return
		}
		_, _ = file(s.node).WriteAt(s.data, s.off)
	}
	for _, s := range p.steps[:n] {
		switch s.kind {
		case "entry":
			names = append(names, s)
		case "write", "truncate":
			contents[s.node] = append(contents[s.node], s)
		case "sync":
			for _, w := range contents[s.node] {
				write(w)
			}
			delete(contents, s.node)
		case "syncdir":
			names = slices.DeleteFunc(names, func(e tapeStep) bool {
				if !slices.Contains(e.dirs, s.node) {
					return false
				}
				tree.apply(e)
				return true
			})
		}
	}
	keep := rng.IntN(3) // lose nearly all, half, or nearly nothing
	kept := func() bool { return rng.IntN(10) < []int{1, 5, 9}[keep] }
	for _, e := range names {
		if kept() {
			tree.apply(e)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(contents)) {
		list := contents[id]
		rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for _, w := range list {
			if !kept() {
				continue
			}
			if w.kind == "write" && rng.IntN(3) == 0 { // torn, at any byte
				a := rng.IntN(len(w.data) + 1)
				w.off, w.data = w.off+int64(a), w.data[a:a+rng.IntN(len(w.data)-a+1)]
			}
			write(w)
		}
	}
	made := make(map[int]string)
	var build func(id int, path string)
	build = func(id int, path string) {
		for name, inner := range tree[id] {
			at := filepath.Join(path, name)
			switch {
			case p.live[inner] != nil: // a directory, ever
				require.NoError(t, os.Mkdir(at, 0o700))
				build(inner, at)
			case made[inner] != "":
				require.NoError(t, os.Link(made[inner], at))
			default:
				made[inner] = at
				f, err := os.Create(at)
				require.NoError(t, err)
				content := file(inner)
				for page, text := range content.pages {
					_, err := f.WriteAt(text[:min(4096, max(0, content.size-page*4096))], page*4096)
					require.NoError(t, err)
				}
				require.NoError(t, f.Truncate(content.size))
				require.NoError(t, f.Close())
			}
		}
	}
	build(0, dir)
}

// knowDigests spares a test the wait for a new file's time stamp.
func knowDigests(t *testing.T, im *Images, dir string) {
	im.digester.loaded, im.digester.known = true, make(map[fileID]string)
	require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		info, err := e.Info()
		require.NoError(t, err)
		sum := sha256.Sum256(text)
		im.digester.known[statID(info)] = hex.EncodeToString(sum[:])
		return nil
	}))
}

// withoutSyncs is a disk for what is thrown away at once.
func withoutSyncs() disk {
	return disk{
		hook: func(s diskStep, do func() error) error {
			if s.op == opSync || s.op == opSyncDir {
				return nil
			}
			return do()
		},
		wrap: func(_ string, d overlayDir) overlayDir { return lazyDir{d} },
	}
}

type lazyDir struct{ overlayDir }

func (lazyDir) sync() error  { return nil }
func (lazyDir) boot() string { return "after the loss of power" }
func (d lazyDir) open(name string, create bool) (overlayFile, error) {
	f, err := d.overlayDir.open(name, create)
	if err != nil {
		return nil, err
	}
	return lazyFile{f}, nil
}

type lazyFile struct{ overlayFile }

func (lazyFile) sync() error { return nil }

// syncSites lists the lines of source files that ask for a sync: by syncFile and
// syncDir, or, of an overlayDir and its files, by sync.
func syncSites(t *testing.T, files string, calls ...string) []string {
	var sites []string
	list, err := filepath.Glob(files)
	require.NoError(t, err)
	for _, name := range list {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, _ := sel.X.(*ast.Ident); slices.Contains(calls, sel.Sel.Name) && (x == nil || x.Name != "s") { // s.sync is the store's
				sites = append(sites, name+":"+strconv.Itoa(set.Position(call.Pos()).Line))
			}
			return true
		})
	}
	slices.Sort(sites)
	return slices.Compact(sites)
}
