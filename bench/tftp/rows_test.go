//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/bench/internal/measure"
)

func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rows {
		require.False(t, seen[r.id], r.id)
		seen[r.id] = true
		require.Contains(t, files, r.file, r.id)
		require.Equal(t, ours, r.kinds[0], r.id)
		for _, l := range r.lines {
			require.NotEmpty(t, names[l.value], r.id)
			for _, g := range l.goals {
				require.Contains(t, []string{">=", "<="}, g.op, r.id)
				require.Positive(t, g.limit, r.id)
				require.True(t, g.peer == "" || g.peer == "best" || slices.Contains(r.kinds, g.peer), "%s: nobody measures %s", r.id, g.peer)
				require.True(t, g.mine == "" || slices.Contains(r.kinds, g.mine), "%s: nobody measures %s", r.id, g.mine)
			}
		}
	}
	for _, id := range []string{"lo1-512", "lo1-w64", "lo64-w1", "lo64-w64", "delay1-w4", "delay10-w64", "drop0.1-w1", "drop1-w16", "many-1000", "many-200"} {
		require.True(t, seen[id], id)
	}
}

func TestParse(t *testing.T) {
	r := &row{blk: 1000, win: 64, clients: 2, shared: 100}
	got, err := r.parse("2000000 0.5 2 0 3 16000.0 0.25 64\n")
	require.NoError(t, err)
	require.InDeltaSlice(t, []float64{rate: 4, cpu: 0.1 / 2e6 * (1 << 30), share: 100, done: 100, mem: 50}, r.values(got, 100*time.Millisecond, 200), 1e-6)
	for out, want := range map[string]string{
		"":                           "load said",
		"2000000 0.5 2 0 3 1 0.2":    "load said",
		"2000000 0.5 2 0 3 1 0.2 x":  "load said",
		"0 0.5 0 0 3 0 0.2 64":       "nothing came",
		"2000000 0.5 2 0 3 1 0.2 1":  "a window of 1 is all",
		"2000000 0.5 1 1 3 1 0.2 64": "1 clients failed",
	} {
		_, err := r.parse(out)
		require.ErrorContains(t, err, want, out)
	}
	_, err = r.parse("2000000 0.5 2 0 3 1 0.2 32") // dnsmasq's largest
	require.NoError(t, err)
}

func TestListens(t *testing.T) {
	const head = "   sl  local_address rem_address   st\n"
	require.True(t, listens(head+" 7: 0100007F:0045 00000000:0000 07\n"))
	require.False(t, listens(head+" 7: 0100007F:0044 00000000:0045 07\n"))
	require.False(t, listens(head))
}

func TestTable(t *testing.T) {
	var results measure.Results
	results.Add("lo1-w4", ours, []float64{rate: 240, cpu: 4.5, mem: 0})
	results.Add("lo1-w4", atftpd, []float64{rate: 108, cpu: 4.8, mem: 0})
	results.Add("lo1-w4", dnsmasq, nil)
	var b strings.Builder
	table().Print(&b, &results)
	require.Contains(t, b.String(), "| lo1-w4 | one client, blksize 1468, window 4, loopback | MB/s | 240 | - | - | failed | 108 | - | ≥ 1 x the best peer | 2.22 | yes |")
	require.NotContains(t, b.String(), "lo1-w1 ")
}
