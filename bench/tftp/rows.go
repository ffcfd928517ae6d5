//go:build linux

package main

import (
	"errors"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed-3ec230fa/diskless/bench/internal/measure"
)

// A row is a load. Its values are MB/s, CPU seconds per GiB, the share of the
// window's limit in per cent, the share of clients that got all, in per cent,
// and the server's memory for each transfer in KiB.
type row struct {
	id, what string
	file     string
	blk, win int
	clients  int
	finish   bool // it takes as long as it takes
	limit    float64
	oneWay   time.Duration
	loss     float64
	once     bool
	shared   float64 // KiB of memory that are all transfers'
	kinds    []string
	lines    []line
}

const (
	rate = iota
	cpu
	share
	done
	mem
)

type line struct {
	value int
	goals []goal
}

// goal compares ours, or ours in one-port mode, with a peer.
type goal struct {
	op    string
	limit float64
	peer  string // a kind, "best" of the peers, or nothing
	mine  string // a kind, or nothing for ours
}

var (
	lockstep = []string{ours, oursOne, hpa, dnsmasq, atftpd, pinTFTP}
	windows  = []string{ours, oursOne, dnsmasq, atftpd}
)

var rows = makeRows()

func makeRows() (rows []row) {
	loop := func(id string, blk, win, clients int, file string, kinds []string, lines ...line) {
		what := fmt.Sprintf("%d clients, 4 MiB each", clients)
		if clients == 1 {
			what = "one client"
		}
		rows = append(rows, row{id: id, what: fmt.Sprintf("%s, blksize %d, window %d, loopback", what, blk, win), file: file, blk: blk, win: win,
			clients: clients, finish: clients > 1, kinds: kinds, lines: lines})
	}
	best := func(x float64) []goal { return []goal{{op: ">=", limit: x, peer: "best"}} }
	loop("lo1-512", 512, 1, 1, "64M", lockstep, line{rate, best(0.95)}, line{cpu, nil})
	loop("lo1-w1", 1468, 1, 1, "64M", lockstep, line{rate, best(0.95)}, line{cpu, nil})
	for _, w := range []struct {
		win  int
		goal float64
	}{{4, 1}, {16, 1.3}, {64, 1.8}} {
		loop(fmt.Sprintf("lo1-w%d", w.win), 1468, w.win, 1, "64M", windows, line{rate, best(w.goal)}, line{cpu, nil})
	}
	onePort := goal{op: "<=", limit: 1.15, peer: ours, mine: oursOne}
	loop("lo64-w1", 1468, 1, 64, "4M", lockstep,
		line{rate, []goal{{op: ">=", limit: 1, peer: dnsmasq}, {op: ">=", limit: 1.4, peer: atftpd}, {op: ">=", limit: 1.4, peer: hpa}}},
		line{cpu, []goal{onePort}})
	for _, w := range []struct {
		win                       int
		rate, cpu                 float64
		fromAtftpd, cpuFromAtftpd float64 // dnsmasq's figure over atftpd's, where dnsmasq has windows
	}{{4, 1.9, 0.5, 1.43, 0.67}, {16, 2.8, 0.35, 1.34, 0.74}, {64, 3.2, 0.3, 1.23, 0.82}} {
		loop(fmt.Sprintf("lo64-w%d", w.win), 1468, w.win, 64, "4M", windows,
			line{rate, []goal{{op: ">=", limit: w.rate, peer: dnsmasq}, {op: ">=", limit: math.Round(w.rate*w.fromAtftpd*100) / 100, peer: atftpd}}},
			line{cpu, []goal{{op: "<=", limit: w.cpu, peer: dnsmasq}, {op: "<=", limit: math.Round(w.cpu*w.cpuFromAtftpd*100) / 100, peer: atftpd}, onePort}})
	}
	for _, ms := range []int{1, 10} {
		for _, win := range []int{4, 16, 64} {
			rows = append(rows, row{id: fmt.Sprintf("delay%d-w%d", ms, win), what: fmt.Sprintf("one client, RTT %d ms, window %d", ms, win),
				file: "64M", blk: 1468, win: win, clients: 1, oneWay: time.Duration(ms) * time.Millisecond / 2, kinds: windows,
				lines: []line{{rate, best(1)}, {share, []goal{{op: ">=", limit: 95}}}, {cpu, nil}}})
		}
	}
	for _, l := range []struct {
		loss  float64
		goals [3]float64
	}{{0.001, [3]float64{1.1, 1.4, 4}}, {0.01, [3]float64{1.5, 1.4, 1.5}}} {
		for i, win := range []int{1, 4, 16} {
			kinds := windows
			if win == 1 {
				kinds = lockstep
			}
			rows = append(rows, row{id: fmt.Sprintf("drop%g-w%d", l.loss*100, win),
				what: fmt.Sprintf("8 clients, 4 MiB each, RTT 1 ms, %g %% lost both ways, window %d", l.loss*100, win),
				file: "4M", blk: 1468, win: win, clients: 8, limit: 15, loss: l.loss, oneWay: time.Millisecond / 2, kinds: kinds,
				lines: []line{{rate, best(l.goals[i])}, {cpu, nil}}})
		}
	}
	for _, m := range []struct {
		id, what, file string
		clients, win   int
	}{{"many-1000", "1,000 clients at once, 64 KiB", "64K", 1000, 1}, {"many-200", "200 clients at once, 60 MiB, window 16", "60M", 200, 16}} {
		shared := 0.0
		if m.file == "60M" {
			shared = 60 << 10
		}
		rows = append(rows, row{id: m.id, what: m.what, file: m.file, blk: 1468, win: m.win, clients: m.clients, finish: true, once: true, shared: shared,
			kinds: []string{ours, oursOne}, lines: []line{{done, []goal{{op: ">=", limit: 100}, {op: ">=", limit: 100, mine: oursOne}}},
				{mem, []goal{{op: "<=", limit: 16}, {op: "<=", limit: 16, mine: oursOne}}}, {rate, nil}}})
	}
	return rows
}

