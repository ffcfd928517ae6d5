//go:build linux

package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/container"
)

// child is our side of a row, in a process of its own so that its CPU time and
// memory are counted as those of the others.
func child(args []string) {
	work := map[string]struct {
		args int
		do   func([]string) error
	}{
		"build": {6, buildTree}, "rebuild": {8, rebuildTree}, "change": {1, change}, "update": {1, update}, "container": {4, buildContainer}, "archive": {2, archive}, "names": {1, names},
		"read": {1, readEverything}, "tar": {1, writeTar}, "random": {1, random}, "lookup": {1, lookup}, "cold": {3, cold}, "generated": {2, generated},
	}
	if len(args) == 0 || work[args[0]].do == nil || len(args)-1 < work[args[0]].args {
		fmt.Fprintln(os.Stderr, "bench: wrong arguments:", args)
		os.Exit(2)
	}
	if err := work[args[0]].do(args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func options(comp, level, block, fragment string) (*squash.Options, error) {
	n, err := strconv.Atoi(level)
	if err != nil {
		return nil, err
	}
	opts := &squash.Options{}
	for _, s := range []struct {
		text string
		to   *int
	}{{block, &opts.BlockSize}, {fragment, &opts.FragmentSize}} {
		unit := 1
		if strings.HasSuffix(s.text, "K") {
			unit = 1024
		}
		v, err := strconv.Atoi(strings.TrimSuffix(s.text, "K"))
		if err != nil {
			return nil, err
		}
		*s.to = v * unit
	}
	switch comp {
	case "zstd":
		opts.Compressor = squash.Zstd{Level: n}
	case "libzstd":
		if opts.Compressor = libzstdLevel(n); opts.Compressor == nil {
			return nil, errors.New("this program was built without cgo")
		}
	case "gzip":
		opts.Compressor = squash.Gzip{Level: n}
	case "memory":
		opts = squash.ForMemory()
	case "lz4":
		opts.Compressor = squash.LZ4{Level: n}
	default:
		return nil, fmt.Errorf("unknown compressor %q", comp)
	}
	return opts, nil
}

func buildTree(a []string) error {
	opts, err := options(a[0], a[1], a[2], a[3])
	if err != nil {
		return err
	}
	return squash.BuildFile(context.Background(), a[5], squash.Dir(a[4]), opts)
}

// rebuildTree builds with a base and one of the rules for what is unchanged.
func rebuildTree(a []string) error {
	opts, err := options(a[0], a[1], a[2], a[3])
	if err != nil {
		return err
	}
	if a[7] == "times" {
		opts.Unchanged = squash.BySizeAndTime
	}
	f, err := os.Open(a[6])
	if err != nil {
		return err
	}
	defer f.Close()
	if opts.Base, err = squash.Open(f); err != nil {
		return err
	}
	return squash.BuildFile(context.Background(), a[5], squash.Dir(a[4]), opts)
}

// change appends a line to one file in a hundred, wherever they are.
func change(a []string) error {
	r := rand.New(rand.NewPCG(5, 6))
	return fs.WalkDir(os.DirFS(a[0]), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || r.IntN(100) != 0 {
			return err
		}
		return appendLine(filepath.Join(a[0], name))
	})
}

// update appends a line to all files of packages chosen by chance, as long as
// they have no more than one in a hundred of all files together.
func update(a []string) error {
	list, _, err := files(os.DirFS(a[0]))
	if err != nil {
		return err
	}
	left := len(list) / 100
	packages, err := filepath.Glob(filepath.Join(a[0], "var/lib/dpkg/info/*.list"))
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(7, 8))
	r.Shuffle(len(packages), func(i, k int) { packages[i], packages[k] = packages[k], packages[i] })
	for _, p := range packages {
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		var names []string
		for name := range strings.SplitSeq(strings.TrimSpace(string(data)), "\n") {
			name = filepath.Join(a[0], name)
			if fi, err := os.Lstat(name); err == nil && fi.Mode().IsRegular() {
				names = append(names, name)
			}
		}
		if len(names) > left {
			continue
		}
		left -= len(names)
		for _, name := range names {
			if err := appendLine(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func appendLine(name string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString("# changed\n"); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func buildContainer(a []string) error {
	opts, err := options(a[0], a[1], "0", "0")
	if err != nil {
		return err
	}
	image, err := container.Open(a[2], nil)
	if err != nil {
		return err
	}
	defer image.Close()
	return squash.BuildFile(context.Background(), a[3], image, opts)
}

// archive makes what docker save makes, of one layer.
func archive(a []string) error {
	layer, err := os.Open(a[0])
	if err != nil {
		return err
	}
	defer layer.Close()
	h := sha256.New()
	size, err := io.Copy(h, layer)
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	out, err := os.Create(a[1])
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, h.Sum(nil))
	manifest := `[{"Config":"config.json","RepoTags":["bench.invalid/root:1"],"Layers":["layer.tar"]}]`
	for _, m := range []struct {
		name string
		size int64
		r    io.Reader
	}{
		{"layer.tar", size, layer},
		{"config.json", int64(len(config)), strings.NewReader(config)},
		{"manifest.json", int64(len(manifest)), strings.NewReader(manifest)},
	} {
		if err := w.WriteHeader(&tar.Header{Name: m.name, Mode: 0o644, Size: m.size}); err != nil {
			return err
		}
		if _, err := io.Copy(w, m.r); err != nil {
			return err
		}
	}
	return w.Close()
}

// generated builds an image of so many files with so many GB in all, which are on
// no disk, as the image is not.
func generated(a []string) error {
	files, err := strconv.Atoi(a[0])
	if err != nil {
		return err
	}
	gb, err := strconv.Atoi(a[1])
	if err != nil {
		return err
	}
	pool := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(pool)
	src := squash.SourceFunc(func(context.Context) iter.Seq2[*squash.Entry, error] {
		return func(yield func(*squash.Entry, error) bool) {
			for i := range files {
				// Sizes from none to twice the mean.
				size := int64(float64(gb) * 1e9 / float64(files) * 2 * float64(i) / float64(files))
				e := &squash.Entry{Path: fmt.Sprintf("d%04d/name-%06d", i/100, i), Mode: 0o644, Size: size}
				e.Open = func() (io.ReadCloser, error) { return &part{pool: pool, at: i * 4099 % len(pool), left: size}, nil }
				if !yield(e, nil) {
					return
				}
			}
		}
	})
	return squash.Build(context.Background(), nowhere{}, src, &squash.Options{Compressor: squash.LZ4{}})
}

// part is content out of a pool of random bytes, again and again.
type part struct {
	pool []byte
	at   int
	left int64
}

func (p *part) Read(b []byte) (n int, err error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n = copy(b[:min(int64(len(b)), p.left)], p.pool[p.at:])
	p.at = (p.at + n) % len(p.pool)
	p.left -= int64(n)
	return n, nil
}

func (*part) Close() error { return nil }

type nowhere struct{}

func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func names(a []string) error {
	src := squash.SourceFunc(func(context.Context) iter.Seq2[*squash.Entry, error] {
		return func(yield func(*squash.Entry, error) bool) {
			for i := range 100000 {
				if !yield(&squash.Entry{Path: fmt.Sprintf("d/name-%06d", i), Mode: 0o644}, nil) {
					return
				}
			}
		}
	})
	return squash.BuildFile(context.Background(), a[0], src, nil)
}

// open opens an image, or where it is mounted.
func open(a []string) (fs.FS, error) {
	if len(a) > 1 && a[1] != "-" {
		return os.DirFS(a[1]), nil
	}
	f, err := os.Open(a[0])
	if err != nil {
		return nil, err
	}
	return squash.Open(f)
}

func readEverything(a []string) error {
	image, err := open(a)
	if err != nil {
		return err
	}
	return fs.WalkDir(image, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := image.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
}

func writeTar(a []string) error {
	image, err := open(a)
	if err != nil {
		return err
	}
	_, err = squash.WriteTar(context.Background(), os.Stdout, image.(*squash.FS))
	return err
}

// random reads 4 KiB of each of some files, each once.
func random(a []string) error {
	image, err := open(a)
	if err != nil {
		return err
	}
	list, sizes, err := files(image)
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	order := r.Perm(len(list))
	order = order[:min(len(order), 3000)]
	offset := make([]int64, len(list))
	for _, i := range order {
		offset[i] = r.Int64N(max(sizes[i]-4095, 1))
	}
	return rate(order, len(a) > 2, func(i int) error {
		p := make([]byte, 4096)
		f, err := image.Open(list[i])
		if err != nil {
			return err
		}
		defer f.Close()
		n, err := f.(io.ReaderAt).ReadAt(p, offset[i])
		if n > 0 {
			return nil
		}
		return err
	})
}

// files are the regular files that are not empty.
func files(image fs.FS) (list []string, sizes []int64, err error) {
	err = fs.WalkDir(image, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		if err == nil && fi.Size() > 0 {
			list, sizes = append(list, name), append(sizes, fi.Size())
		}
		return err
	})
	return list, sizes, err
}

// cold reads 4 KiB of each of 300 files of a mounted image and prints what the
// block device was asked for meanwhile: MiB, requests, and the milliseconds.
// Which files there are comes from the image, so that the mount stays cold.
func cold(a []string) error {
	image, err := open(a[:1])
	if err != nil {
		return err
	}
	list, sizes, err := files(image)
	if err != nil {
		return err
	}
	device := func() (requests, sectors float64, err error) {
		data, err := os.ReadFile(a[2])
		if err == nil {
			var merged float64
			_, err = fmt.Sscan(string(data), &requests, &merged, &sectors)
		}
		return requests, sectors, err
	}
	requests, sectors, err := device()
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 4096)
	start := time.Now()
	for _, i := range r.Perm(len(list))[:300] {
		f, err := os.Open(filepath.Join(a[1], list[i]))
		if err != nil {
			return err
		}
		if n, err := f.ReadAt(p, r.Int64N(max(sizes[i]-4095, 1))); n == 0 {
			return err
		}
		_ = f.Close()
	}
	took := time.Since(start)
	requests2, sectors2, err := device()
	fmt.Println((sectors2-sectors)/2048, requests2-requests, took.Seconds()*1000)
	return err
}

func lookup(a []string) error {
	image, err := open(a)
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	return rate(r.Perm(100000)[:20000], false, func(i int) error {
		_, err := fs.Lstat(image, fmt.Sprintf("d/name-%06d", i))
		return err
	})
}

// rate prints how many of a second, and the median of one's microseconds. Two
// goroutines share the work if it is so wanted.
func rate(order []int, two bool, do func(int) error) error {
	took := make([]time.Duration, len(order))
	work := func(from, to int) error {
		for k := from; k < to; k++ {
			t := time.Now()
			if err := do(order[k]); err != nil {
				return err
			}
			took[k] = time.Since(t)
		}
		return nil
	}
	start := time.Now()
	var g errgroup.Group
	half := len(order)
	if two {
		half /= 2
		g.Go(func() error { return work(half, len(order)) })
	}
	g.Go(func() error { return work(0, half) })
	if err := g.Wait(); err != nil {
		return err
	}
	all := time.Since(start)
	slices.Sort(took)
	fmt.Println(float64(len(order))/all.Seconds(), float64(took[len(took)/2].Nanoseconds())/1000)
	return nil
}
