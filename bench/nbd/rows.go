//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/seed-3ec230fa/diskless/bench/internal/measure"
)

// A row is one load.
type row struct {
	id    string
	kinds []string
	mode  mode
	once  bool  // whatever the number of rounds
	empty int64 // the size of an image that is nothing but a hole; 0 is the usual one
	run   func(*server) ([]float64, error)
	lines []line // what of it is in the table
}

// A line of the table is one of a row's values.
type line struct {
	what  string
	unit  string
	value int // index in what run returns
	goals []goal
}

// A goal compares ours with a peer's value, with the best of all peers' ("best"),
// or with a number ("").
type goal struct {
	op    string // ">=" or "<="
	limit float64
	peer  string
}

// is says whether a row is meant by a name: "8" is row 8 with all its variants.
func (r row) is(name string) bool { return r.id == name || strings.HasPrefix(r.id, name+"-") }

const perOp, perGiB, yesNo, share = "CPU µs/op", "CPU s/GiB", measure.YesNo, "%"

var rows = []row{
	{id: "1", kinds: everyone, run: ops("read", "1", "64", "4096"), lines: []line{
		{"4 KiB random read, one connection, depth 64", "/s", 0, []goal{{">=", 4, nbdkit}}}, {"", perOp, 1, nil}}},
	{id: "2", kinds: everyone, run: ops("read", "4", "16", "4096"), lines: []line{
		{"4 KiB random read, four connections, depth 16", "/s", 0, []goal{{">=", 4, nbdkit}}}, {"", perOp, 1, nil}}},
	{id: "3", kinds: everyone, run: ops("read", "1", "1", "4096"), lines: []line{
		{"4 KiB random read, depth 1", "/s", 0, []goal{{">=", 1, nbdkit}, {">=", 1.8, qemuNBD}, {">=", 1.8, nbdServer}}}, {"", perOp, 1, nil}}},
	{id: "4", kinds: everyone, run: ops("read", "64", "1", "4096"), lines: []line{
		{"boot storm: 64 connections, depth 1, 4 KiB", "/s", 0, []goal{{">=", 1.4, nbdkit}}}, {"", perOp, 1, []goal{{"<=", 0.5, nbdkit}}}}},
	{id: "5", kinds: everyone, run: ops("read", "64", "1", "131072"), lines: []line{
		{"boot storm: 64 connections, depth 1, 128 KiB", "/s", 0, []goal{{">=", 1.4, nbdkit}}}, {"", perOp, 1, []goal{{"<=", 0.45, nbdkit}}}}},
	// nbd-server listens with a backlog of 10: some of its clients wait for ever.
	{id: "6", kinds: []string{ours, nbdkit, qemuNBD}, run: swarm(200), lines: []line{
		{"200 clients connect and read 1 MiB each at once", "ms", 0, []goal{{"<=", 0.4, nbdkit}}}, {"the slowest 1%", "ms", 1, nil}}},
	{id: "6-1000", kinds: []string{ours, nbdkit, qemuNBD}, run: swarm(1000), lines: []line{
		{"the same, 1,000 clients: all finish", "ms", 0, []goal{{"<=", 60000, ""}}}}},
	{id: "7-c1", kinds: everyone, run: copyDisk(1), lines: []line{
		{"whole disk, 256 KiB requests, one connection (nbdcopy)", "GiB/s", 0, []goal{{">=", 1, "best"}}}, {"", perGiB, 1, []goal{{"<=", 0.85, nbdkit}}}}},
	{id: "7-c4", kinds: everyone, run: copyDisk(4), lines: []line{
		{"the same, four connections", "GiB/s", 0, []goal{{">=", 1, "best"}}}, {"", perGiB, 1, []goal{{"<=", 0.85, nbdkit}}}}},
	{id: "8", kinds: everyone, mode: overlay, run: ops("mix", "1", "16", "4096", "30"), lines: []line{
		{"overlay, 70/30 read/write 4 KiB, one client, depth 16", "/s", 0, []goal{{">=", 2.2, nbdkit}}}, {"", perOp, 1, nil}}},
	{id: "8-memory", kinds: []string{ours}, mode: overlayMemory, run: ops("mix", "1", "16", "4096", "30"), lines: []line{
		{"the same, overlay in memory", "/s", 0, nil}, {"", perOp, 1, nil}}},
	{id: "9", kinds: everyone, mode: overlay, run: ops("mix", "8", "16", "4096", "30"), lines: []line{
		{"overlay, the same, eight clients, each its own (peers but nbd-server: one for all)", "/s", 0, []goal{{">=", 8, nbdkit}}}, {"", perOp, 1, nil}}},
	{id: "9-memory", kinds: []string{ours}, mode: overlayMemory, run: ops("mix", "8", "16", "4096", "30"), lines: []line{
		{"the same, overlays in memory", "/s", 0, nil}, {"", perOp, 1, nil}}},
	{id: "9-verify", kinds: []string{ours, nbdServer}, mode: overlay, once: true, run: verify, lines: []line{
		{"eight clients' data read back, each its own over the image", yesNo, 0, []goal{{">=", 1, ""}}}}},
	{id: "10", kinds: everyone, mode: overlay, once: true, run: fill, lines: []line{
		{"overlay bytes used per byte of random 4 KiB writes", "", 0, []goal{{"<=", 1.05, ""}}}}},
	{id: "10-memory", kinds: []string{ours}, mode: overlayMemory, once: true, run: fillMemory, lines: []line{
		{"the same, overlay in memory (the process's growth)", "", 0, nil}}},
	{id: "11", kinds: everyone, once: true, run: idle, lines: []line{
		{"memory of an idle connection (ours: 1,000, peers: 200)", "KiB", 0, []goal{{"<=", 8, ""}}}, {"threads at that", "", 1, []goal{{"<=", 16, ""}}}}},
	{id: "12", kinds: []string{ours, nbdkit, qemuNBD}, mode: encrypted, run: copyDisk(1), lines: []line{
		{"TLS, whole disk, one connection", "GiB/s", 0, nil}, {"", perGiB, 1, []goal{{"<=", 1, nbdkit}}}}},
	{id: "13", kinds: []string{ours, nbdkit}, mode: impatient, once: true, run: hostile, lines: []line{
		{"hostile connections (ours: 1,000, nbdkit: 100): memory of one", "KiB", 0, []goal{{"<=", 64, ""}}},
		{"how many of them were cut off", share, 1, []goal{{">=", 100, ""}}},
		{"another client's rate meanwhile, to that before", share, 2, []goal{{">=", 80, ""}}}}},
	scale("1"), scale("10"), scale("100"), scale("1000"),
	{id: "size-1G", kinds: []string{ours}, mode: overlay, empty: imageSize, run: ops("mix", "1", "16", "4096", "30"), lines: []line{
		{"row 8's load over an empty image of 1 GiB", "/s", 0, nil}, {"", perOp, 1, nil}}},
	{id: "size-100G", kinds: []string{ours}, mode: overlay, empty: 100 * imageSize, run: ops("mix", "1", "16", "4096", "30"), lines: []line{
		{"of 100 GiB, as many different blocks", "/s", 0, []goal{{">=", 0.8, "size-1G"}}}, {"", perOp, 1, nil}}},
}

