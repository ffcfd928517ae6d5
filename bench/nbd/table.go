//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
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
		if value < len(sample) {
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
	mine, other := r.median(row, ours, l.value), 1.0
	switch g.peer {
	case "":
	case nbdkit, qemuNBD, nbdServer:
		other = r.median(row, g.peer, l.value)
	case "best":
		other = math.NaN()
		for _, kind := range everyone[1:] {
			if v := r.median(row, kind, l.value); !(other >= v) && !math.IsNaN(v) {
				other = v
			}
		}
	default:
		other = r.median(g.peer, ours, l.value)
	}
	x := mine / other
	met := g.op == ">=" && x >= g.limit || g.op == "<=" && x <= g.limit
	switch {
	case math.IsNaN(mine):
		return "", "**no**, failed"
	case math.IsNaN(x):
		return "", "nothing to compare with"
	case met:
		verdict = "yes"
	default:
		verdict = "**no**"
	}
	if g.peer != "" {
		ratio = fmt.Sprintf("%.2f", x)
	}
	return ratio, verdict
}

func (l line) goal(g goal) string {
	op := map[string]string{">=": "≥", "<=": "≤"}[g.op]
	switch g.peer {
	case "":
		if l.unit == yesNo {
			return "yes"
		}
		return fmt.Sprintf("%s %v", op, g.limit)
	case "best":
		return fmt.Sprintf("%s %v x the best peer", op, g.limit)
	}
	return fmt.Sprintf("%s %v x %s", op, g.limit, g.peer)
}

// format rounds to three digits or so.
func (l line) format(v float64) string {
	switch {
	case l.unit == yesNo && v == 0:
		return "no"
	case l.unit == yesNo && v == 1:
		return "yes"
	case math.IsNaN(v):
		return "-"
	case v >= 10000:
		return fmt.Sprintf("%.0fk", v/1000)
	case v >= 1000:
		return fmt.Sprintf("%.1fk", v/1000)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// print prints the table as Markdown.
func (b *bench) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %s; TCP loopback, medians of up to %d rounds of %s s, server CPU by %s.\n",
		time.Now().UTC().Format("2006-01-02"), cpus(), b.rounds, b.secs, b.meter)
	if len(b.foreign) > 0 {
		slices.Sort(b.foreign)
		fmt.Fprintf(w, "Other programs used a median of %.2f CPUs meanwhile, at most %.2f.\n", b.foreign[len(b.foreign)/2], b.foreign[len(b.foreign)-1])
	}
	fmt.Fprintf(w, "\n| # | load | | %s | goal | ratio | met |\n|---|---|---%s|---|---|---|\n",
		strings.Join(everyone, " | "), strings.Repeat("|---", len(everyone)))
	for _, r := range rows {
		if b.results[r.id] == nil {
			continue
		}
		for i, l := range r.lines {
			id := r.id
			if i > 0 {
				id = ""
			}
			cells := []string{id, l.what, l.unit}
			for _, kind := range everyone {
				cell := l.format(b.results.median(r.id, kind, l.value))
				if samples := b.results[r.id][kind]; cell == "-" && len(samples) > 0 {
					cell = "failed"
				}
				cells = append(cells, cell)
			}
			var goals, ratios, verdicts []string
			for _, g := range l.goals {
				ratio, verdict := b.results.judge(r.id, l, g)
				goals, ratios, verdicts = append(goals, l.goal(g)), append(ratios, ratio), append(verdicts, verdict)
			}
			cells = append(cells, strings.Join(goals, ", "), strings.Join(ratios, ", "), strings.Join(verdicts, ", "))
			fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
		}
	}
}
