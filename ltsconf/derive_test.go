package ltsconf

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDerivations(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "ltsp5_client_derivations.json"))
	require.NoError(t, err)
	var doc struct {
		KernelCmdline []struct {
			Cmdline    string
			RootServer string   `json:"dhcp_rootserver"`
			LTSPConfig []string `json:"ltsp_config"`
		} `json:"kernel_cmdline"`
		Path []struct {
			BootImage    string `json:"BOOT_IMAGE"`
			DHCPFilename string `json:"dhcp_filename"`
			Arch         string
			LTSCONF      string
			TFTPGet      string `json:"tftp_get"`
		} `json:"lts_conf_path"`
		AutoHostname []struct {
			IP       string
			MAC      string
			Prefix   int
			Extra    string `json:"HOSTNAME_EXTRA"`
			Hostname string
		} `json:"auto_hostname"`
	}
	require.NoError(t, json.Unmarshal(b, &doc))
	require.NotEmpty(t, doc.KernelCmdline)
	for _, c := range doc.KernelCmdline {
		got := []string{}
		for _, s := range CmdlineSettings(c.Cmdline, c.RootServer) {
			v, ok := s.Value.Literal()
			require.True(t, ok)
			got = append(got, s.Name+"="+v)
		}
		require.Equal(t, c.LTSPConfig, got, c.Cmdline)
	}
	require.NotEmpty(t, doc.Path)
	for _, c := range doc.Path {
		require.Equal(t, c.TFTPGet, FileName(c.BootImage, c.DHCPFilename, c.Arch, c.LTSCONF))
	}
	require.NotEmpty(t, doc.AutoHostname)
	for _, c := range doc.AutoHostname {
		var who Client
		if c.IP != "" {
			who.IP = netip.MustParseAddr(c.IP)
		}
		if c.MAC != "" {
			who.MAC, err = net.ParseMAC(c.MAC)
			require.NoError(t, err)
		}
		require.Equal(t, c.Hostname, who.AutoHostname("", c.Extra, c.Prefix))
	}
	require.Equal(t, "ws-7", Client{}.AutoHostname("ws", "-7", 24))
	require.Equal(t, "ws", Client{}.AutoHostname("ws", "ip", 24))
}

func TestCmdlineOddities(t *testing.T) {
	require.Equal(t, Settings{{"NBD_ROOT_HOST", Value{Raw: "h"}}, {"NBD_ROOT_NAME", Value{Raw: "img@n.t"}}, {"A", Value{Raw: "b=c"}}, {"D", Value{Raw: "e"}}},
		CmdlineSettings("nfsroot=x nbdroot=h:img@n.t ltsp.a=b=c ltsp.d=e= ltsp.=x ltsp.q\n", "dhcp"))
}
