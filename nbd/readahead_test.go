package nbd

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// A readSet is a set, whatever is asked of it.
func TestReadSet(t *testing.T) {
	const pages = 2*leafUnits + 100
	var set readSet
	set.init(pages<<pageShift, true)
	model := make([]bool, pages)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		from := rnd.Int64N(pages)
		if rnd.IntN(2) == 0 {
			from = min(pages-1, leafUnits-100+rnd.Int64N(200))
		}
		to := min(pages, from+rnd.Int64N(1+rnd.Int64N(300)))
		fresh := false
		for i := from; i < to; i++ {
			fresh = fresh || !model[i]
			model[i] = true
		}
		require.Equal(t, fresh, set.add(from, to))

		from = rnd.Int64N(pages)
		end, least := from+rnd.Int64N(pages-from), rnd.Int64N(from+1)
		var run, before int64
		for from+run < end && model[from+run] {
			run++
		}
		for from-before > least && model[from-before-1] {
			before++
		}
		require.Equal(t, run, set.run(from, end))
		require.Equal(t, before, set.runBefore(from, least))
	}
	set.forget()
	require.Zero(t, set.run(0, pages))
	require.True(t, set.add(0, pages))
	set.forget() // did so just now
	require.Equal(t, int64(pages), set.run(0, pages))
}

// A sequence is read ahead of, before its reader comes to the end of that, by as
// much as came before it and no more than aheadBytes. What is read here and there
// is not, and what was read once is not told of again.
func TestReadAhead(t *testing.T) {
	const size = 64 << 20
	for _, sparse := range []bool{false, true} {
		unit := int64(aroundBytes)
		if sparse {
			unit = 1 << pageShift
		}
		for _, n := range []int64{4 << 10, 32 << 10, 128 << 10, 1 << 20} {
			var set readSet
			set.init(size, sparse)
			told, stops := int64(0), 0
			for off := int64(0); off < size; off += n {
				around, ahead, fresh := set.want(off, off+n)
				require.Equal(t, byteRange{off &^ (unit - 1), (off + n + unit - 1) &^ (unit - 1)}, around)
				if fresh && off > 4*aheadBytes {
					stops++
				}
				if ahead.end == 0 {
					continue
				}
				told++
				require.GreaterOrEqual(t, ahead.off, around.end)
				require.Greater(t, ahead.end, ahead.off)
				require.LessOrEqual(t, ahead.end, min(size, around.end+min(around.end, aheadBytes)))
			}
			require.Zero(t, stops, "reads of %d were not read ahead of", n)
			require.NotZero(t, told)
			require.LessOrEqual(t, told, int64(size/aheadBytes*2+20))
			for off := int64(0); off < size; off += n {
				_, ahead, fresh := set.want(off, off+n)
				require.False(t, fresh)
				require.Zero(t, ahead)
			}
		}
		var set readSet
		set.init(size, sparse)
		for off := int64(0); off < size; off += 3 * aroundBytes {
			_, ahead, fresh := set.want(off+512, off+64<<10)
			require.True(t, fresh)
			require.Zero(t, ahead)
		}
	}
}

// Several sequences in one file are told apart, whoever reads them and in whatever
// order: each is read ahead of as if it were alone.
func TestReadAheadOfSeveralSequences(t *testing.T) {
	const size, n, readers = 256 << 20, 256 << 10, 4
	for _, sparse := range []bool{false, true} {
		var set readSet
		set.init(size, sparse)
		var at [readers]int64
		rnd := rand.New(rand.NewPCG(3, 4))
		ahead, waits := int64(0), int64(0)
		for left := size / n; left > 0; left-- {
			i := rnd.Int64N(readers)
			for at[i] == size/readers {
				i = (i + 1) % readers
			}
			off := i*size/readers + at[i]
			_, next, fresh := set.want(off, off+n)
			ahead += next.end - next.off
			if fresh {
				waits += n
				require.LessOrEqual(t, at[i], int64(aheadBytes), "reader %d comes to what was not read ahead", i)
			}
			at[i] += n
		}
		// Where one comes to where the next began it may be told of that again.
		require.GreaterOrEqual(t, ahead+waits, int64(size))
		require.Less(t, ahead+waits, int64(size+readers*aheadBytes))
	}
}

// The system is told of all, and of no more at once than the least of disks takes.
func TestHints(t *testing.T) {
	for _, r := range []byteRange{{}, {4096, 8192}, {4096, 4096 + 128<<10}, {1 << 20, 5<<20 + 512}} {
		at := r.off
		for piece := range r.hints {
			require.Equal(t, at, piece.off)
			require.Greater(t, piece.end, piece.off)
			require.LessOrEqual(t, piece.end-piece.off, int64(128<<10))
			at = piece.end
		}
		require.Equal(t, r.end, at)
	}
}
