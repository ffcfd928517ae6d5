package limit

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Seldom
		due := func() [2]int {
			ok, missed := s.Due(time.Minute)
			if !ok {
				return [2]int{0, missed}
			}
			return [2]int{1, missed}
		}
		require.Equal(t, [2]int{1, 0}, due())
		require.Equal(t, [2]int{0, 0}, due())
		require.Equal(t, [2]int{0, 0}, due())
		time.Sleep(time.Minute)
		require.Equal(t, [2]int{1, 2}, due())
	})
}

func TestOnceIsBounded(t *testing.T) {
	var o Once
	require.True(t, o.First("a"))
	require.False(t, o.First("a"))
	for i := range 3 * maxOnce {
		require.True(t, o.First(strconv.Itoa(i)))
		require.LessOrEqual(t, len(o.seen), maxOnce)
	}
}

func TestSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Sources
		taken := func(source string) (n int) {
			for s.Allow(source, 10, time.Minute) {
				n++
			}
			return n
		}
		require.Equal(t, 10, taken("a"))
		require.Equal(t, 10, taken("b"))
		time.Sleep(12*time.Second + time.Millisecond)
		require.Equal(t, 2, taken("a"))
		time.Sleep(time.Hour)
		require.Equal(t, 10, taken("a"))
		for i := range MaxSources {
			s.Allow(strconv.Itoa(i), 10, time.Minute)
		}
		require.LessOrEqual(t, len(s.buckets), MaxSources)
	})
}
