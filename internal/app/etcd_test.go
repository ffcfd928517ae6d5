//go:build !noetcd

package app

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/internal/etcdtest"
)

// Two servers on one etcd: a machine of the first keeps its address at the
// second, which knows whose it is, and nobody else gets it.
func TestLeasesInEtcd(t *testing.T) {
	etcd := etcdtest.Start(t, 1)
	use := func(name string) func(c *config.Config) {
		return func(c *config.Config) {
			c.DHCP.Etcd = &config.Etcd{Endpoints: etcd.URLs(), Name: name, Servers: []config.Addr{{Addr: netip.MustParseAddr("127.0.0.9")}}}
		}
	}
	first, second := newWorld(t, use("first")), newWorld(t, use("second")).run()
	require.Equal(t, []netip.Addr{netip.MustParseAddr("127.0.0.9")}, first.pool.Peers)
	var one dhcp.Ack
	t.Run("first", func(t *testing.T) {
		first.t = t
		one = first.run().lease(macs[0], dhcp.BIOSFirmware())
	})
	lease, err := second.pool.LeaseByAddr(t.Context(), one.Addr.Addr())
	require.NoError(t, err)
	require.Equal(t, macs[0], lease.HardwareAddr)
	code, script := second.http("/boot.ipxe", one.Addr.Addr())
	require.Equal(t, http.StatusOK, code, script)
	require.Equal(t, one.Addr, second.lease(macs[0], dhcp.BIOSFirmware()).Addr)
	two := second.lease(macs[1], dhcp.BIOSFirmware())
	require.NotEqual(t, one.Addr, two.Addr)
	_, err = second.nbd(exportIn(t, script), two.Addr.Addr())
	require.ErrorIs(t, err, fs.ErrPermission)
	require.NoFileExists(t, filepath.Join(second.cfg.Server.State, leasesFile))
}

// What is wrong with the files is said with the place that names them.
func TestEtcdMistakes(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"empty.pem": "", "password": "secret\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	file := filepath.Join(dir, "diskless.yaml")
	for more, want := range map[string]string{
		"ca: empty.pem":                   "diskless.yaml:3:50: dhcp.etcd.ca: there is no certificate in ",
		"cert: empty.pem, key: empty.pem": "diskless.yaml:3:52: dhcp.etcd.cert, key: tls: failed to find any PEM data",
	} {
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil,
			"server: {address: 192.168.67.1}\ndhcp: {interface: lan0, subnet: 192.168.67.0/24,\n  etcd: {endpoints: [\"https://127.0.0.1:1\"], %s}}\n", more), 0o600))
		c, err := config.Load(file)
		require.NoError(t, err)
		_, err = New(t.Context(), c, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, want)
	}
}
