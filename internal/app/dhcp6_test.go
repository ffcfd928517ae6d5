package app

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp/dhcp6"
	"github.com/seed-3ec230fa/diskless/internal/config"
)

// newWorld6 is a world with DHCPv6 on loopback.
func newWorld6(t *testing.T, v6 config.DHCPv6) *world {
	v6.Address.Addr = netip.IPv6Loopback()
	w := newWorld(t, func(c *config.Config) {
		c.DHCP.V6 = &v6
		if !v6.Stateless {
			c.Machines[0].Address6.Addr = netip.MustParseAddr("::11")
		}
	})
	conn, err := net.ListenPacket("udp6", "[::1]:0")
	require.NoError(t, err)
	w.sockets.DHCPv6 = conn
	return w
}

// client6 asks as firmware does that says its hardware address in its DUID,
// which it has to over loopback.
func (w *world) client6(mac net.HardwareAddr, f dhcp6.Firmware, ask func(context.Context, *dhcp6.Client) (dhcp6.Lease, error)) dhcp6.Lease {
	w.t.Helper()
	conn, err := net.ListenPacket("udp6", "[::1]:0")
	require.NoError(w.t, err)
	defer conn.Close()
	f.SendUUID = false
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	l, err := ask(ctx, &dhcp6.Client{Conn: conn, Server: w.sockets.DHCPv6.LocalAddr(), HardwareAddr: mac, Firmware: f})
	require.NoError(w.t, err)
	return l
}

func exchange(ctx context.Context, c *dhcp6.Client) (dhcp6.Lease, error) { return c.Exchange(ctx) }
func inform(ctx context.Context, c *dhcp6.Client) (dhcp6.Lease, error)   { return c.Information(ctx) }

// get asks over HTTP as a peer does that has reached the server at its IPv6
// address.
func (w *world) get6(path string, peer netip.Addr) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr = netip.AddrPortFrom(peer, 1234).String()
	out := httptest.NewRecorder()
	w.byFamily().ServeHTTP(out, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv6loopback})))
	return out
}

func TestDHCPv6(t *testing.T) {
	subnet := netip.MustParsePrefix("::/64")
	w := newWorld6(t, config.DHCPv6{
		Subnet: config.Prefix6{Prefix: subnet}, Ranges: []config.Range6{{From: netip.MustParseAddr("::1:0"), To: netip.MustParseAddr("::1:ff")}},
	}).run()
	web := strings.Replace(w.cfg.HTTP.URL, "127.0.0.1", "[::1]", 1)
	pxe := w.client6(macs[0], dhcp6.UEFIFirmware(iana.EFI_X86_64), exchange)
	require.Equal(t, "::11", pxe.Addr.String(), "the machine's own address")
	require.Equal(t, "tftp://[::1]/snponly.efi", pxe.URL)
	require.Equal(t, web+"/snponly.efi", w.client6(macs[0], dhcp6.HTTPFirmware(iana.EFI_X86_64_HTTP), exchange).URL)
	ipxe := w.client6(macs[0], dhcp6.IPXEFirmware(iana.EFI_X86_64), exchange)
	require.Equal(t, []string{"::11", web + "/boot.ipxe"}, []string{ipxe.Addr.String(), ipxe.URL})
	stranger := w.client6(macs[2], dhcp6.UEFIFirmware(iana.EFI_X86_64), exchange)
	require.True(t, subnet.Contains(stranger.Addr))
	require.Empty(t, stranger.URL, "unknown: deny")

	// A peer over IPv6 is the machine that has the address, or that has made
	// itself one of its hardware address; and nobody else is.
	for _, addr := range []string{"::11", "::5054:ff:fe00:1"} {
		c, err := w.client(t.Context(), netip.MustParseAddr(addr))
		require.NoError(t, err)
		require.Equal(t, []string{macs[0].String(), "one"}, []string{c.MAC.String(), c.Hostname})
		out := w.get6("/boot.ipxe", netip.MustParseAddr(addr))
		require.Equal(t, http.StatusOK, out.Code)
		require.Contains(t, out.Body.String(), web+"/vmlinuz")
	}
	for _, addr := range []string{"::12", "fd00::5054:ff:fe00:1", "127.0.67.50"} {
		_, err := w.client(t.Context(), netip.MustParseAddr(addr))
		require.ErrorIs(t, err, fs.ErrNotExist, addr)
	}
	require.Equal(t, http.StatusForbidden, w.get6("/boot.ipxe?mac="+macs[0].String(), netip.MustParseAddr("::12")).Code)
	require.Same(t, w.tree, w.treeFor(netip.MustParseAddr("::ffff:10.0.0.1")))
	require.Same(t, w.tree6, w.treeFor(netip.MustParseAddr("::11")))
}

func TestDHCPv6Stateless(t *testing.T) {
	w := newWorld6(t, config.DHCPv6{Stateless: true, DNS: []config.Addr6{{Addr: netip.MustParseAddr("fd00::53")}}, Domain: "lab.example"}).run()
	got := w.client6(macs[0], dhcp6.UEFIFirmware(iana.EFI_X86_64), inform)
	require.Equal(t, "tftp://[::1]/snponly.efi", got.URL)
	require.Equal(t, "fd00::53", got.Message.Options.DNS()[0].String())
	c, err := w.client(t.Context(), netip.MustParseAddr("::5054:ff:fe00:1"))
	require.NoError(t, err)
	require.Equal(t, macs[0].String(), c.MAC.String())
}

// The URL of a name is for both families.
func TestURL6(t *testing.T) {
	a := &App{cfg: &config.Config{DHCP: &config.DHCP{V6: &config.DHCPv6{Address: config.Addr6{Addr: netip.MustParseAddr("fd00::1")}}}, HTTP: &config.HTTP{}}}
	for from, want := range map[string]string{
		"http://192.168.67.1:8080": "http://[fd00::1]:8080", "https://192.168.67.1/boot": "https://[fd00::1]/boot",
		"https://boot.example/x": "https://boot.example/x", "http://[fd01::1]": "http://[fd01::1]",
	} {
		a.cfg.HTTP.URL = from
		require.Equal(t, want+"/boot.ipxe", a.url6(from+"/boot.ipxe"))
	}
	require.Equal(t, "tftp://[fd00::1]/a%20b", a.url6("a b"))
}
