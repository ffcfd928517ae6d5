//go:build linux

// Command tftp measures this module's TFTP server beside tftpd-hpa, dnsmasq,
// atftpd and github.com/pin/tftp: the same loads in turn, in one run on one
// machine, and prints a table of medians with the goals.
//
//	go run ./bench/tftp               # everything, about fifteen minutes
//	go run ./bench/tftp -rows "lo64"  # rows whose names begin so
//
// It needs root, for network namespaces. See bench/README.md.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed-3ec230fa/diskless/bench/internal/measure"
)

// files are those that are served, with their sizes.
var files = map[string]int{"64M": 64 << 20, "60M": 60 << 20, "4M": 4 << 20, "64K": 64 << 10}

type bench struct {
	dir     string // of everything that is made
	load    string
	tools   map[string]string // kind to program
	secs    float64
	meter   *measure.Meter
	results measure.Results
	lab     *lab
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		serve(os.Args[2:])
		return
	}
	b := &bench{tools: map[string]string{}}
	rounds := flag.Int("rounds", 3, "how often each row is measured")
	only := flag.String("rows", "", "what the `names` of rows begin with, as \"lo1 delay10\"; none is all")
	flag.Float64Var(&b.secs, "secs", 2, "`seconds` that a load takes at most, unless it has to finish")
	limit := flag.Duration("limit", time.Hour, "begin no further sample after this time")
	against := flag.String("against", strings.Join(everyone[1:], " "), "the `servers` to measure beside ours")
	for kind, path := range map[string]string{hpa: "in.tftpd", dnsmasq: "dnsmasq", atftpd: "atftpd"} {
		flag.Func(kind, fmt.Sprintf("`program` to run as %s (default %s)", kind, path), func(s string) error { b.tools[kind] = s; return nil })
		b.tools[kind] = path
	}
	flag.Parse()
	wanted := func(r *row) bool {
		return *only == "" || slices.ContainsFunc(strings.Fields(*only), func(p string) bool { return strings.HasPrefix(r.id, p) })
	}
	b.prepare()
	defer b.clean()
	start := time.Now()
	for round := range *rounds {
		for i := range rows {
			r := &rows[i]
			if !wanted(r) || r.once && round > 0 {
				continue
			}
			kinds := slices.Clone(r.kinds)
			rand.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
			for _, kind := range kinds {
				if kind != ours && kind != oursOne && !slices.Contains(strings.Fields(*against), kind) || time.Since(start) > *limit {
					continue
				}
				tries := 2
				if r.once {
					tries = 1
				}
				b.results.Sample(r.id, kind, tries, r.show, func() ([]float64, float64, error) { return b.try(r, kind) })
			}
		}
	}
	b.print(os.Stdout, *rounds)
}

func (b *bench) fatal(v ...any) {
	fmt.Fprintln(os.Stderr, v...)
	b.clean()
	os.Exit(1)
}

// prepare makes the files and the load program.
func (b *bench) prepare() {
	if os.Getuid() != 0 {
		b.fatal("network namespaces need root")
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "bench-tftp-"); err != nil {
		b.fatal(err)
	}
	root := filepath.Join(b.dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		b.fatal(err)
	}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		b.fatal(err)
	}
	rng := rand.NewChaCha8([32]byte{1})
	for name, size := range files {
		data := make([]byte, size)
		_, _ = rng.Read(data)
		if err := os.WriteFile(filepath.Join(root, name), data, 0o644); err != nil {
			b.fatal(err)
		}
	}
	b.load = filepath.Join(b.dir, "tftpload")
	src := filepath.Join(b.dir, "tftpload.c")
	if err := os.WriteFile(src, loadSource, 0o644); err != nil {
		b.fatal(err)
	}
	if out, err := exec.Command("gcc", "-O2", "-o", b.load, src).CombinedOutput(); err != nil {
		b.fatal("gcc:", err, string(out))
	}
	if b.meter = measure.NewMeter(); !b.meter.Exact() {
		b.fatal("no cgroup (version 2, or cpuacct of version 1) can be made: CPU time cannot be counted")
	}
	time.Sleep(3 * time.Second) // so that the files have settled
	if b.lab, err = newLab(); err != nil {
		b.fatal(err)
	}
}

func (b *bench) clean() {
	if b.lab != nil {
		b.lab.close()
	}
	if b.meter != nil {
		b.meter.Close()
	}
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}
