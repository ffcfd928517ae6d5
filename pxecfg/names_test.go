package pxecfg

import (
	"encoding/json"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type vectorClient struct {
	MAC, IP, UUID, Opt209 string
	HT                    uint8
}

func (v vectorClient) client(t testing.TB) Client {
	mac, err := net.ParseMAC(v.MAC)
	require.NoError(t, err)
	return Client{UUID: v.UUID, HardwareType: v.HT, MAC: mac, IP: netip.MustParseAddr(v.IP), ConfigFile: v.Opt209}
}

func loadJSON(t testing.TB, name string, v any) {
	data, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, v))
}

func TestNamesVectors(t *testing.T) {
	type row struct {
		Client vectorClient
		Files  []string
	}
	var v struct {
		PXELINUX, GRUB []row
		UBoot          []struct {
			row
			UBoot
		}
		Prefix []struct {
			BootFile string `json:"boot_file"`
			Prefix   string
		} `json:"pxelinux_prefix"`
		UUIDs []struct{ Wire, DMIDecode string } `json:"uuid_wire_to_dmidecode"`
	}
	loadJSON(t, "config_lookup.json", &v)
	require.Len(t, v.PXELINUX, 9)
	require.Len(t, v.GRUB, 4)
	for _, r := range v.PXELINUX {
		require.Equal(t, r.Files, r.Client.client(t).Names())
	}
	for _, r := range v.GRUB {
		require.Equal(t, r.Files, r.Client.client(t).GRUBNames())
	}
	require.Len(t, v.UBoot, 2)
	for _, r := range v.UBoot {
		require.Equal(t, r.Files, r.Client.client(t).UBootNames(r.UBoot))
	}
	require.Len(t, v.Prefix, 8)
	for _, r := range v.Prefix {
		require.Equal(t, r.Prefix, Prefix(r.BootFile), r.BootFile)
	}
	require.Len(t, v.UUIDs, 2)
	for _, r := range v.UUIDs {
		require.Equal(t, r.DMIDecode, SwapUUID(r.Wire))
		require.Equal(t, r.Wire, SwapUUID(r.DMIDecode))
		require.True(t, sameUUID(r.Wire, r.DMIDecode))
		require.Equal(t, uuidKey(r.Wire), uuidKey(r.DMIDecode))
	}
}

func TestNamesOfAPoorClient(t *testing.T) {
	require.Equal(t, []string{"pxelinux.cfg/default"}, Client{}.Names())
	require.Equal(t, []string{"grub.cfg"}, Client{}.GRUBNames())
	require.Empty(t, Client{}.GRUBAliases())
	six := Client{IP: netip.MustParseAddr("2001:db8::1")}
	require.Equal(t, []string{"pxelinux.cfg/default"}, six.Names(), "PXELINUX has no IPv6")
	require.Equal(t, []string{"grub.cfg-2001-db8-0-0-0-0-0-1", "grub.cfg"}, six.GRUBNames())
	require.Equal(t, Client{IP: netip.MustParseAddr("192.0.2.1")}.Names(), Client{IP: netip.MustParseAddr("::ffff:192.0.2.1")}.Names())
	require.Len(t, Client{UUID: "not-a-uuid"}.Names(), 1)
	require.Equal(t, "pxelinux.cfg/44454c4c-4200-1035-8052-b4c04f4d4e31", Client{UUID: "44454C4C-4200-1035-8052-B4C04F4D4E31"}.Names()[0])
}

func TestUBootNames(t *testing.T) {
	require.Equal(t, []string{"pxelinux.cfg/default"}, Client{}.UBootNames(UBoot{}))
	require.Equal(t, []string{"my.cfg"}, Client{ConfigFile: "my.cfg", IP: netip.MustParseAddr("192.0.2.1")}.UBootNames(UBoot{}), "option 209 ends the search")
	require.Equal(t, []string{"pxelinux.cfg/AB", "pxelinux.cfg/default-arm", "pxelinux.cfg/default"},
		Client{UUID: "b8945908-d6a6-41a9-611d-74a6ab80b83d"}.UBootNames(UBoot{Arch: "arm", UUID: "AB"}))
	require.Equal(t, "ltsp//vmlinuz", UBootPath("ltsp/u-boot.bin", "/vmlinuz"))
}

