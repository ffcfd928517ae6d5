//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"

	"github.com/seed-3ec230fa/diskless/bench/internal/measure"
)

// A row is a load.
type row struct {
	id     string
	kinds  []string
	once   bool // whatever the number of rounds
	leases int  // that the server begins with
	run    func(*server) ([]float64, error)
	lines  []measure.Line
}

const (
	perSecond = "/s"
	perOp     = "CPU µs each"
	poolSize  = 251*256 - 5
)

func goal(op string, limit float64, peer string) measure.Goal {
	return measure.Goal{Op: op, Limit: limit, Peer: peer}
}

func rate(what string, goals ...measure.Goal) measure.Line {
	return measure.Line{What: what, Unit: perSecond, Value: 0, Goals: goals}
}

func cpu(goals ...measure.Goal) measure.Line {
	return measure.Line{Unit: perOp, Value: 1, Goals: goals}
}

func number(what, unit string, value int, goals ...measure.Goal) measure.Line {
	return measure.Line{What: what, Unit: unit, Value: value, Goals: goals}
}

// overServer4 is the goal of the memory store.
var overServer4 = measure.Goal{Op: ">=", Limit: 1.3, Peer: server4, Mine: inMemory}

var rows = []row{
	{id: "fresh-64", kinds: everyone, run: exchanges("fresh", "w=64"), lines: []measure.Line{
		rate("fresh exchanges, 64 in flight; ours flushed before each ACK", goal(">=", 20, isc), goal(">=", 20, dnsmasq), overServer4),
		cpu(goal("<=", 0.6, kea))}},
	{id: "fresh-512", kinds: everyone, run: exchanges("fresh", "w=512"), lines: []measure.Line{
		rate("the same, 512 in flight", measure.Goal{Op: ">=", Limit: 1.5, Peer: kea, Row: "fresh-64"}, overServer4),
		cpu(goal("<=", 0.6, kea))}},
	{id: "unicast-64", kinds: everyone, run: exchanges("fresh", "w=64", "bcast=0"), lines: []measure.Line{
		rate("64 in flight, without the broadcast flag: replies to the hardware address"), cpu()}},
	{id: "renew-64", kinds: everyone, run: exchanges("renew", "w=64", "clients=500"), lines: []measure.Line{
		rate("renewals of 500 machines, 64 in flight", goal(">=", 1.5, kea)), cpu()}},
	{id: "relayed", kinds: everyone, run: perf, lines: []measure.Line{
		rate("perfdhcp through a relay, highest rate without loss", goal(">=", 1.5, "best")), cpu()}},
	{id: "relayed-64", kinds: everyone, run: exchanges("fresh", "w=64", "relay="+relayAddr), lines: []measure.Line{
		rate("the same by our generator, 64 in flight"), cpu()}},
	{id: "latency", kinds: everyone, run: latency, lines: []measure.Line{
		number("1,000 exchanges a second: OFFER, median", "ms", 0), number("OFFER, p99", "ms", 1, goal("<=", 2, "")),
		number("ACK, median", "ms", 2), number("ACK, p99", "ms", 3), number("ACK, p99, without the flush (its p99)", "ms", 4, goal("<=", 2, "")),
		number("unanswered", "%", 5)}},
	leases("leases-0", 0), leases("leases-1k", 1000), leases("leases-100k", 100_000), leases("leases-1M", 1_000_000),
	{id: "grant", kinds: []string{ours, inMemory, kea}, run: discovers("rate=1000"), lines: []measure.Line{
		number("1,000 DISCOVERs a second, OFFERs", "%", 0), cpu()}},
	{id: "exhausted", kinds: []string{ours, inMemory, kea}, once: true, run: exhausted, lines: []measure.Line{
		number("the same with no address left (Kea: 20 a second), OFFERs", "%", 0),
		cpu(measure.Goal{Op: "<=", Limit: 1, Peer: ours, Row: "grant"}, measure.Goal{Op: "<=", Limit: 1, Peer: inMemory, Mine: inMemory, Row: "grant"})}},
	{id: "storm", kinds: []string{ours, inMemory, kea, dnsmasq, server4}, run: storm, lines: []measure.Line{
		number("10,000 machines within 2 s, 3 % of packets lost: with an address within 15 s, of those that did not lose four packets in a row", "%", 0, goal(">=", 100, "")),
		number("those that did", "", 3), number("the last one after", "s", 1), number("addresses given twice", "", 2, goal("<=", 0, ""))}},
}

// leases is fresh exchanges of a server that begins with so many leases.
func leases(id string, n int) row {
	r := row{id: id, kinds: []string{ours}, leases: n, run: func(s *server) ([]float64, error) {
		memory := s.memory()
		if n == 0 {
			s.b.empty = memory
		}
		v, err := exchanges("fresh", "w=64")(s)
		if err != nil {
			return nil, err
		}
		return append(v, (memory-s.b.empty)*1024/float64(max(1, n)), s.took.Seconds()), nil
	}}
	r.lines = []measure.Line{rate(fmt.Sprintf("fresh exchanges, 64 in flight, %d leases", n)), cpu()}
	if n > 0 {
		r.lines[0].Goals = []measure.Goal{{Op: ">=", Limit: 0.83, Peer: "leases-0"}}
	}
	if n >= 100_000 {
		r.lines = append(r.lines, number("memory of a lease", "bytes", 2, goal("<=", 300, "")))
	}
	if n >= 1_000_000 {
		r.lines = append(r.lines, number("from start to the first answer", "s", 3, goal("<=", 3, "")))
	}
	return r
}

