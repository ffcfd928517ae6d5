package app

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLimitConns(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	limited := limitConns(l, 10, 2)
	defer limited.Close()
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := limited.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp4", l.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	dial()
	first := <-accepted
	dial()
	<-accepted
	_, err = dial().Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "the third from one address is closed at once")
	require.NoError(t, first.Close())
	_ = first.Close()
	dial()
	require.NotNil(t, <-accepted, "a place that is given back is there, once")
	_, err = dial().Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

// Responses of any length arrive, piece by piece, also files.
func TestPatient(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	content := bytes.Repeat([]byte("0123456789abcdef"), 3*httpPiece/16+1)
	srv := &http.Server{Handler: patient(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/write" {
			_, _ = w.Write(content)
			return
		}
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(content))
	}))}
	go func() { _ = srv.Serve(limitConns(l, 10, 10)) }()
	defer srv.Close()
	for _, path := range []string{"/write", "/content"} {
		resp, err := http.Get("http://" + l.Addr().String() + path)
		require.NoError(t, err)
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.True(t, bytes.Equal(content, got), path)
	}
}

// A flood of one message is held back and counted; others pass, and no value
// is longer than it needs to be.
func TestLimitLog(t *testing.T) {
	var out bytes.Buffer
	h := LimitLog(slog.NewTextHandler(&out, nil))
	at := time.Unix(1e9, 0)
	log := func(level slog.Level, msg string, args ...any) {
		r := slog.NewRecord(at, level, msg, 0)
		r.Add(args...)
		require.NoError(t, h.Handle(context.Background(), r))
	}
	for range 10 * warnBurst {
		log(slog.LevelWarn, "refused", "name", strings.Repeat("x", 4096))
	}
	require.Equal(t, warnBurst, strings.Count(out.String(), "msg=refused"))
	require.Less(t, out.Len(), warnBurst*(maxLogValue+200))
	log(slog.LevelInfo, "boot")
	require.Contains(t, out.String(), "msg=boot")
	at = at.Add(time.Minute)
	log(slog.LevelWarn, "refused")
	require.Contains(t, out.String(), "unlogged=900")
	for i := range 2 * maxLogMessages {
		log(slog.LevelWarn, "made up "+strings.Repeat("y", i))
	}
	require.LessOrEqual(t, len(h.(*limitedLog).shared.by), maxLogMessages+2)
}
