package ltsconf

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type recordedLTSP struct {
	Name     string
	Client   struct{ Host, IP, MAC, Applet string }
	LTSPConf string `json:"ltsp_conf"`
	Env      map[string]string
	Broken   bool // the client's shell gave up
}

func (r recordedLTSP) client(t testing.TB) LTSPClient {
	c := LTSPClient{Client: Client{Hostname: r.Client.Host}, Applet: r.Client.Applet}
	var err error
	if r.Client.IP != "" {
		c.IP = netip.MustParseAddr(r.Client.IP)
	}
	if r.Client.MAC != "" {
		c.MAC, err = net.ParseMAC(r.Client.MAC)
		require.NoError(t, err)
	}
	return c
}

func recordingsLTSP(t testing.TB, name string) []recordedLTSP {
	b, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	var doc struct{ Cases []recordedLTSP }
	require.NoError(t, json.Unmarshal(b, &doc))
	require.NotEmpty(t, doc.Cases)
	return doc.Cases
}

// env is what the file sets, as the shell sees it.
func env(t testing.TB, f *LTSPFile, c LTSPClient) map[string]string {
	got := map[string]string{}
	for name, v := range f.Resolve(c) {
		lit, ok := v.Literal()
		require.True(t, ok, "%s=%s", name, v.Raw)
		if name != "HOSTNAME" || lit != c.Hostname { // the recordings tell changes only
			got[name] = lit
		}
	}
	return got
}

func TestLTSPIsIni2sh(t *testing.T) {
	for _, file := range []string{"ltspconf19_ini2sh.json", "ini2sh_random.json"} {
		for _, r := range recordingsLTSP(t, file) {
			t.Run(r.Name, func(t *testing.T) {
				f, err := LTSPParser{Compatible: true}.Parse("ltsp.conf", strings.NewReader(r.LTSPConf))
				require.NoError(t, err)
				require.Equal(t, r.Broken, f.Broken(), "%v", f.Problems())
				require.Equal(t, r.Env, env(t, f, r.client(t)))
				require.Empty(t, f.Undecided(r.client(t)))

				// The strict reader takes it only when nothing is odd about it.
				s, err := ParseLTSP(strings.NewReader(r.LTSPConf))
				if len(f.Problems()) > 0 {
					require.Equal(t, f.Problems()[0], err)
					require.ErrorIs(t, err, fs.ErrInvalid)
					return
				}
				require.NoError(t, err)
				require.Equal(t, r.Env, env(t, s, r.client(t)))
				var b bytes.Buffer
				_, err = s.WriteTo(&b)
				require.NoError(t, err)
				require.Equal(t, r.LTSPConf, b.String())
			})
		}
	}
}
