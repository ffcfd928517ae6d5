package nbd

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWarnings(t *testing.T) {
	var w warnings
	now := time.Unix(0, 0)
	a := cause{"refused", netip.MustParseAddr("192.0.2.1"), "a"}
	b := a
	b.export = "b"
	require.True(t, w.may(a, now))
	require.True(t, w.may(b, now), "one hides no other")
	require.False(t, w.may(a, now.Add(warnPause-1)))
	require.True(t, w.may(a, now.Add(warnPause)))
	said := 0
	for i := range 10000 {
		a.export = fmt.Sprint("made up ", i)
		if w.may(a, now.Add(warnPause)) {
			said++
		}
	}
	require.Equal(t, maxCauses, said, "a is there already, b is forgotten, and one is for all others")
	require.LessOrEqual(t, len(w.last), maxCauses+1)
	require.True(t, w.may(b, now.Add(2*warnPause)))
	require.Less(t, len(w.last), 5, "the old ones are forgotten")
}

// TestRefusedExportsAreLogged: a client that asks on and on for what it does not
// get is one line, and the other client's is there.
func TestRefusedExportsAreLogged(t *testing.T) {
	var log bytes.Buffer
	srv := &Server{Handler: Exports{}, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	start := time.Now()
	for i := range 30 {
		here, there := net.Pipe()
		done := make(chan error)
		go func() { done <- srv.ServeConn(t.Context(), there) }()
		name := "nobody"
		if i == 20 {
			name = "other"
		}
		_, err := NewClient(t.Context(), here, name)
		require.Error(t, err)
		_ = here.Close()
		<-done
	}
	most := 1 + int(time.Since(start)/warnPause)
	require.Equal(t, 1, strings.Count(log.String(), "export=other"), log.String())
	require.LessOrEqual(t, strings.Count(log.String(), "export=nobody"), most, log.String())
}
