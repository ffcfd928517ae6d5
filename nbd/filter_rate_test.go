package nbd

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A client that is gone is remembered for as long as its allowance is not whole,
// and no longer: strangers that come and go take no memory.
func TestRateLimitForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &RateLimit{Read: 1000, Write: 1000, Requests: 100, Burst: 60,
			Handler: HandlerFunc(func(context.Context, *Request) (Device, error) { return bytesBase(make([]byte, 1<<20)), nil }),
			Key:     func(r *Request) string { return r.Export }}
		open := func(name string) Device {
			dev, err := l.OpenNBD(t.Context(), &Request{Export: name, Purpose: PurposeGo})
			require.NoError(t, err)
			return dev
		}
		greedy := open("greedy")
		_, err := greedy.ReadAt(make([]byte, 60_000), 0)
		require.NoError(t, err)
		require.NoError(t, greedy.(io.Closer).Close())
		for i := range 1000 {
			require.NoError(t, open(fmt.Sprint(i)).(io.Closer).Close())
		}
		stays := open("stays")
		time.Sleep(30 * time.Second)
		open("one more")
		require.Equal(t, 3, len(l.clients), "greedy, stays and one more")

		// Who comes back too soon waits for the rest.
		begun := time.Now()
		greedy = open("greedy")
		_, err = greedy.ReadAt(make([]byte, 60_000), 0)
		require.NoError(t, err)
		require.InDelta(t, 30, time.Since(begun).Seconds(), 1)
		require.NoError(t, greedy.(io.Closer).Close())
		require.NoError(t, stays.(io.Closer).Close())
		time.Sleep(2 * time.Minute)
		open("the last")
		require.Equal(t, 2, len(l.clients), "one more and the last")
	})
}

// advised is a device that can be told what will be read.
type advised struct{ bytesBase }

func (advised) Features() Features       { return Features{Cache: true} }
func (advised) Cache(off, n int64) error { return nil }

// What a client has read ahead is read for it.
func TestRateLimitOfCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &RateLimit{Read: 1 << 20, Handler: HandlerFunc(func(context.Context, *Request) (Device, error) { return advised{make([]byte, 8<<20)}, nil })}
		dev, err := l.OpenNBD(t.Context(), &Request{Purpose: PurposeGo})
		require.NoError(t, err)
		begun := time.Now()
		require.NoError(t, dev.(interface{ Cache(off, n int64) error }).Cache(0, 8<<20))
		require.InDelta(t, 7, time.Since(begun).Seconds(), 0.1, "a second's worth at once")
	})
}
