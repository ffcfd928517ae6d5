package tftp

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/pin/tftp/v3/netascii"
	"github.com/stretchr/testify/require"
)

func decode(t testing.TB, parts ...string) string {
	t.Helper()
	var b bytes.Buffer
	a := &fromNetascii{w: &b}
	for _, p := range parts {
		n, err := io.WriteString(a, p)
		require.NoError(t, err)
		require.Equal(t, len(p), n)
	}
	require.NoError(t, a.end())
	return b.String()
}

func TestFromNetascii(t *testing.T) {
	for in, want := range map[string]string{
		"":                "",
		"one\r\ntwo\r\n":  "one\ntwo\n",
		"a\r\x00b":        "a\rb",
		"bare\rCR":        "bare\rCR",
		"\r\r\n\r\r\x00x": "\r\n\r\rx",
		"ends in\r":       "ends in\r",
		"nul\x00 and\nLF": "nul\x00 and\nLF",
	} {
		for i := range len(in) + 1 { // blocks end anywhere
			require.Equal(t, want, decode(t, in[:i], in[i:]), "%q at %d", in, i)
		}
	}
}

// failsOnce loses what it gets first.
type failsOnce struct{ n int }

func (f *failsOnce) Write(p []byte) (int, error) {
	if f.n++; f.n == 1 {
		return 0, errors.New("not now")
	}
	return len(p), nil
}

func TestFromNetasciiFails(t *testing.T) {
	_, err := (&fromNetascii{w: new(failsOnce)}).Write(make([]byte, 512))
	require.ErrorContains(t, err, "not now")
}

// What one side sends the other side has.
func FuzzNetascii(f *testing.F) {
	f.Add([]byte("a\r\nb\rc\r\x00\n\r"), 3)
	f.Fuzz(func(t *testing.T, file []byte, at int) {
		sent, err := io.ReadAll(netascii.ToReader(bytes.NewReader(file)))
		require.NoError(t, err)
		at = max(0, min(at, len(sent)))
		require.Equal(t, string(file), decode(t, string(sent[:at]), string(sent[at:])))
		decode(t, string(file))
	})
}
