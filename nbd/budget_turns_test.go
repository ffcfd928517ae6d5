package nbd

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// claimant is a connection that wants of a budget, alone at its address.
type claimant struct {
	*share
	b    *budget
	got  chan error
	stop context.CancelCauseFunc
}

// wants has a share ask for n, and waits until it has that or stands in the queue.
func wants(t *testing.T, b *budget, s *share, n int64) claimant {
	ctx, stop := context.WithCancelCause(t.Context())
	t.Cleanup(func() { stop(nil) })
	c := claimant{s, b, make(chan error, 1), stop}
	claims := func() (k int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for at := s.wait; at != nil; at = at.next {
			k++
		}
		return k
	}
	before := claims()
	go func() { c.got <- b.take(ctx, s, n) }() // ends with it
	require.Eventually(t, func() bool { return len(c.got) > 0 || claims() > before }, 20*time.Second, 100*time.Microsecond)
	return c
}

func (c claimant) has(t *testing.T) {
	t.Helper()
	require.NoError(t, within(t, c.got))
}

func (c claimant) waits(t *testing.T) {
	t.Helper()
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	require.NotNil(t, c.wait)
}

func within(t *testing.T, from <-chan error) error {
	t.Helper()
	select {
	case err := <-from:
		return err
	case <-time.After(20 * time.Second):
		require.Fail(t, "nothing came")
		return nil
	}
}

// Who has nothing is not overtaken by those who want less, but for ever only as
// long as it waits.
func TestBudgetTurns(t *testing.T) {
	left := errors.New("it has left")
	alone := func() *share { return &share{peer: new(peer)} }
	for name, ending := range map[string]func(b *budget, holder, large claimant){
		"served": func(b *budget, holder, _ claimant) { b.give(holder.share, 55) },
		"left":   func(_ *budget, _, large claimant) { large.stop(left) },
	} {
		t.Run(name, func(t *testing.T) {
			b := &budget{free: 100}
			holder := wants(t, b, alone(), 60)
			holder.has(t)
			large := wants(t, b, alone(), 50)
			small := []claimant{wants(t, b, alone(), 1), wants(t, b, alone(), 2)}
			large.waits(t)
			small[0].waits(t)
			small[1].waits(t)
			b.give(holder.share, 5) // enough for them, and not for large
			small[0].waits(t)
			small[1].waits(t)

			ending(b, holder, large)
			small[0].has(t)
			small[1].has(t)
			if name == "left" {
				require.ErrorIs(t, within(t, large.got), left)
				require.Zero(t, large.held)
				b.give(holder.share, 55)
			} else {
				large.has(t)
				b.give(large.share, 50)
			}
			b.give(small[0].share, 1)
			b.give(small[1].share, 2)
			require.EqualValues(t, 100, b.free)
			require.Empty(t, b.queue)
		})
	}
}

// Who leaves at the moment that it is served keeps nothing.
func TestBudgetLeaver(t *testing.T) {
	for range 100 {
		b := &budget{free: 100}
		s := &share{peer: new(peer)}
		c := wants(t, b, s, 100)
		c.has(t)
		c = wants(t, b, &share{peer: new(peer)}, 1)
		b.mu.Lock()
		c.stop(nil)
		b.put(s, 100)
		b.serve()
		b.mu.Unlock()
		if within(t, c.got) == nil {
			b.give(c.share, 1)
		}
		require.EqualValues(t, 100, b.free)
	}
}

// Who has something waits until much is left, and for nobody's sake but its own.
func TestBudgetOfOne(t *testing.T) {
	b := &budget{free: 100}
	greedy := &share{peer: new(peer)}
	wants(t, b, greedy, 5).has(t)
	more := []claimant{wants(t, b, greedy, 16), wants(t, b, greedy, 3)} // 16*5+16 > 95
	more[0].waits(t)
	more[1].waits(t)
	other := wants(t, b, &share{peer: new(peer)}, 90)
	other.has(t)
	b.give(other.share, 90)
	more[0].waits(t)
	b.give(greedy, 5)
	more[0].has(t)
	more[1].waits(t)
	near := &share{peer: greedy.peer} // another one of its address: 4*16+20 > 84-1
	beside := wants(t, b, near, 21)
	beside.waits(t)
	b.give(greedy, 16)
	beside.has(t)
	more[1].has(t)
	b.give(near, 21)
	b.give(greedy, 3)
	require.EqualValues(t, 100, b.free)
	require.Zero(t, greedy.peer.held)
	require.Empty(t, b.queue)
}
