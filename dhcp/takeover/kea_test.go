package takeover

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

const keaSite = `// a site
{ "Dhcp4": {
  "interfaces-config": { "interfaces": [ "eth0" ] }, # harmless
  "valid-lifetime": 4000, "max-valid-lifetime": 8000, "authoritative": true,
  "boot-file-name": "global.0",
  "option-data": [ { "name": "domain-name", "data": "lab.example" }, { "code": 224, "data": "0a0b", "csv-format": false },
    { "name": "bogus", "data": "1" }, { "space": "vendor", "code": 1, "data": "1" }, ],
  "client-classes": [ { "name": "x", "test": "member('y')" } ],
  "reservations": [ { "hw-address": "02:00:00:00:00:01", "hostname": "everywhere" }, { "flex-id": "aa" } ],
  "shared-networks": [ { "name": "two", "next-server": "10.20.0.9", "subnet4": [
    { "subnet": "10.1.0.0/24", "id": 1, "pools": [ { "pool": "10.1.0.10 - 10.1.0.10" } ] },
    { "subnet": "10.2.0.0/24", "pools": [ { "pool": "10.2.0.128/25", "client-class": "x" }, { "pool": "10.9.0.1-10.9.0.2" } ] } ] } ],
  "subnet4": [ { "subnet": "10.20.0.0/24", "pools": [ { "pool": "10.20.0.100-10.20.0.110" } ],
    /* hosts
       of this subnet */
    "option-data": [ { "name": "routers", "data": "10.20.0.100" } ],
    "reservations": [
      { "hw-address": "02:00:00:00:00:0a", "ip-address": "10.20.0.10", "hostname": "node-a", "boot-file-name": "a.0", "next-server": "10.20.0.8",
        "option-data": [ { "name": "domain-name", "data": "a.example" } ] },
      { "client-id": "01:0b", "ip-address": "10.20.0.11" },
      { "circuit-id": "'port 7'", "ip-address": "10.20.0.12" },
      { "hw-address": "02:00:00:00:00:0c", "ip-address": "10.20.0.10" },
      { "hw-address": "x", "ip-address": "10.20.0.10" }
    ] } ]
} }
`

func TestKea(t *testing.T) {
	c, err := Kea(t.Context(), "k", []byte(keaSite), options())
	require.NoError(t, err)
	var serious []string
	for _, n := range c.Notes {
		if !n.Harmless {
			serious = append(serious, n.String())
		}
	}
	require.Equal(t, []string{
		`k:7:5: dhcp: no option "bogus": use its number: invalid argument`,
		`k:7:39: option space "vendor" is not taken over`,
		`k:8:46: class "x" is not taken over: class "y" is not known here`,
		`k:9:86: the reservation has no hw-address, client-id or circuit-id and is not taken over`,
		`k:9:99: flex-id of a reservation is not taken over`,
		`k:12:86: there is no class "x" that was taken over: nobody gets an address of this pool`,
		`k:12:93: "10.9.0.1-10.9.0.2" is no range of the subnet 10.2.0.0/24`,
		`k:22:7: 10.20.0.10 is reserved twice`,
		`k:23:23: "x" is no hardware address`,
	}, serious)
	for _, n := range c.Networks {
		for _, p := range n.Pools {
			p.InUse = nil
		}
	}
	bios := dhcp.BIOSFirmware()
	a := ask(t, c, "10.20.0.1", net.HardwareAddr{2, 0, 0, 0, 0, 0xa}, bios)
	require.Equal(t, "10.20.0.10", a.YourIPAddr.String())
	require.Equal(t, "a.0", a.BootFileName)
	require.Equal(t, "10.20.0.8", a.ServerIPAddr.String())
	require.Equal(t, "a.example", a.DomainName())
	require.Equal(t, "node-a", a.HostName())
	require.Equal(t, 4000*time.Second, a.IPAddressLeaseTime(0))

	other := ask(t, c, "10.20.0.1", net.HardwareAddr{2, 0, 0, 0, 0, 1}, bios)
	require.Equal(t, "everywhere", other.HostName())
	require.Equal(t, "global.0", other.BootFileName)
	require.Equal(t, "\x0a\x0b", string(other.Options[224]))
	require.NotEqual(t, "10.20.0.100", other.YourIPAddr.String(), "the router's")

	id := func(m *dhcpv4.DHCPv4) { m.Options[61] = []byte{1, 0xb} }
	require.Equal(t, "10.20.0.11", ask(t, c, "10.20.0.1", station, bios, id).YourIPAddr.String())
	port := func(m *dhcpv4.DHCPv4) { m.Options[82] = append([]byte{1, 6}, "port 7"...) }
	require.Equal(t, "10.20.0.12", ask(t, c, "10.20.0.1", net.HardwareAddr{2, 0, 0, 0, 0, 3}, bios, port).YourIPAddr.String())

	first := ask(t, c, "10.1.0.1", net.HardwareAddr{2, 0, 0, 0, 1, 1}, bios)
	require.Equal(t, "10.1.0.10", first.YourIPAddr.String())
	require.Equal(t, "10.20.0.9", first.ServerIPAddr.String())
	require.Nil(t, ask(t, c, "10.1.0.1", net.HardwareAddr{2, 0, 0, 0, 1, 2}, bios), "the other pool is for a class that nobody is known to be in")
}

func TestKeaErrors(t *testing.T) {
	for text, want := range map[string]string{
		`{"Dhcp4": {`:       `k:1:12: the file ends too early: a bracket is missing`,
		"{\n\"Dhcp4\": {]}": `k:2:11: expected a name in quotes`,
		`{"a" 1}`:           `k:1:6: expected a colon behind "a"`,
		`[1 2]`:             `k:1:4: expected a comma or ']'`,
		`{"a": yes}`:        `k:1:7: "yes" is no value`,
		`{"a`:               `k:1:2: the string has no closing quote in its line`,
		`{} {}`:             `k:1:4: something follows the end`,
		`/* {}`:             `k:1:1: the comment is not closed`,
		`{}`:                `k:1:1: there is no object "Dhcp4"`,
	} {
		_, err := Kea(t.Context(), "k", []byte(text), options())
		require.EqualError(t, err, want)
	}
}

func FuzzKea(f *testing.F) {
	f.Add([]byte(keaSite))
	f.Add([]byte(keaClassSite))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Kea(t.Context(), "f", data, options())
		if err != nil {
			return
		}
		unprobed(c)
		m, err := dhcpv4.NewDiscovery(station, dhcpv4.WithRelay(net.IP{10, 20, 0, 1}))
		require.NoError(t, err)
		_, _ = c.ServeDHCP(t.Context(), &dhcp.Request{DHCPv4: m})
	})
}

func ExampleKea() {
	const conf = `{ "Dhcp4": { "subnet4": [ {
  "subnet": "198.51.100.0/24", "pools": [ { "pool": "198.51.100.100 - 198.51.100.199" } ],
  "reservations": [ { "hw-address": "02:00:00:00:00:01", "ip-address": "198.51.100.9", "hostname": "node-1", "client-classes": [ "x" ] } ]
} ] } }`
	config, err := Kea(context.Background(), "kea.conf", []byte(conf), &Options{ServerID: netip.MustParseAddr("198.51.100.1")})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, note := range config.Notes {
		fmt.Println(note)
	}
	pool := config.Networks[0].Pools[0]
	fmt.Println(pool.Ranges, pool.Reservations[0].Hostname, pool.Reservations[0].Addr)
	// Output:
	// kea.conf:3:128: client-classes of a reservation is not taken over
	// [{198.51.100.100 198.51.100.199}] node-1 198.51.100.9
}
