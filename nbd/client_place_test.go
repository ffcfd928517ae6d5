package nbd

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// Chunks in any order fill the buffer, each place once.
func TestChunksInAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		const n = 64
		q, has, left := exchange{n: n}, [n]bool{}, n
		for left > 0 {
			at := r.Uint32N(n)
			length := 1 + r.Uint32N(min(n-at, 9))
			free := true
			for _, h := range has[at : at+length] {
				free = free && !h
			}
			require.Equal(t, free, q.place(at, length), "%d bytes at %d: %v", length, at, has)
			if free {
				for i := range length {
					has[at+i] = true
				}
				left -= int(length)
			}
			require.Equal(t, left == 0, q.got == n)
		}
		require.Empty(t, q.apart)
	}
	q := exchange{n: 1 << 20}
	for i := range uint32(maxApart) {
		require.True(t, q.place(2*i+1, 1))
	}
	require.False(t, q.place(1<<19, 1))
}
