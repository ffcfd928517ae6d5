//go:build linux

package measure

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestJudge(t *testing.T) {
	table := Table{Kinds: []string{"ours", "other", "kit", "qemu", "server"}, Ours: 2}
	r := &Results{}
	for _, v := range []float64{100, 420, 410} {
		r.Add("1", "ours", []float64{v, 2})
	}
	r.Add("1", "ours", nil) // failed
	r.Add("1", "other", []float64{500, 1})
	r.Add("1", "kit", []float64{100, 10})
	r.Add("1", "qemu", []float64{300, 20})
	r.Add("2", "ours", []float64{41})
	require.Equal(t, 410.0, r.Median("1", "ours", 0))
	for _, test := range []struct {
		value          int
		goal           Goal
		ratio, verdict string
	}{
		{0, Goal{">=", 4, "kit", "", ""}, "4.10", "yes"},
		{0, Goal{">=", 4.2, "kit", "", ""}, "4.10", "**no**"},
		{0, Goal{">=", 5, "kit", "other", ""}, "5.00", "yes"},
		{0, Goal{">=", 1, "best", "", ""}, "1.37", "yes"},
		{1, Goal{"<=", 0.2, "best", "", ""}, "0.20", "yes"},
		{0, Goal{">=", 10, "2", "", ""}, "10.00", "yes"},
		{0, Goal{">=", 20, "ours", "other", "2"}, "12.20", "**no**"},
		{0, Goal{">=", 1.8, "server", "", ""}, "", "nothing to compare with"},
		{1, Goal{"<=", 0.2, "kit", "", ""}, "0.20", "yes"},
		{1, Goal{"<=", 1, "", "", ""}, "", "**no**"},
		{2, Goal{"<=", 1, "", "", ""}, "", "**no**, failed"},
	} {
		ratio, verdict := table.judge(r, "1", Line{Value: test.value}, test.goal)
		require.Equal(t, [2]string{test.ratio, test.verdict}, [2]string{ratio, verdict}, "%+v", test)
	}
}

func TestFormat(t *testing.T) {
	for want, v := range map[string]float64{"1.05": 1.049, "12.3": 12.34, "123": 123.4, "1.2k": 1234, "482k": 482123} {
		require.Equal(t, want, Format("", v))
	}
	require.Equal(t, "no", Format(YesNo, 0))
}

func TestPrint(t *testing.T) {
	table := Table{Kinds: []string{"ours", "kit"}, Ours: 1, Rows: []Row{
		{ID: "1", Lines: []Line{{"a load", "/s", 0, []Goal{{">=", 2, "kit", "", ""}}}, {"", "µs", 1, nil}}}, {ID: "2"}}}
	r := &Results{}
	r.Add("1", "ours", []float64{30, 2})
	r.Add("1", "kit", nil)
	var b strings.Builder
	table.Print(&b, r)
	require.Equal(t, `
| # | load | | ours | kit | goal | ratio | met |
|---|---|---|---|---|---|---|---|
| 1 | a load | /s | 30.0 | failed | ≥ 2 x kit |  | nothing to compare with |
|  |  | µs | 2.00 | failed |  |  |  |
`, b.String())
}

// A sample that others disturbed is taken again, and the quietest one counts.
func TestSample(t *testing.T) {
	r := &Results{}
	foreign := []float64{0.9, 0.4, 0.5}
	r.Sample("1", "ours", 3, func([]float64) string { return "" }, func() ([]float64, float64, error) {
		f := foreign[0]
		foreign = foreign[1:]
		return []float64{f * 10}, f, nil
	})
	require.Equal(t, 4.0, r.Median("1", "ours", 0))
	require.Empty(t, foreign)
}

func TestParse(t *testing.T) {
	d, err := parseStat([]byte("nr_periods 0\nusage_usec 1500\nuser_usec 7\n"))
	require.NoError(t, err)
	require.Equal(t, 1500*time.Microsecond, d)
	_, err = parseStat([]byte("user_usec 7\n"))
	require.Error(t, err)
	d, err = parseUsage([]byte("1500\n"))
	require.NoError(t, err)
	require.Equal(t, 1500*time.Nanosecond, d)
}
