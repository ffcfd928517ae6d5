package app

import (
	"io/fs"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

func rulesWorld(t *testing.T) *world {
	return newWorld(t, func(c *config.Config) {
		c.Menus = []config.Menu{{Name: "lab", Title: "Lab", Entries: []string{"live", "local"}, Default: "local", Timeout: config.Duration{Duration: 7 * time.Second}}}
		c.Profiles = []config.Profile{{Name: "serial", Args: []string{"console=ttyS0"}}, {Name: "kiosk", Inherit: []string{"serial"}, Args: []string{"kiosk"}}}
		c.Rules = []config.Rule{
			{Name: "kiosks", MACPrefix: []config.MACPrefix{{HardwareAddr: macs[2][:5]}}, Platform: []string{"efi"}, Inherit: []string{"kiosk"}, Entry: "lab"},
			{Name: "install", Network: []config.Prefix{{Prefix: netip.MustParsePrefix("127.0.67.0/24")}}, Entry: "local", Once: "live"},
		}
		c.Machines[0].Entry, c.Machines[0].Once = "lab", "desk"
		require.Equal(t, "desk", c.Machines[1].Entry)
	})
}

func TestRulesMenusAndOnce(t *testing.T) {
	w := rulesWorld(t)
	defer w.close()
	kiosk := pxecfg.Client{MAC: macs[2], ArchKnown: true, Arch: iana.EFI_X86_64}
	cfg, err := w.bootConfig(t.Context(), kiosk)
	require.NoError(t, err)
	require.Equal(t, []string{"Lab", "local"}, []string{cfg.Title, cfg.Default})
	require.Equal(t, 7*time.Second, cfg.Timeout)
	require.Len(t, cfg.Entries, 2)
	require.Equal(t, []string{"console=ttyS0", "kiosk"}, cfg.Entries[0].Args)
	require.NoError(t, cfg.Validate())

	bios := pxecfg.Client{MAC: macs[2], ArchKnown: true, IP: netip.MustParseAddr("127.0.67.5")}
	cfg, err = w.bootConfig(t.Context(), bios)
	require.NoError(t, err)
	require.Equal(t, "live", cfg.Entries[0].Label, "the first time")
	_, err = w.bootConfig(t.Context(), pxecfg.Client{MAC: macs[2], ArchKnown: true})
	require.ErrorIs(t, err, fs.ErrNotExist, "no rule fits, and others are denied")
	require.Len(t, w.Strangers(), 1)

	// A server started anew knows who has booted: a minute later it is over.
	require.NoError(t, (&pxecfg.BootDir{Dir: w.cfg.Server.State + "/once"}).Set(t.Context(), "mac-"+macs[2].String(), time.Now().Add(-time.Hour)))
	cfg, err = w.bootConfig(t.Context(), bios)
	require.NoError(t, err)
	require.True(t, cfg.Entries[0].LocalBoot)

	// A listed machine is not the rules'.
	one := pxecfg.Client{MAC: macs[0], ArchKnown: true, Arch: iana.EFI_X86_64}
	cfg, err = w.bootConfig(t.Context(), one)
	require.NoError(t, err)
	require.Equal(t, "desk", cfg.Entries[0].Label)
	require.NoError(t, w.booted.Set(t.Context(), "mac-"+macs[0].String(), time.Time{}))
	cfg, err = w.bootConfig(t.Context(), one)
	require.NoError(t, err)
	require.Equal(t, "Lab", cfg.Title)
}

func TestExplain(t *testing.T) {
	w := rulesWorld(t)
	defer w.close()
	explain := func(q string) pxecfg.Step {
		values, err := url.ParseQuery(q)
		require.NoError(t, err)
		steps, err := w.Explain(t.Context(), values)
		require.NoError(t, err)
		return steps[len(steps)-1]
	}
	for range 2 {
		s := explain("machine=one")
		require.True(t, s.Hit)
		require.Contains(t, s.Rule, "machine 52:54:00:00:00:01, once, and not yet", "a look is no boot")
	}
	s := explain("mac=52:54:00:00:00:09&platform=efi&loader=ipxe")
	require.Equal(t, `rule "kiosks"`, s.Rule)
	require.Contains(t, s.Values, pxecfg.Value{Entry: "live", Field: "arg", Value: "kiosk", From: `profile "kiosk"`})
	require.False(t, explain("mac=52:54:00:00:00:09").Hit)
	require.Empty(t, w.Strangers(), "a look is no sighting")
	for _, q := range []url.Values{{"mac": {"x"}}, {"ip": {"x"}}, {"arch": {"x"}}, {"machine": {"nobody"}}} {
		_, err := w.Explain(t.Context(), q)
		require.Error(t, err)
	}
}
