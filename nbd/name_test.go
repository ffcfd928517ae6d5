package nbd

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseName(t *testing.T) {
	for _, s := range []struct {
		in   string
		want Name
	}{
		{"debian12", Name{Image: "debian12"}},
		{"/debian12", Name{Image: "debian12"}},
		{"debian-12.5_x", Name{Image: "debian-12.5_x"}},
		{"debian12~0a1b2c3d", Name{Image: "debian12", Generation: "0a1b2c3d"}},
		{"debian12@node-01", Name{Image: "debian12", Root: "node-01"}},
		{"2000@1", Name{Image: "2000", Root: "1"}},
		{"d.e~0a1b2c3d4e5f@node-01.6f3k9a-x7Qm2p", Name{"d.e", "0a1b2c3d4e5f", "node-01", "6f3k9a-x7Qm2p"}},
		{strings.Repeat("x", MaxName), Name{Image: strings.Repeat("x", MaxName)}},
	} {
		got, err := ParseName(s.in)
		require.NoError(t, err, s.in)
		require.Equal(t, s.want, got, s.in)
		require.Equal(t, strings.TrimPrefix(s.in, "/"), got.String())
	}
}

func TestParseNameRefuses(t *testing.T) {
	for _, s := range []string{
		"", "/", "//debian12", "2000", "/2000", "-v", ".", "..", ".hidden", "_x", "debian12/x",
		"debian12~", "debian12~0a1b2c", "debian12~0A1B2C3D", "debian12~0a1b2c3g", "debian12~" + strings.Repeat("0", 65),
		"debian12@", "@node", "debian12@-n", "debian12@no.de.tok", "debian12@node.", "debian12@node.-t", "debian12@a@b", "debian12~0a1b2c3d~0a1b2c3d",
		"debian12@node~0a1b2c3d", "a b", "a:b", "a,b", "a#b", "a\x00b", "ä", "debian12\n",
		strings.Repeat("x", MaxName+1), strings.Repeat("x", 5000),
	} {
		_, err := ParseName(s)
		require.ErrorIs(t, err, fs.ErrInvalid, "%q", s)
	}
	require.ErrorIs(t, Name{Image: "a", Boot: "x"}.Valid(), fs.ErrInvalid)
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"debian12", "/debian12~0a1b2c3d4e5f@node-01.6f3k9a-x7Qm2p", "2000", "a@b.c-d", "a~@.", "~@."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err != nil {
			require.Zero(t, n)
			return
		}
		require.NoError(t, n.Valid())
		require.Equal(t, strings.TrimPrefix(s, "/"), n.String())
		again, err := ParseName(n.String())
		require.NoError(t, err)
		require.Equal(t, n, again)
	})
}