func TestRequests(t *testing.T) {
	c := Client{ConfigFile: "cfg/a b", IP: netip.MustParseAddr("10.0.0.1")}
	require.Equal(t, []string{"ltsp/cfg/a", "ltsp/pxelinux.cfg/0A000001"}, c.Requests("/ltsp/pxelinux.0")[:2])
	c.PathPrefix = "x/"
	require.Equal(t, []string{"x/cfg/a", "x/pxelinux.cfg/0A000001"}, c.Requests("/ltsp/pxelinux.0")[:2])
	c.PathPrefix = "http://192.0.2.1/x/"
	require.Equal(t, "http://192.0.2.1/x/pxelinux.cfg/default", c.Requests("")[9])
	c.ConfigFile = "::abs"
	require.Equal(t, "abs", c.Requests("")[0])

	require.Equal(t, "ltsp/ä", Prefix("ltsp/ä.0"), "bytes, not letters")
	long := strings.Repeat("n", 300)
	require.Equal(t, "::ltsp/"+long[:255], RequestName("ltsp/", long), "name and prefix are cut by themselves")
	require.Equal(t, "::"+long[:253]+"x", RequestName(long, "x\x01y"))
	require.Equal(t, "http://h/x", RequestName("http://h/", "x y"))
	require.Equal(t, "::ltsp//vmlinuz", RequestName("ltsp/", "/vmlinuz"), "there are no absolute paths")
	require.Equal(t, "::vmlinuz", RequestName("ltsp/", "::vmlinuz"))
	require.Equal(t, "192.0.2.9::vmlinuz", RequestName("ltsp/", "192.0.2.9::vmlinuz"))
	require.Equal(t, "::ltsp/10.0.0.1:/k", RequestName("ltsp/", "10.0.0.1:/k"))
	require.Len(t, RequestName("", "http://h/"+long), 255)
}

func TestIPXENames(t *testing.T) {
	c := Client{MAC: net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}, UUID: "44454c4c-4200-1035-8052-b4c04f4d4e31"}
	names := c.IPXENames()
	require.Equal(t, []string{"mac-52-54-00-12-34-56.ipxe", "uuid-4c4c4544-0042-3510-8052-b4c04f4d4e31.ipxe", "boot.ipxe", "autoexec.ipxe"}, names)
	for _, name := range append(names[:2], "MAC-525400123456.ipxe", "MAC-52-54-00-12-34-56.ipxe", "x/mac-525400123456.ipxe") {
		back, ok := ParseName(name)
		require.True(t, ok, name)
		require.True(t, sameMAC(back.MAC, c.MAC) || back.UUID == c.UUID, name)
	}
	back, ok := ParseName("custom/HOSTNAME-node-01.ipxe")
	require.True(t, ok)
	require.Equal(t, Client{Hostname: "node-01"}, back)
}

func TestParseName(t *testing.T) {
	mac := func(s string) net.HardwareAddr { m, err := net.ParseMAC(s); require.NoError(t, err); return m }
	const uuid = "44454c4c-4200-1035-8052-b4c04f4d4e31"
	for name, want := range map[string]Client{
		"pxelinux.cfg/01-52-54-00-12-34-56":                {HardwareType: 1, MAC: mac("52:54:00:12:34:56")},
		"ltsp/amd64/pxelinux.cfg/01-52-54-00-AB-34-56":     {HardwareType: 1, MAC: mac("52:54:00:ab:34:56")},
		"ltsp/my_pxelinux.cfg/C0A800C9":                    {IP: netip.MustParseAddr("192.168.0.201")},
		"pxelinux.cfg/20-00-25-90-aa-bb-cc-dd-ee":          {HardwareType: 0x20, MAC: mac("00:25:90:aa:bb:cc:dd:ee")},
		"pxelinux.cfg/" + uuid:                             {UUID: uuid},
		"grub/grub.cfg-" + uuid:                            {UUID: uuid},
		"grub/grub.cfg-01-52-54-00-12-34-56":               {HardwareType: 1, MAC: mac("52:54:00:12:34:56")},
		"grub/grub.cfg-52:54:00:12:34:56":                  {MAC: mac("52:54:00:12:34:56")},
		"grub.cfg-52-54-00-12-34-56":                       {MAC: mac("52:54:00:12:34:56")},
		"grub.cfg-C0000201":                                {IP: netip.MustParseAddr("192.0.2.1")},
		"grub.cfg-fe80-0-0-0-5054-ff-fe12-3456":            {IP: netip.MustParseAddr("fe80::5054:ff:fe12:3456")},
		"mac-52-54-00-12-34-56.ipxe":                       {MAC: mac("52:54:00:12:34:56")},
		"x/uuid-4c4c4544-0042-3510-8052-b4c04f4d4e31.ipxe": {UUID: uuid},
		"x/uuid-4C4C4544-0042-3510-8052-B4C04F4D4E31.ipxe": {UUID: uuid},
		"grub/x86_64-efi/grub.cfg-01-52-54-00-12-34-56":    {HardwareType: 1, MAC: mac("52:54:00:12:34:56")},
	} {
		got, ok := ParseName(name)
		require.True(t, ok, name)
		require.Equal(t, want, got, name)
	}
	for _, name := range []string{
		"", ".", "pxelinux.cfg", "pxelinux.cfg/", "pxelinux.cfg/default", "pxelinux.cfg/C0A8", "pxelinux.cfg/c0a800c9",
		"pxelinux.cfg/C0A800C9F", "pxelinux.cfg/01-52-54-00-12-34", "pxelinux.cfg/00-52-54-00-12-34-56",
		"pxelinux.cfg/52-54-00-12-34-56", "pxelinux.cfg/01-52-54-00-12-34-5g", "pxelinux.cfg/01:52:54:00:12:34:56",
		"pxelinux.cfg/sub/01-52-54-00-12-34-56", "grub.cfg", "grub.cfg-", "grub.cfg-x:y", "grub.cfg-1-2-3-4-5-6-7-g",
		"boot.ipxe", "autoexec.ipxe", "mac-.ipxe", "mac-5254001234567.ipxe", "HOSTNAME-.ipxe", "HOSTNAME-a b.ipxe", "uuid-.ipxe", "other.ipxe", "vmlinuz",
	} {
		_, ok := ParseName(name)
		require.False(t, ok, name)
	}
}

