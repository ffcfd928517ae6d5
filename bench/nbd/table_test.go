//go:build linux

package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestJudge(t *testing.T) {
	r := results{}
	for _, v := range []float64{100, 420, 410} {
		r.add("1", ours, []float64{v, 2})
	}
	r.add("1", ours, nil) // failed
	r.add("1", nbdkit, []float64{100, 10})
	r.add("1", qemuNBD, []float64{300, 10})
	require.Equal(t, 410.0, r.median("1", ours, 0))
	for _, test := range []struct {
		value          int
		goal           goal
		ratio, verdict string
	}{
		{0, goal{">=", 4, nbdkit}, "4.10", "yes"},
		{0, goal{">=", 4.2, nbdkit}, "4.10", "**no**"},
		{0, goal{">=", 1, "best"}, "1.37", "yes"},
		{0, goal{">=", 1.8, nbdServer}, "", "nothing to compare with"},
		{1, goal{"<=", 0.2, nbdkit}, "0.20", "yes"},
		{1, goal{"<=", 1, ""}, "", "**no**"},
		{2, goal{"<=", 1, ""}, "", "**no**, failed"},
	} {
		ratio, verdict := r.judge("1", line{value: test.value}, test.goal)
		require.Equal(t, [2]string{test.ratio, test.verdict}, [2]string{ratio, verdict}, "%+v", test)
	}
}

func TestFormat(t *testing.T) {
	for want, v := range map[string]float64{"1.05": 1.049, "12.3": 12.34, "123": 123.4, "1.2k": 1234, "482k": 482123} {
		require.Equal(t, want, line{}.format(v))
	}
	require.Equal(t, "no", line{unit: yesNo}.format(0))
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

// Every goal compares with something that is measured.
func TestGoals(t *testing.T) {
	byID := map[string]row{}
	for _, r := range rows {
		require.NotContains(t, byID, r.id)
		byID[r.id] = r
	}
	for _, r := range rows {
		require.Contains(t, r.kinds, ours, r.id)
		for _, l := range r.lines {
			for _, g := range l.goals {
				if g.peer != "" && g.peer != "best" && byID[g.peer].id == "" {
					require.Contains(t, r.kinds, g.peer, r.id)
				}
			}
		}
	}
}
