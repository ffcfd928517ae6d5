package app

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/config"
)

// A machine that says nothing after a restart of the server is known all the
// same: it gets its own, and nobody else does.
func TestLeasesAreKept(t *testing.T) {
	state := t.TempDir()
	keep := func(c *config.Config) { c.Server.State = state }
	var one, two dhcp.Ack
	t.Run("before", func(t *testing.T) {
		w := newWorld(t, keep).run()
		one, two = w.lease(macs[0], dhcp.BIOSFirmware()), w.lease(macs[1], dhcp.BIOSFirmware())
	})
	require.FileExists(t, filepath.Join(state, "leases.journal"))
	w := newWorld(t, keep).run()
	lease, err := w.pool.LeaseByAddr(t.Context(), one.Addr.Addr())
	require.NoError(t, err)
	require.Equal(t, macs[0], lease.HardwareAddr)

	code, script := w.http("/boot.ipxe", one.Addr.Addr())
	require.Equal(t, http.StatusOK, code, script)
	_, err = w.nbd(exportIn(t, script), two.Addr.Addr())
	require.ErrorIs(t, err, fs.ErrPermission)
	mine, err := w.nbd(exportIn(t, script), one.Addr.Addr())
	require.NoError(t, err)
	require.NoError(t, mine.Close())
}

func TestLeasesInMemory(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Server.State = "" }).run()
	ack := w.lease(macs[0], dhcp.BIOSFirmware())
	_, err := w.pool.LeaseByAddr(t.Context(), ack.Addr.Addr())
	require.NoError(t, err)
}

// A second server, and a file that is no journal, are refused before anything
// is written.
func TestLeasesRefused(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.NBD, c.Images, c.Entries, c.Machines = nil, nil, nil, nil })
	file := filepath.Join(w.cfg.Server.State, "leases.journal")
	_, err := New(t.Context(), w.cfg, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "server.state: ")
	require.ErrorContains(t, err, file)
	w.close()
	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("somebody's file\n", 100)), 0o600))
	_, err = New(t.Context(), w.cfg, slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, fs.ErrInvalid)
	require.ErrorContains(t, err, file)
}

// What firmware could not boot by is a mistake of the configuration, with its
// place.
func TestCheck(t *testing.T) {
	load := func(dhcp, url string) *config.Config {
		file := filepath.Join(t.TempDir(), "diskless.yaml")
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "server: {address: 192.168.67.1}\ndhcp: {interface: lan0, %s}\nhttp:\n  url: %s\n", dhcp, url), 0o644))
		c, err := config.Load(file)
		require.NoError(t, err)
		return c
	}
	long := "http://192.168.67.1:8080/" + strings.Repeat("x", 1200)
	for _, d := range []string{"subnet: 192.168.67.0/24", "proxy: true"} {
		require.NoError(t, Check(t.Context(), load(d, "http://192.168.67.1:8080")))
		for _, check := range []func(c *config.Config) error{
			func(c *config.Config) error { return Check(t.Context(), c) },
			func(c *config.Config) error {
				_, err := New(t.Context(), c, slog.New(slog.DiscardHandler))
				return err
			},
		} {
			err := check(load(d, long))
			var mistake *config.Error
			require.ErrorAs(t, err, &mistake)
			require.ErrorContains(t, err, "diskless.yaml:4:8: dhcp: boot policy: ")
			require.ErrorContains(t, err, "UEFI HTTP Boot")
			t.Log(err)
		}
	}
	off := load("proxy: true, enabled: false", long)
	require.NoError(t, Check(t.Context(), off))
}

// The pool asks on the link, unless the configuration says not to.
func TestProbe(t *testing.T) {
	for probe, want := range map[string]bool{"": true, "true": true, "false": false} {
		w := newWorld(t, func(c *config.Config) {
			c.DHCP.Probe = nil
			if probe != "" {
				on := probe == "true"
				c.DHCP.Probe = &on
			}
		})
		require.Equal(t, want, w.pool.InUse != nil, "probe: %s", probe)
		w.close()
	}
}

// Beside another server a machine is known by what it says, and by its token.
func TestProxy(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.DHCP = &config.DHCP{Interface: "lo", Proxy: true} })
	var err error
	w.sockets.ProxyDHCP, err = dhcp.Listen("127.0.0.1:0", "")
	require.NoError(t, err)
	w.run()
	require.NoFileExists(t, filepath.Join(w.cfg.Server.State, "leases.journal"))
	code, script := w.http("/boot.ipxe?mac="+macs[0].String(), w.cfg.Server.Address.Addr)
	require.Equal(t, http.StatusOK, code, "without leases a machine is who it says it is")
	mine, err := w.nbd(exportIn(t, script), w.cfg.Server.Address.Addr)
	require.NoError(t, err)
	require.NoError(t, mine.Close())
}