func (r *row) show(values []float64) string { return new(measure.Table).Show(r.lines, values) }

func table() *measure.Table {
	t := &measure.Table{Kinds: everyone, Ours: 3}
	for i := range rows {
		t.Rows = append(t.Rows, measure.Row{ID: rows[i].id, Lines: rows[i].lines})
	}
	return t
}

// numbered has the generator begin with clients that are new to the server.
func (s *server) numbered(mode string, n int, args ...string) (map[string]float64, error) {
	return s.load(mode, append(args, fmt.Sprint("secs=", s.b.secs), fmt.Sprint("base=", s.b.next(n)))...)
}

// exchanges gives those of a second, and the server's µs for each.
func exchanges(mode string, args ...string) func(*server) ([]float64, error) {
	return func(s *server) ([]float64, error) {
		got, err := s.numbered(mode, 300_000, args...)
		if err != nil {
			return nil, err
		}
		if got["done"] == 0 {
			return nil, fmt.Errorf("nothing was answered: %.300s", s.out.String())
		}
		return []float64{got["done"] / got["secs"], got["cpu"] / got["done"] * 1e6}, nil
	}
}

func latency(s *server) ([]float64, error) {
	flush, err := flushTime(s.b.dir) // at about the same time
	if err != nil {
		return nil, err
	}
	got, err := s.numbered("rate", 10_000, "rate=1000")
	if err != nil {
		return nil, err
	}
	if s.kind != ours {
		flush[1] = 0
	}
	return []float64{got["offer_p50"] / 1e3, got["offer_p99"] / 1e3, got["ack_p50"] / 1e3, got["ack_p99"] / 1e3, got["ack_p99"]/1e3 - flush[1],
		100 * (1 - got["done"]/got["started"])}, nil
}

func discovers(args ...string) func(*server) ([]float64, error) {
	return func(s *server) ([]float64, error) {
		// Five seconds, since an exhausted pool is searched anew after so many.
		got, err := s.load("discover", append(args, "secs=5", fmt.Sprint("base=", s.b.next(10_000)))...)
		if err != nil {
			return nil, err
		}
		return []float64{100 * got["offers"] / got["started"], got["cpu"] / got["started"] * 1e6}, nil
	}
}

// exhausted takes all addresses first.
func exhausted(s *server) ([]float64, error) {
	got, err := s.load("fresh", "w=64", "secs=60", fmt.Sprint("max=", poolSize-1), fmt.Sprint("base=", s.b.next(poolSize)))
	if err != nil {
		return nil, err
	}
	if got["done"] < poolSize-1 {
		return nil, fmt.Errorf("%v of %d addresses were given", got["done"], poolSize-1)
	}
	if s.kind == kea {
		return discovers("rate=20")(s)
	}
	return discovers("rate=1000")(s)
}

func storm(s *server) ([]float64, error) {
	const n = 10_000
	got, err := s.load("storm", fmt.Sprint("clients=", n), "loss=0.03", "first=1", fmt.Sprint("seed=", s.b.used), fmt.Sprint("base=", s.b.next(n)))
	if err != nil {
		return nil, err
	}
	last := got["last"]
	if got["done"] < n {
		last = 60
	}
	return []float64{min(100, 100*got["within"]/(n-got["unlucky"])), last, got["dups"], got["unlucky"]}, nil
}

const perfdhcp = "perfdhcp"

var (
	perfRate  = regexp.MustCompile(`Rate: ([\d.]+) 4-way`)
	perfDrops = regexp.MustCompile(`drops ratio: ([\d.e+-]+) %`)
)

// perf looks for the highest rate at which perfdhcp, as a relay, loses nothing:
// by doubling, and then in steps of a fifth.
func perf(s *server) ([]float64, error) {
	best, each := 0.0, 0.0
	for offered, factor := 250.0, 2.0; ; offered *= factor {
		before := s.cpu()
		// It says by its exit code that something was lost.
		out, _ := exec.Command("ip", "netns", "exec", s.b.lab.client, "taskset", "-c", "0", s.b.tools[perfdhcp], "-4", "-l", clientIf, "-R", "60000",
			"-r", fmt.Sprint(int(offered)), "-p", fmt.Sprint(max(2, int(s.b.secs))), "-W", "300000", serverAddr).CombinedOutput()
		used := s.cpu() - before
		r, drops := perfRate.FindSubmatch(out), perfDrops.FindAllSubmatch(out, -1)
		if r == nil || drops == nil {
			return nil, fmt.Errorf("perfdhcp said %.300q", out)
		}
		got, err := strconv.ParseFloat(string(r[1]), 64)
		if err != nil {
			return nil, err
		}
		lost := false
		for _, d := range drops {
			v, err := strconv.ParseFloat(string(d[1]), 64)
			lost = lost || err != nil || v > 0
		}
		if !lost && got > best {
			best, each = got, used.Seconds()/(got*2)*1e6
		}
		switch slow := got < 0.6*offered; { // perfdhcp cannot do more itself
		case (lost || slow) && factor < 2:
			return []float64{best, each}, nil
		case lost || slow:
			offered, factor = offered/2, 1.2
		}
	}
}
