package inorder

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLines(t *testing.T) {
	var l Lines[string, int]
	enter := func(client string, item int) [2]bool {
		now, ok := l.Enter(client, item)
		return [2]bool{now, ok}
	}
	turn, waits, refused := [2]bool{true, true}, [2]bool{false, true}, [2]bool{false, false}
	require.Equal(t, turn, enter("a", 0))
	require.Equal(t, turn, enter("b", 100))
	for i := range MaxWaiting {
		require.Equal(t, waits, enter("a", 1+i))
	}
	require.Equal(t, refused, enter("a", 99))
	require.Equal(t, waits, enter("b", 101))
	for i := range MaxWaiting {
		next, more := l.Leave("a")
		require.True(t, more)
		require.Equal(t, 1+i, next)
		// Whoever was answered may ask again.
		require.Equal(t, waits, enter("a", 1+i+MaxWaiting))
	}
	for i := range MaxWaiting {
		next, more := l.Leave("a")
		require.True(t, more)
		require.Equal(t, 1+i+MaxWaiting, next)
	}
	_, more := l.Leave("a")
	require.False(t, more)
	require.Len(t, l.lines, 1)
	require.Equal(t, turn, enter("a", 0))
}

// One client is worked for by one goroutine at a time, which gets its items in
// their order, and nothing is left in the end.
func TestLinesConcurrently(t *testing.T) {
	var l Lines[int, int]
	var wg sync.WaitGroup
	var got [4][]int // race detector: each by one goroutine at a time
	for item := range 10_000 {
		client := item % len(got)
		for {
			now, ok := l.Enter(client, item)
			if now {
				wg.Go(func() {
					for more := true; more; item, more = l.Leave(client) {
						got[client] = append(got[client], item)
					}
				})
			}
			if ok {
				break
			}
		}
	}
	wg.Wait()
	require.Empty(t, l.lines)
	for client, items := range got {
		require.Len(t, items, 2500)
		for i, item := range items {
			require.Equal(t, client+4*i, item)
		}
	}
}

func BenchmarkLines(b *testing.B) {
	var l Lines[[16]byte, *int]
	b.ReportAllocs()
	var client [16]byte
	for i := range b.N {
		client[0], client[1] = byte(i), byte(i>>8)
		l.Enter(client, nil)
		l.Leave(client)
	}
}
