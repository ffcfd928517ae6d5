//go:build linux

// Command nbd measures this module's NBD server (examples/nbdexport, built from
// the tree) beside nbdkit, qemu-nbd and nbd-server: the same loads in turn, in
// one run on one machine, and prints a table of medians with the goals.
//
//	go run ./bench/nbd              # everything, about ten minutes
//	go run ./bench/nbd -rows "1 8"  # some rows
//
// See bench/README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-3ec230fa/diskless/bench/internal/measure"
)

const (
	imageSize = 1 << 30
	tries     = 3 // at a sample that others disturb
)

type bench struct {
	ctx     context.Context
	dir     string // of everything that is made
	binary  string // nbdexport
	load    string // nbdload
	image   string
	certs   string
	spread  string
	secs    string // that a load takes
	rounds  int
	meter   *measure.Meter
	running *server
	results measure.Results
}

func main() {
	rounds := flag.Int("rounds", 3, "how often each row is measured")
	only := flag.String("rows", "", "the `rows` to measure, as \"1 4 5 scale\"; none is all")
	quick := flag.Bool("quick", false, "one round of short loads, to see that everything runs")
	secs := flag.Float64("secs", 2, "`seconds` that a load takes")
	limit := flag.Duration("limit", 15*time.Minute, "begin no further sample after this time")
	dir := flag.String("dir", "", "`directory` with 4 GiB of room for images and overlays; none is that for temporary files")
	binary := flag.String("nbdexport", "", "`program` to measure instead of the tree's")
	against := flag.String("against", "nbdkit qemu-nbd nbd-server", "the `servers` to measure beside ours")
	flag.Parse()
	if *quick {
		*rounds, *secs = 1, 0.5
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	b := &bench{ctx: ctx, binary: *binary, rounds: *rounds, secs: fmt.Sprint(*secs), spread: "1"}
	wanted := strings.Fields(*only)
	for _, w := range wanted {
		if !slices.ContainsFunc(rows, func(r row) bool { return r.is(w) }) {
			fmt.Fprintf(os.Stderr, "there is no row %q\n", w)
			os.Exit(2)
		}
	}
	tools(append(strings.Fields(*against), "gcc", "openssl", "nbdcopy"))
	b.prepare(*dir)
	defer b.clean()
	fmt.Fprintf(os.Stderr, "%s; server CPU by %s\n", measure.Machine(), b.meter)
	b.idle()

	start := time.Now()
	for round := range b.rounds {
		for _, r := range rows {
			if len(wanted) > 0 && !slices.ContainsFunc(wanted, r.is) || r.once && round > 0 {
				continue
			}
			for _, kind := range r.kinds {
				if kind != ours && !strings.Contains(*against, kind) {
					continue
				}
				if time.Since(start) > *limit || ctx.Err() != nil {
					break
				}
				b.sample(&r, kind)
			}
		}
	}
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "stopped")
	} else if time.Since(start) > *limit {
		fmt.Fprintf(os.Stderr, "the limit of %v is over: the table has fewer rounds or rows\n", *limit)
	}
	b.print(os.Stdout)
}

// sample measures one row with one server, in a quiet moment if there is one.
func (b *bench) sample(r *row, kind string) {
	image := b.image
	b.spread = "1"
	if r.empty > 0 {
		image, b.spread = filepath.Join(b.dir, "empty"), strconv.FormatInt(r.empty/imageSize, 10)
		if err := makeEmpty(image, r.empty); err != nil {
			b.fatal(err)
		}
		defer os.Remove(image)
	}
	n := tries
	if r.once {
		n = 1
	}
	b.results.Sample(r.id, kind, n, r.show, func() ([]float64, float64, error) { return b.try(r, kind, image) })
}

// try takes a sample of a row, and how many CPUs others used meanwhile.
func (b *bench) try(r *row, kind, image string) (values []float64, foreign float64, err error) {
	s, err := b.start(kind, r.mode, image)
	if err != nil {
		return nil, 0, err
	}
	defer s.stop()
	others := measure.Others(s.cpu)
	values, err = r.run(s)
	return values, others(), err
}

// idle says so when the machine has other work.
func (b *bench) idle() {
	others := measure.Others(func() time.Duration { return 0 })
	time.Sleep(time.Second)
	if f := others(); f > 0.1 {
		fmt.Fprintf(os.Stderr, "The machine is not idle: %.2f of %d CPUs are in use. Figures will be low and scatter.\n", f, runtime.NumCPU())
	}
}

// tools ends the program when one is missing.
func tools(names []string) {
	packages := map[string]string{qemuNBD: "qemu-utils", "nbdcopy": "libnbd-bin"}
	var missing []string
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			if p := packages[name]; p != "" {
				name = p
			}
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		fmt.Fprintf(os.Stderr, "tools are missing: apt-get install %s\n", strings.Join(missing, " "))
		os.Exit(1)
	}
}

// prepare builds what is measured and what measures, and makes the image.
func (b *bench) prepare(dir string) {
	var err error
	if b.dir, err = os.MkdirTemp(dir, "diskless-bench-"); err != nil {
		b.fatal(err)
	}
	b.load, b.image, b.certs = filepath.Join(b.dir, "nbdload"), filepath.Join(b.dir, "image"), filepath.Join(b.dir, "certs")
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		b.fatal(fmt.Errorf("run it in the module's directory: %w", err))
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "bench/nbd/load/nbdload.c")
	builds := [][]string{{"gcc", "-O2", "-pthread", "-o", b.load, source}}
	if b.binary == "" {
		b.binary = filepath.Join(b.dir, "nbdexport")
		builds = append(builds, []string{"go", "build", "-o", b.binary, "github.com/seed-3ec230fa/diskless/examples/nbdexport"})
	}
	builds = append(builds, certificates(b.certs)...)
	if err := os.Mkdir(b.certs, 0o700); err != nil {
		b.fatal(err)
	}
	for _, args := range builds {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			b.fatal(fmt.Errorf("%v: %w\n%s", args, err, out))
		}
	}
	if err := makeImage(b.image); err != nil {
		b.fatal(err)
	}
	b.meter = measure.NewMeter()
}

// certificates makes an authority and a certificate for localhost.
func certificates(dir string) [][]string {
	key := []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"}
	return [][]string{
		append([]string{"openssl", "req", "-x509", "-subj", "/CN=ca", "-keyout", dir + "/ca-key.pem", "-out", dir + "/ca-cert.pem"}, key...),
		append([]string{"openssl", "req", "-x509", "-CA", dir + "/ca-cert.pem", "-CAkey", dir + "/ca-key.pem", "-subj", "/CN=localhost",
			"-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE",
			"-keyout", dir + "/server-key.pem", "-out", dir + "/server-cert.pem"}, key...),
	}
}

// makeImage writes 1 GiB, of which 40 per cent are zeroes, and none holes. It
// stays in the page cache.
func makeImage(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	random := rand.NewChaCha8([32]byte{7})
	for range imageSize >> 20 {
		block := make([]byte, 1<<20)
		if random.Uint64()%10 < 6 {
			_, _ = random.Read(block)
		}
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Sync()
}

// makeEmpty makes a file that is a hole, of which nothing is in memory.
func makeEmpty(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

// clean ends what still runs and removes what was made.
func (b *bench) clean() {
	if b.running != nil {
		b.running.stop()
	}
	if b.meter != nil {
		b.meter.Close()
	}
	_ = os.RemoveAll(b.dir)
}

func (b *bench) fatal(err error) {
	b.clean()
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}