// FuzzParseName goes both ways: what a name says gives back the name.
func FuzzParseName(f *testing.F) {
	for _, s := range []string{
		"pxelinux.cfg/01-52-54-00-12-34-56", "pxelinux.cfg/C0A800C9", "a/pxelinux.cfg/default",
		"grub/grub.cfg-52:54:00:12:34:56", "grub.cfg-fe80-0-0-0-5054-ff-fe12-3456", "pxelinux.cfg/C0A",
		"mac-52-54-00-12-34-56.ipxe", "pxelinux.cfg/b8945908-d6a6-41a9-611d-74a6ab80b83d", "grub.cfg-0000.0000.0000",
		"MAC-525400123456.ipxe", "HOSTNAME-node.ipxe", "pxelinux.cfg/20-00-25-90-aa-bb-cc",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		c, ok := ParseName(name)
		if !ok {
			require.Equal(t, Client{}, c)
			return
		}
		if c.Hostname != "" {
			require.Equal(t, Client{Hostname: c.Hostname}, c)
			return
		}
		own := append(c.Names(), append(c.GRUBNames(), append(c.GRUBAliases(), c.IPXENames()...)...)...)
		hit := false
		for _, n := range own {
			back, ok := ParseName(n)
			if !ok {
				continue
			}
			hit = true
			// An alias says less, and GRUB's 01 is any network.
			if back.HardwareType == 0 || c.HardwareType == 0 || back.HardwareType == 1 && strings.HasPrefix(n, "grub") {
				back.HardwareType = c.HardwareType
			}
			require.Equal(t, c, back, "%q from %q", n, name)
		}
		require.True(t, hit, "no own name of %q can be read: %q", name, own)
	})
}

func BenchmarkNames(b *testing.B) {
	c := Client{UUID: "b8945908-d6a6-41a9-611d-74a6ab80b83d", MAC: net.HardwareAddr{0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd}, IP: netip.MustParseAddr("192.0.2.91")}
	b.ReportAllocs()
	for b.Loop() {
		if len(c.Names()) != 11 {
			b.Fatal("names")
		}
	}
}

func BenchmarkParseName(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := ParseName("ltsp/pxelinux.cfg/01-88-99-aa-bb-cc-dd"); !ok {
			b.Fatal("name")
		}
	}
}

func TestClientString(t *testing.T) {
	require.Equal(t, "unknown client", Client{}.String())
	c := Client{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Hostname: "node01", IP: netip.MustParseAddr("192.0.2.1")}
	require.Equal(t, "02:00:00:00:00:01 node01 192.0.2.1", c.String())
	require.True(t, strings.HasSuffix(Client{UUID: "u", Peer: netip.MustParseAddr("192.0.2.9")}.String(), "from 192.0.2.9"))
}

// PXELINUX writes the hardware type that its network card has; GRUB and U-Boot
// write 01.
func TestNamesOfOtherNetworks(t *testing.T) {
	c := Client{HardwareType: 32, MAC: net.HardwareAddr{0, 0x25, 0x90, 0xaa, 0xbb, 0xcc, 0xdd, 0xee}}
	require.Equal(t, "pxelinux.cfg/20-00-25-90-aa-bb-cc-dd-ee", c.Names()[0])
	require.Equal(t, []string{"grub.cfg-01-00-25-90-aa-bb-cc-dd-ee", "grub.cfg"}, c.GRUBNames())
	require.Equal(t, []string{"pxelinux.cfg/default"}, c.UBootNames(UBoot{}))
	c.MAC = c.MAC[:6]
	require.Equal(t, "pxelinux.cfg/01-00-25-90-aa-bb-cc", c.UBootNames(UBoot{})[0])
	tree := &Tree{Source: LocalDisk(), Logger: quiet}
	for _, name := range []string{c.Names()[0], c.GRUBNames()[0], c.UBootNames(UBoot{})[0]} {
		_, err := fs.Stat(tree.For(t.Context(), c), name)
		require.NoError(t, err, name)
	}
	_, err := fs.Stat(tree.For(t.Context(), c), "pxelinux.cfg/06-00-25-90-aa-bb-cc")
	require.ErrorIs(t, err, fs.ErrNotExist)
	for _, name := range append(c.Names(), c.GRUBNames()...) {
		if back, ok := ParseName(name); ok {
			require.Equal(t, c.MAC, back.MAC)
		}
	}
}
