//go:build linux

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/seed-3ec230fa/diskless/bench/internal/measure"
)

// table is how the rows are shown.
func table() *measure.Table {
	t := &measure.Table{Kinds: everyone, Ours: 2, Format: format}
	for i := range rows {
		t.Rows = append(t.Rows, measure.Row{ID: rows[i].id, Lines: rows[i].table()})
	}
	return t
}

func (r *row) table() (lines []measure.Line) {
	for i, l := range r.lines {
		line := measure.Line{Unit: names[l.value], Value: l.value}
		if i == 0 {
			line.What = r.what
		}
		for _, g := range l.goals {
			line.Goals = append(line.Goals, measure.Goal{Op: g.op, Limit: g.limit, Peer: g.peer, Mine: g.mine})
		}
		lines = append(lines, line)
	}
	return lines
}

func format(_ string, v float64) string { return fmt.Sprintf("%.3g", v) }

func (r *row) show(values []float64) string {
	return (&measure.Table{Format: format}).Show(r.table(), values)
}

// print prints the table as Markdown.
func (b *bench) print(w io.Writer, rounds int) {
	fmt.Fprintf(w, "%s, %s; medians of up to %d rounds of %v s, server on CPU 1, clients on CPU 0, server CPU by %s.\n",
		time.Now().UTC().Format("2006-01-02"), measure.Machine(), rounds, b.secs, b.meter)
	table().Print(w, &b.results)
}
