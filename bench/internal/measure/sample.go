//go:build linux

package measure

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
)

// A sample during which others used more than this many CPUs is taken again.
const quiet = 0.25

// Results are samples by row and server; one that failed is nil.
type Results struct {
	samples map[string]map[string][][]float64
	foreign []float64 // CPUs that others used, by sample
}

// Sample measures one row with one server, in a quiet moment if there is one:
// at most so often as tries says, and the quietest sample counts. Each says how
// many CPUs others used meanwhile.
func (r *Results) Sample(row, kind string, tries int, show func([]float64) string, try func() (values []float64, foreign float64, err error)) {
	least := math.Inf(1)
	var values []float64
	for range tries {
		got, foreign, err := try()
		if errors.Is(err, context.Canceled) {
			return // the program is being stopped
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%-14s %-12s failed: %v\n", row, kind, err)
			break
		}
		fmt.Fprintf(os.Stderr, "%-14s %-12s %s (others: %.2f CPUs)\n", row, kind, show(got), foreign)
		if foreign < least {
			least, values = foreign, got
		}
		if least <= quiet {
			break
		}
	}
	if values != nil {
		r.foreign = append(r.foreign, least)
	}
	r.Add(row, kind, values)
}

// Add adds a sample; nil is one that failed.
func (r *Results) Add(row, kind string, values []float64) {
	if r.samples == nil {
		r.samples = map[string]map[string][][]float64{}
	}
	if r.samples[row] == nil {
		r.samples[row] = map[string][][]float64{}
	}
	r.samples[row][kind] = append(r.samples[row][kind], values)
}

// Median is that of the samples that did not fail; NaN when there is none.
func (r *Results) Median(row, kind string, value int) float64 {
	var v []float64
	for _, sample := range r.samples[row][kind] {
		if value < len(sample) && !math.IsNaN(sample[value]) {
			v = append(v, sample[value])
		}
	}
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
