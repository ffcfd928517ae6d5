package dhcp

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A server is told of when it appears, not each time that it answers.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, foreign := Offer{ServerID: ip("10.0.0.2"), Addr: ip("10.0.0.7")}, Offer{ServerID: ip("10.0.0.9"), Addr: ip("10.0.0.8"), HardwareAddr: macA}
		proxy := Offer{ServerID: ip("10.0.0.9")}
		down := errors.New("interface is down")
		rounds := []struct {
			offers []Offer
			err    error
			warns  int // so far
			found  int
		}{
			{[]Offer{own}, nil, 0, 0},
			{[]Offer{own, foreign}, nil, 1, 1},
			{[]Offer{foreign, own}, nil, 1, 1},
			{nil, down, 2, 1},
			{nil, down, 2, 1},
			{[]Offer{foreign, proxy}, nil, 3, 2},
			{nil, nil, 3, 2},
			{[]Offer{foreign}, nil, 4, 3},
			{nil, fs.ErrPermission, 4, 3},
		}
		var log bytes.Buffer
		var found []Offer
		round := 0
		w := &Watch{
			Interface: "eth1", Known: []netip.Addr{own.ServerID}, Found: func(o Offer) { found = append(found, o) },
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			probe: func(_ context.Context, iface string) ([]Offer, error) {
				require.Equal(t, "eth1", iface)
				r := rounds[round]
				round++
				return r.offers, r.err
			},
		}
		done := make(chan error, 1)
		go func() { done <- w.Run(t.Context()) }()
		for i, r := range rounds {
			synctest.Wait()
			require.Equal(t, i, round)
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			require.Equal(t, r.warns, strings.Count(log.String(), "level=WARN"), "round %d: %s", i, &log)
			require.Len(t, found, r.found)
		}
		require.ErrorIs(t, <-done, fs.ErrPermission)
		require.Equal(t, []Offer{foreign, proxy, foreign}, found)
		for _, want := range []string{"server=10.0.0.9", "mac=" + macA.String(), "unplug it", "ProxyDHCP", "does not answer any more"} {
			require.Contains(t, log.String(), want)
		}

		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- w.Run(ctx) }()
		cancel()
		require.NoError(t, <-done)
		require.ErrorIs(t, new(Watch).Run(t.Context()), fs.ErrInvalid)
	})
}