// ops is a load that is counted in operations: it gives those of a second, and
// the server's µs for each.
func ops(name string, args ...string) func(*server) ([]float64, error) {
	return func(s *server) ([]float64, error) {
		args := append([]string{name, args[0], args[1], args[2], s.b.secs}, args[3:]...)
		before := s.cpu()
		out, err := s.load(args...)
		if err != nil {
			return nil, err
		}
		v, err := numbers(out, 2)
		if err != nil {
			return nil, err
		}
		return []float64{v[0], float64((s.cpu() - before).Microseconds()) / v[1]}, nil
	}
}

func numbers(fields []string, want int) ([]float64, error) {
	if len(fields) != want {
		return nil, fmt.Errorf("the load generator printed %q", fields)
	}
	v := make([]float64, want)
	for i, f := range fields {
		var err error
		if v[i], err = strconv.ParseFloat(f, 64); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func swarm(n int) func(*server) ([]float64, error) {
	return func(s *server) ([]float64, error) {
		out, err := s.load("swarm", strconv.Itoa(n), "1048576", "131072")
		if err != nil {
			return nil, err
		}
		v, err := numbers(out, 3)
		if err != nil {
			return nil, err
		}
		return []float64{v[0], v[2]}, nil
	}
}

// copyDisk reads the whole image, holes or not, with nbdcopy.
func copyDisk(connections int) func(*server) ([]float64, error) {
	return func(s *server) ([]float64, error) {
		url := "nbd://127.0.0.1:" + s.port + "/" + s.export()
		if s.mode == encrypted {
			url = "nbds://localhost:" + s.port + "/?tls-certificates=" + s.b.certs
		}
		before, start := s.cpu(), time.Now()
		_, err := s.run("nbdcopy", "--no-extents", "--request-size=262144", "--requests=64",
			"--connections="+strconv.Itoa(connections), url, "null:")
		took, gib := time.Since(start).Seconds(), float64(imageSize)/(1<<30)
		return []float64{gib / took, (s.cpu() - before).Seconds() / gib}, err
	}
}

func verify(s *server) ([]float64, error) {
	_, err := s.load("verify", "8", "16", "4096", s.b.secs, "40", s.b.image)
	if err != nil && !strings.Contains(err.Error(), "is not") {
		return nil, err
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return []float64{0}, nil
	}
	return []float64{1}, nil
}

const filled = 20000 // blocks that fill and fillMemory write

func fill(s *server) ([]float64, error) {
	before := stored(s.cow, s.group)
	end, err := s.hold("fill", strconv.Itoa(filled), "4096")
	if err != nil {
		return nil, err
	}
	used := stored(s.cow, s.group) - before
	_, err = end()
	return []float64{used / (filled * 4096)}, err
}

func fillMemory(s *server) ([]float64, error) {
	before := s.memory()
	end, err := s.hold("fill", strconv.Itoa(filled), "4096")
	if err != nil {
		return nil, err
	}
	used := s.memory() - before
	_, err = end()
	return []float64{used * 1024 / (filled * 4096)}, err
}

func idle(s *server) ([]float64, error) {
	n := 200
	if s.kind == ours {
		n = 1000
	}
	// The code and the buffers that the first clients bring into memory are not
	// those of a connection.
	warm, err := s.hold("idle", "10")
	if err != nil {
		return nil, err
	}
	if _, err = warm(); err != nil {
		return nil, err
	}
	time.Sleep(time.Second)
	before := s.memory()
	end, err := s.hold("idle", strconv.Itoa(n))
	if err != nil {
		return nil, err
	}
	time.Sleep(2 * time.Second)
	v := []float64{(s.memory() - before) / float64(n), float64(measure.Threads(measure.Members(s.group)))}
	_, err = end()
	return v, err
}

func hostile(s *server) ([]float64, error) {
	n := 100
	if s.kind == ours {
		n = 1000
	}
	peaceful := ops("read", "4", "4", "4096")
	alone, err := peaceful(s)
	if err != nil {
		return nil, err
	}
	before := s.memory()
	end, err := s.hold("hostile", strconv.Itoa(n), strconv.FormatFloat(2*patience.Seconds(), 'f', 0, 64))
	if err != nil {
		return nil, err
	}
	each := (s.memory() - before) / float64(n)
	beside, err := peaceful(s)
	out, err2 := end()
	if err != nil {
		return nil, err
	}
	if err2 != nil {
		return nil, err2
	}
	v, err := numbers(out[1:], 2)
	if err != nil {
		return nil, err
	}
	return []float64{each, 100 * v[0] / float64(n), 100 * beside[0] / alone[0]}, nil
}

// scale is one base for more and more clients.
func scale(n string) row {
	r := row{id: "scale-" + n, kinds: []string{ours, nbdkit}, run: ops("read", n, "16", "4096"), lines: []line{
		{"clients on one image: " + n + ", depth 16, 4 KiB random read", "/s", 0, nil}, {"", perOp, 1, nil}}}
	if n == "1000" {
		r.kinds = r.kinds[:1] // nbdkit would have 16,000 threads
	}
	switch n { // one client waits for answers more than it works
	case "10":
		r.lines[0].goals = []goal{{">=", 1, "scale-1"}}
	case "100", "1000":
		r.lines[0].goals = []goal{{">=", 0.8, "scale-10"}}
	}
	return r
}
