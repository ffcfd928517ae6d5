//go:build linux

package measure

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// A Table says how results are shown. Rows without results are left out.
type Table struct {
	Kinds  []string // of servers: ours first
	Ours   int      // how many of them are ours
	Rows   []Row
	Format func(unit string, v float64) string // nil is Format
}

// A Row is one load.
type Row struct {
	ID    string
	Lines []Line
}

// A Line of the table is one of a row's values.
type Line struct {
	What  string
	Unit  string
	Value int // index in the samples' values
	Goals []Goal
}

// YesNo is the unit of what is 0 or 1.
const YesNo = "yes or no"

// A Goal compares a value of ours with a peer's, with the best of all peers'
// ("best"), with ours in another row, or with a number ("").
type Goal struct {
	Op    string // ">=" or "<="
	Limit float64
	Peer  string
	Mine  string // which of ours; "" is the first
	Row   string // of the peer's value; "" is the same
}

// judge says how ours compares, and whether that is the goal.
func (t *Table) judge(r *Results, row string, l Line, g Goal) (ratio, verdict string) {
	who := t.Kinds[0]
	if g.Mine != "" {
		who = g.Mine
	}
	mine, other := r.Median(row, who, l.Value), 1.0
	if g.Row != "" {
		row = g.Row
	}
	switch {
	case g.Peer == "":
	case g.Peer == "best":
		other = math.NaN()
		for _, kind := range t.Kinds[t.Ours:] {
			v := r.Median(row, kind, l.Value)
			better := other >= v
			if g.Op == "<=" {
				better = other <= v
			}
			if !better && !math.IsNaN(v) {
				other = v
			}
		}
	case slices.Contains(t.Kinds, g.Peer):
		other = r.Median(row, g.Peer, l.Value)
	default:
		other = r.Median(g.Peer, who, l.Value)
	}
	x := mine / other
	switch {
	case math.IsNaN(mine):
		return "", "**no**, failed"
	case math.IsNaN(x):
		return "", "nothing to compare with"
	case g.Op == ">=" && x >= g.Limit || g.Op == "<=" && x <= g.Limit:
		verdict = "yes"
	default:
		verdict = "**no**"
	}
	if g.Peer != "" {
		ratio = fmt.Sprintf("%.2f", x)
	}
	return ratio, verdict
}

func (g Goal) text(unit string) string {
	s := fmt.Sprintf("%s %v", map[string]string{">=": "≥", "<=": "≤"}[g.Op], g.Limit)
	switch g.Peer {
	case "":
		if unit == YesNo {
			s = "yes"
		}
	case "best":
		s += " x the best peer"
	default:
		s += " x " + g.Peer
	}
	if g.Row != "" {
		s += " in " + g.Row
	}
	if g.Mine != "" {
		s = g.Mine + " " + s
	}
	return s
}

// Format rounds to three digits or so.
func Format(unit string, v float64) string {
	switch {
	case unit == YesNo && v == 0:
		return "no"
	case unit == YesNo && v == 1:
		return "yes"
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

// Show is the values of one sample.
func (t *Table) Show(lines []Line, values []float64) string {
	var parts []string
	for _, l := range lines {
		if l.Value < len(values) {
			parts = append(parts, t.format(l.Unit, values[l.Value])+" "+l.Unit)
		}
	}
	return strings.Join(parts, ", ")
}

func (t *Table) format(unit string, v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case t.Format != nil:
		return t.Format(unit, v)
	}
	return Format(unit, v)
}

// Print prints how quiet the machine was, and the table as Markdown.
func (t *Table) Print(w io.Writer, r *Results) {
	if len(r.foreign) > 0 {
		slices.Sort(r.foreign)
		fmt.Fprintf(w, "Other programs used a median of %.2f CPUs meanwhile, at most %.2f.\n", r.foreign[len(r.foreign)/2], r.foreign[len(r.foreign)-1])
	}
	fmt.Fprintf(w, "\n| # | load | | %s | goal | ratio | met |\n|---|---|---%s|---|---|---|\n",
		strings.Join(t.Kinds, " | "), strings.Repeat("|---", len(t.Kinds)))
	for _, row := range t.Rows {
		if r.samples[row.ID] == nil {
			continue
		}
		for i, l := range row.Lines {
			id := row.ID
			if i > 0 {
				id = ""
			}
			cells := []string{id, l.What, l.Unit}
			for _, kind := range t.Kinds {
				v := r.Median(row.ID, kind, l.Value)
				cell := t.format(l.Unit, v)
				if samples := r.samples[row.ID][kind]; math.IsNaN(v) && len(samples) > 0 && samples[len(samples)-1] == nil {
					cell = "failed"
				}
				cells = append(cells, cell)
			}
			var goals, ratios, verdicts []string
			for _, g := range l.Goals {
				ratio, verdict := t.judge(r, row.ID, l, g)
				goals, ratios, verdicts = append(goals, g.text(l.Unit)), append(ratios, ratio), append(verdicts, verdict)
			}
			cells = append(cells, strings.Join(goals, ", "), strings.Join(ratios, ", "), strings.Join(verdicts, ", "))
			fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
		}
	}
}
