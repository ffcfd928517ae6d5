//go:build linux

// Command dhcp measures this module's DHCP server, with leases in a file and in
// memory, beside Kea, dnsmasq, ISC dhcpd and github.com/insomniacslk/dhcp's
// server4: the same loads in turn, in one run on one machine, and prints a table
// of medians with the goals.
//
//	go run ./bench/dhcp                # everything
//	go run ./bench/dhcp -rows "fresh"  # rows whose names begin so
//
// It needs root, for network namespaces. See bench/README.md.
package main

import (
	"bytes"
	"embed"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-3ec230fa/diskless/bench/internal/measure"
)

//go:embed load/dhcpload.c load/reflect.c
var sources embed.FS

type bench struct {
	dir     string // of everything that is made
	load    string // the programs in C
	reflect string
	tools   map[string]string // kind to program
	secs    float64
	used    int // clients
	flush   [2]float64
	empty   float64        // KiB of our server without leases
	fills   map[int]string // lease files by number of leases
	meter   *measure.Meter
	results measure.Results
	lab     *lab
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		serve(os.Args[2:])
		return
	}
	b := &bench{tools: map[string]string{}, fills: map[int]string{}}
	rounds := flag.Int("rounds", 3, "how often each row is measured")
	only := flag.String("rows", "", "what the `names` of rows begin with, as \"fresh renew\"; none is all")
	flag.Float64Var(&b.secs, "secs", 2, "`seconds` that a load takes")
	limit := flag.Duration("limit", time.Hour, "begin no further sample after this time")
	dir := flag.String("dir", "/var/tmp", "`directory` for the lease files: on the disk that counts")
	against := flag.String("against", strings.Join(everyone[2:], " "), "the `servers` to measure beside ours")
	for kind, path := range map[string]string{kea: "kea-dhcp4", dnsmasq: "dnsmasq", isc: "dhcpd", perfdhcp: "perfdhcp"} {
		flag.Func(kind, fmt.Sprintf("`program` to run as %s (default %s)", kind, path), func(s string) error { b.tools[kind] = s; return nil })
		b.tools[kind] = path
	}
	flag.Parse()
	wanted := func(r *row) bool {
		return *only == "" || slices.ContainsFunc(strings.Fields(*only), func(p string) bool { return strings.HasPrefix(r.id, p) })
	}
	b.prepare(*dir)
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
				if kind != ours && kind != inMemory && !slices.Contains(strings.Fields(*against), kind) || time.Since(start) > *limit {
					continue
				}
				tries := 4
				if r.once {
					tries = 1
				}
				b.results.Sample(r.id, kind, tries, r.show, func() ([]float64, float64, error) { return b.try(r, kind) })
			}
		}
	}
	fmt.Printf("%s, %s; medians of up to %d rounds of %v s, server on CPU 1, clients on CPU 0, server CPU by %s.\n",
		time.Now().UTC().Format("2006-01-02"), measure.Machine(), *rounds, b.secs, b.meter)
	fmt.Printf("A flush (fdatasync of 512 bytes) takes %.2f ms, the slowest hundredth of them %.2f ms.\n", b.flush[0], b.flush[1])
	table().Print(os.Stdout, &b.results)
}

// try takes a sample, and how many CPUs others used meanwhile.
func (b *bench) try(r *row, kind string) (values []float64, foreign float64, err error) {
	leases := ""
	if r.leases > 0 {
		if leases, err = b.fill(r.leases); err != nil {
			return nil, 0, err
		}
	}
	s, err := b.start(kind, leases)
	if err != nil {
		return nil, 0, err
	}
	defer s.stop()
	others := measure.Others(s.cpu)
	values, err = r.run(s)
	return values, others(), err
}

// fill returns a lease file of so many leases.
func (b *bench) fill(n int) (string, error) {
	if b.fills[n] == "" {
		// Made where a flush costs nothing.
		dir, err := os.MkdirTemp("/dev/shm", "bench-dhcp-")
		if err != nil {
			return "", err
		}
		defer os.RemoveAll(dir)
		if err := fillStore(filepath.Join(dir, "leases"), n); err != nil {
			return "", err
		}
		name := filepath.Join(b.dir, fmt.Sprint("leases-", n))
		if err := exec.Command("cp", filepath.Join(dir, "leases"), name).Run(); err != nil {
			return "", err
		}
		b.fills[n] = name
	}
	return b.fills[n], nil
}

func (b *bench) fatal(v ...any) {
	fmt.Fprintln(os.Stderr, v...)
	b.clean()
	os.Exit(1)
}

// prepare makes the load program and the network.
func (b *bench) prepare(dir string) {
	if os.Getuid() != 0 {
		b.fatal("network namespaces need root")
	}
	var err error
	if b.dir, err = os.MkdirTemp(dir, "bench-dhcp-"); err != nil {
		b.fatal(err)
	}
	for name, program := range map[string]*string{"dhcpload": &b.load, "reflect": &b.reflect} {
		*program = filepath.Join(b.dir, name)
		text, err := sources.ReadFile("load/" + name + ".c")
		if err != nil {
			b.fatal(err)
		}
		gcc := exec.Command("gcc", "-O2", "-x", "c", "-o", *program, "-")
		gcc.Stdin = bytes.NewReader(text)
		if out, err := gcc.CombinedOutput(); err != nil {
			b.fatal("gcc:", err, string(out))
		}
	}
	if b.meter = measure.NewMeter(); !b.meter.Exact() {
		b.fatal("no cgroup (version 2, or cpuacct of version 1) can be made: CPU time cannot be counted")
	}
	if b.flush, err = flushTime(b.dir); err != nil {
		b.fatal(err)
	}
	if b.lab, err = newLab(); err != nil {
		b.fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // so that the link is up
}

// flushTime is how long the disk takes, in milliseconds: the median, and what
// one in a hundred takes longer than.
func flushTime(dir string) (t [2]float64, err error) {
	f, err := os.Create(filepath.Join(dir, "flush"))
	if err != nil {
		return t, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	const n, size = 500, 512
	if _, err := f.WriteAt(make([]byte, n*size), 0); err != nil {
		return t, err
	}
	var took []float64
	for i := range n + 1 {
		if _, err := f.WriteAt(bytes.Repeat([]byte{1}, size), int64(max(0, i-1)*size)); err != nil {
			return t, err
		}
		began := time.Now()
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return t, err
		}
		if i > 0 {
			took = append(took, time.Since(began).Seconds()*1e3)
		}
	}
	slices.Sort(took)
	return [2]float64{took[n/2], took[n*99/100]}, nil
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
