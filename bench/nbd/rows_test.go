//go:build linux

package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

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
