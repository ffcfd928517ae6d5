package timeline

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBoots(t *testing.T) {
	now := time.Unix(1e9, 0)
	var log bytes.Buffer
	var got []Event
	tl := Timeline{
		Logger:  slog.New(slog.NewTextHandler(&log, nil)),
		Now:     func() time.Time { return now },
		OnEvent: func(e Event) { got = append(got, e) },
	}
	node := Who{Name: "node01", MAC: "52:54:00:00:00:01", Addr: netip.MustParseAddr("192.0.2.1")}
	add := func(after time.Duration, who Who, stage string) {
		now = now.Add(after)
		tl.Add(Event{Who: who, Stage: stage, What: stage})
	}
	add(0, node, "dhcp")
	add(time.Second, node, "tftp")
	add(time.Second, Who{Addr: netip.MustParseAddr("192.0.2.2")}, "http") // another machine
	add(time.Second, node, "dhcp")                                        // the initramfs asks again
	add(time.Second, node, "nbd")
	add(time.Minute, node, "dhcp")      // a reboot
	add(time.Second, node, "tftp")      //
	add(10*time.Minute, node, "tftp")   // long after
	add(time.Second, Who{}, "unplaced") // nothing is known
	tl.Add(Event{Who: node, Stage: "nbd", What: "x", Err: errors.New("refused")})

	var since []time.Duration
	for _, e := range got {
		since = append(since, e.Since)
	}
	s := time.Second
	require.Equal(t, []time.Duration{0, s, 0, 3 * s, 4 * s, 0, s, 0, 0, s}, since)
	require.Contains(t, log.String(), `level=INFO msg=boot machine=node01 stage=tftp what=tftp since=1s mac=52:54:00:00:00:01 addr=192.0.2.1`)
	require.Contains(t, log.String(), `level=WARN msg=boot machine=node01 stage=nbd what=x since=1s mac=52:54:00:00:00:01 addr=192.0.2.1 err=refused`)
}

// A stranger who invents hardware addresses costs bounded memory.
func TestBounded(t *testing.T) {
	tl := Timeline{Logger: slog.New(slog.DiscardHandler)}
	for i := range maxTracked + 10 {
		tl.Add(Event{Who: Who{MAC: string(rune(i + 1))}, Stage: "dhcp"})
	}
	require.LessOrEqual(t, len(tl.boots), maxTracked)
}