var names = []string{rate: "MB/s", cpu: "CPU s/GiB", share: "% of the window's limit", done: "% complete", mem: "KiB a transfer"}

// try takes a sample, and how many CPUs others used meanwhile.
func (b *bench) try(r *row, kind string) (values []float64, foreign float64, err error) {
	addr, from := "127.0.0.1", b.lab.server
	if err := b.lab.setLink(r.oneWay, r.loss); err != nil {
		return nil, 0, err
	}
	if r.oneWay > 0 {
		addr, from = serverAddr, b.lab.client
	}
	s, err := b.start(kind, addr)
	if err != nil {
		return nil, 0, err
	}
	defer s.stop()
	secs := b.secs
	if r.finish {
		secs = 100
	} else if r.limit > 0 {
		secs = r.limit
	}
	before, peak := s.memory(), 0.0
	stop, watched := make(chan struct{}), sync.WaitGroup{}
	if r.once {
		watched.Go(func() { // ends with the load
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
					peak = max(peak, s.memory())
				}
			}
		})
	}
	cpu0, others := s.cpu(), measure.Others(s.cpu)
	got, err := b.measure(r, addr, from, r.clients, secs)
	used := s.cpu() - cpu0
	foreign = others()
	close(stop)
	watched.Wait()
	if err != nil {
		return nil, 0, fmt.Errorf("%w %s", err, s.log.String())
	}
	return r.values(got, used, peak-before), foreign, nil
}

// measure runs the load on CPU 0.
func (b *bench) measure(r *row, addr, from string, clients int, secs float64) ([]float64, error) {
	cmd := exec.Command("ip", "netns", "exec", from, "taskset", "-c", "0", b.load, addr, r.file, filepath.Join(b.dir, "root", r.file),
		strconv.Itoa(r.blk), strconv.Itoa(r.win), strconv.Itoa(clients), fmt.Sprint(secs), "1000")
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("load: %w: %s", err, log.String())
	}
	got, err := r.parse(string(out))
	if err != nil {
		err = fmt.Errorf("%w: %.200s", err, log.String())
	}
	return got, err
}

// What the load prints, in this order.
const (
	loadBytes = iota
	loadSeconds
	loadComplete
	loadFailed
	loadRepeated
	loadRTT // in microseconds
	loadCPU
	loadWindow
	loadFields
)

// parse reads what the load printed.
func (r *row) parse(out string) (got []float64, err error) {
	for f := range strings.FieldsSeq(out) {
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return nil, fmt.Errorf("load said %q", out)
		}
		got = append(got, v)
	}
	switch {
	case len(got) != loadFields:
		return nil, fmt.Errorf("load said %q", out)
	case got[loadBytes] == 0:
		return nil, errors.New("nothing came")
	case got[loadWindow] < float64(min(r.win, 32)): // dnsmasq's limit
		return nil, fmt.Errorf("a window of %v is all it grants", got[loadWindow])
	case got[loadFailed] > 0:
		return nil, fmt.Errorf("%v clients failed", got[loadFailed])
	}
	return got, nil
}

// values are a row's figures: of what the load said, and what the server used,
// of processor time and of memory in KiB.
func (r *row) values(got []float64, used time.Duration, memory float64) []float64 {
	bytes, took := got[loadBytes], got[loadSeconds]
	limit := float64(r.win*r.blk) / (got[loadRTT] / 1e6)
	return []float64{rate: bytes / 1e6 / took, cpu: used.Seconds() / bytes * (1 << 30), done: got[loadComplete] / float64(r.clients) * 100,
		mem: max(0, memory-r.shared) / float64(r.clients), share: bytes / took / limit * 100}
}
