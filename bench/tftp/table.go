//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// results are samples by row and server; one that failed is nil.
type results map[string]map[string][][]float64

func (r results) add(row, kind string, values []float64) {
	if r[row] == nil {
		r[row] = map[string][][]float64{}
	}
	r[row][kind] = append(r[row][kind], values)
}

// median is that of the samples that did not fail; NaN when there is none.
func (r results) median(row, kind string, value int) float64 {
	var v []float64
	for _, sample := range r[row][kind] {
		if sample != nil {
			v = append(v, sample[value])
		}
	}
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// judge says how ours compares, and whether that is the goal.
func (r results) judge(row string, l line, g goal) (ratio, verdict string) {
	who := ours
	if g.mine != "" {
		who = g.mine
	}
	mine, other := r.median(row, who, l.value), 1.0
	switch g.peer {
	case "":
	case "best":
		other = math.NaN()
		for _, kind := range everyone[2:] {
			if v := r.median(row, kind, l.value); !(other >= v) && !math.IsNaN(v) {
				other = v
			}
		}
	default:
		other = r.median(row, g.peer, l.value)
	}
	x := mine / other
	switch {
	case math.IsNaN(mine):
		return "", "**no**, failed"
	case math.IsNaN(x):
		return "", "nothing to compare with"
	case g.op == ">=" && x >= g.limit || g.op == "<=" && x <= g.limit:
		verdict = "yes"
	default:
		verdict = "**no**"
	}
	if g.peer != "" {
		ratio = fmt.Sprintf("%.2f", x)
	}
	return ratio, verdict
}

func (g goal) String() string {
	s := map[string]string{">=": "≥", "<=": "≤"}[g.op] + fmt.Sprintf(" %v", g.limit)
	switch g.peer {
	case "":
	case "best":
		s += " x the best peer"
	default:
		s += " x " + g.peer
	}
	if g.mine != "" {
		s = g.mine + " " + s
	}
	return s
}

// print prints the table as Markdown.
func (b *bench) print(w io.Writer, rounds int) {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	fmt.Fprintf(w, "%s, %d CPUs, Linux %s, %s; medians of up to %d rounds of %v s, server on CPU 1, clients on CPU 0.\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(), rounds, b.secs)
	if len(b.foreign) > 0 {
		slices.Sort(b.foreign)
		fmt.Fprintf(w, "Other programs used a median of %.2f CPUs meanwhile, at most %.2f.\n", b.foreign[len(b.foreign)/2], b.foreign[len(b.foreign)-1])
	}
	fmt.Fprintf(w, "\n| row | load | | %s | goal | ratio | met |\n|---|---|---%s|---|---|---|\n", strings.Join(everyone, " | "), strings.Repeat("|---", len(everyone)))
	for _, r := range rows {
		if b.results[r.id] == nil {
			continue
		}
		for i, l := range r.lines {
			cells := []string{r.id, r.what, names[l.value]}
			if i > 0 {
				cells[0], cells[1] = "", ""
			}
			for _, kind := range everyone {
				cell := "-"
				if v := b.results.median(r.id, kind, l.value); !math.IsNaN(v) {
					cell = fmt.Sprintf("%.3g", v)
				} else if len(b.results[r.id][kind]) > 0 {
					cell = "failed"
				}
				cells = append(cells, cell)
			}
			var goals, ratios, verdicts []string
			for _, g := range l.goals {
				ratio, verdict := b.results.judge(r.id, l, g)
				goals, ratios, verdicts = append(goals, g.String()), append(ratios, ratio), append(verdicts, verdict)
			}
			cells = append(cells, strings.Join(goals, ", "), strings.Join(ratios, ", "), strings.Join(verdicts, ", "))
			fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
		}
	}
}
