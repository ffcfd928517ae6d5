package vm

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func newConsole() *console { return &console{limit: 1 << 20, changed: make(chan struct{})} }

func TestConsoleLines(t *testing.T) {
	for in, want := range map[string][]string{
		"one\r\ntwo\n\n  \nlast":                         {"one", "two", "last"},
		"\x1b[2J\x1b[1;1HSeaBIOS\x1b[02;01Hnext\n":       {"SeaBIOS", "next"},
		"\x1b[0m\x1b[37;40mcolour\x1b[m stays\n":         {"colour stays"},
		"\x1b(Bg0 \x1bMreverse\n":                        {"g0 reverse"},
		"50%\r100%\r\n":                                  {"50%", "100%"},
		"bell\a and \x00nul\ttab\n":                      {"bell and nul\ttab"},
		"trailing blanks   \n":                           {"trailing blanks"},
		"caf\xc3\xa9\n":                                  {"café"},
		strings.Repeat("x", 64<<10) + "y\n":              {strings.Repeat("x", 64<<10), "y"},
		"\x1b[" + strings.Repeat("1;", 100000) + "mok\n": {"ok"},
	} {
		c := newConsole()
		var told []string
		c.line = func(l string) { told = append(told, l) }
		c.read(strings.NewReader(in))
		require.Equal(t, want, c.lines)
		require.Equal(t, want, told)
		require.Equal(t, strings.Join(want, "\n")+"\n", c.transcript())
	}
}

func TestExpect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConsole()
		r, w := io.Pipe()
		go c.read(r)
		go io.WriteString(w, "a=1\nb=2\na=3\nnot yet")
		ctx, cancel := context.WithCancelCause(t.Context())
		line, err := c.expect(ctx, `^a=`)
		require.NoError(t, err)
		require.Equal(t, "a=1", line)
		line, err = c.expect(ctx, `^a=`)
		require.NoError(t, err)
		require.Equal(t, "a=3", line, "a line is returned once, and those before it never")

		_, err = c.expect(ctx, `(`)
		require.Error(t, err, "a bad pattern")

		got := make(chan error)
		go func() {
			_, err := c.expect(ctx, `^not yet`)
			got <- err
		}()
		synctest.Wait()
		select {
		case err := <-got:
			t.Fatal("an unfinished line was matched, or failed: ", err)
		default:
		}
		cancel(errors.New("no patience"))
		require.ErrorContains(t, <-got, "no patience")

		io.WriteString(w, ", but now\n")
		line, err = c.expect(t.Context(), `^not yet`)
		require.NoError(t, err)
		require.Equal(t, "not yet, but now", line)

		w.Close()
		_, err = c.expect(t.Context(), `more`)
		require.ErrorIs(t, err, ErrStopped)
		require.ErrorContains(t, err, "not yet, but now", "the last lines are in the error")
	})
}

func TestExpectHopeless(t *testing.T) {
	const panicked = "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs"
	c := newConsole()
	c.read(strings.NewReader(panicked + "\nafter\n"))
	_, err := c.expect(t.Context(), `^DISKLESS ready$`)
	require.ErrorIs(t, err, ErrHopeless)
	require.ErrorContains(t, err, panicked)

	c = newConsole()
	c.read(strings.NewReader(panicked + "\n"))
	line, err := c.expect(t.Context(), `Kernel panic`)
	require.NoError(t, err, "who waits for a panic gets it")
	require.Equal(t, panicked, line)
}

func TestConsoleBound(t *testing.T) {
	c := newConsole()
	c.limit = 1000
	c.read(strings.NewReader(strings.Repeat("one hundred bytes would be more than this\n", 1000)))
	require.LessOrEqual(t, len(c.transcript()), 1000)
	require.Greater(t, len(c.transcript()), 900)
	_, err := c.expect(t.Context(), `never`)
	require.Error(t, err)
}

func FuzzConsole(f *testing.F) {
	f.Add([]byte("\x1b[2J\x1b[1;1HSeaBIOS\r\n"))
	f.Add([]byte("\x1b(\x1b[\x1b\x1b["))
	f.Fuzz(func(t *testing.T, in []byte) {
		c := newConsole()
		c.read(strings.NewReader(string(in)))
		for _, l := range c.lines {
			require.NotEmpty(t, l)
			require.NotContains(t, l, "\x1b")
			require.NotContains(t, l, "\n")
		}
	})
}
