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
	t := &measure.Table{Kinds: everyone, Ours: 1}
	for _, r := range rows {
		t.Rows = append(t.Rows, measure.Row{ID: r.id, Lines: r.table()})
	}
	return t
}

func (r row) table() (lines []measure.Line) {
	for _, l := range r.lines {
		line := measure.Line{What: l.what, Unit: l.unit, Value: l.value}
		for _, g := range l.goals {
			line.Goals = append(line.Goals, measure.Goal{Op: g.op, Limit: g.limit, Peer: g.peer})
		}
		lines = append(lines, line)
	}
	return lines
}

func (r row) show(values []float64) string { return new(measure.Table).Show(r.table(), values) }

// print prints the table as Markdown.
func (b *bench) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %s; TCP loopback, medians of up to %d rounds of %s s, server CPU by %s.\n",
		time.Now().UTC().Format("2006-01-02"), measure.Machine(), b.rounds, b.secs, b.meter)
	table().Print(w, &b.results)
}
