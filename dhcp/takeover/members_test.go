package takeover

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// files is an [Options.Open].
func files(list map[string]string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if text, ok := list[name]; ok {
			return []byte(text), nil
		}
		return nil, fs.ErrNotExist
	}
}

const poolSite = `
authoritative;
ping-check off;
include "classes.conf";
subnet 10.3.0.0 netmask 255.255.255.0 {
  pool { allow members of "thin"; range 10.3.0.10 10.3.0.15; }
  pool { allow known-clients; deny members of "lab"; range 10.3.0.20 10.3.0.29; }
  pool { deny known clients; deny members of "lab"; deny members of "thin"; range 10.3.0.30; }
  pool { allow members of "nobody"; range 10.3.0.40; }
}
host k { hardware ethernet 02:00:00:00:00:01; }
host f { hardware ethernet 02:00:00:00:00:02; fixed-address 10.3.0.5; }
`

var poolClasses = map[string]string{"classes.conf": `
class "thin" { match if substring(option vendor-class-identifier, 0, 4) = "thin"; }
class "lab" { match hardware; filename "lab.0"; }
subclass "lab" 1:02:00:00:00:00:11;
subclass "lab" 1:02:00:00:00:00:12 { filename "twelve.0"; }
subclass "none" 1:2;
 bogus x;
class "site" { match option user-class; next-server 10.3.0.9; }
subclass "site" "blue";
`}

// Who may have which addresses, and who is in a class by a list.
func TestDHCPDPools(t *testing.T) {
	var log bytes.Buffer
	o := options()
	o.Open, o.Logger = files(poolClasses), slog.New(slog.NewTextHandler(&log, nil))
	c, err := DHCPD(t.Context(), "p", []byte(poolSite), o)
	require.NoError(t, err)
	unprobed(c)
	require.Equal(t, []string{
		`p:9:10: there is no class "nobody" with known members: nobody gets an address of this pool`,
		`classes.conf:6:1: the subclass is of no class that has a "match" before it`,
		`classes.conf:7:2: "bogus" is not taken over`,
	}, notes(c))
	mac := func(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }
	addr := func(hw net.HardwareAddr, f dhcp.Firmware, change ...func(*dhcpv4.DHCPv4)) string {
		t.Helper()
		reply := ask(t, c, "10.3.0.1", hw, f, change...)
		if reply == nil {
			return ""
		}
		return reply.YourIPAddr.String()
	}
	bios, thin := dhcp.BIOSFirmware(), dhcp.Firmware{VendorClass: "thin client"}
	require.Regexp(t, `^10\.3\.0\.1\d$`, addr(mac(0x21), thin))
	require.Regexp(t, `^10\.3\.0\.2\d$`, addr(mac(1), bios), "known")
	require.Equal(t, "10.3.0.5", addr(mac(2), bios), "a fixed address is for its host whatever the pools say")
	require.Empty(t, addr(mac(0x11), bios), "denied everywhere")
	require.NotContains(t, log.String(), "no address left")
	require.Equal(t, "10.3.0.30", addr(mac(0x22), bios), "unknown")
	require.Empty(t, addr(mac(0x23), bios), "the last address is offered already")
	require.Contains(t, log.String(), "no address left")
	require.Regexp(t, `^10\.3\.0\.1\d$`, addr(mac(1), thin), "the first pool that it may use")

	// An address of a pool that is not for the client is refused.
	say := func(hw net.HardwareAddr, f dhcp.Firmware, want string) *dhcpv4.DHCPv4 {
		return ask(t, c, "10.3.0.1", hw, f, func(m *dhcpv4.DHCPv4) {
			m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest))
			m.UpdateOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(want)))
		})
	}
	require.Equal(t, dhcpv4.MessageTypeNak, say(mac(1), bios, "10.3.0.10").MessageType())
	require.Equal(t, dhcpv4.MessageTypeAck, say(mac(1), bios, "10.3.0.22").MessageType())
	require.Equal(t, "10.3.0.22", addr(mac(1), bios), "it keeps what it has")
	require.Equal(t, dhcpv4.MessageTypeAck, say(mac(1), thin, "10.3.0.23").MessageType(), "of the second pool that it may use")

	// A system that does not say what its firmware did renews what that got.
	got := addr(mac(0x41), thin)
	require.Equal(t, dhcpv4.MessageTypeAck, say(mac(0x41), thin, got).MessageType())
	renew := func(hw net.HardwareAddr) *dhcpv4.DHCPv4 {
		return ask(t, c, "10.3.0.1", hw, dhcp.Firmware{}, func(m *dhcpv4.DHCPv4) {
			m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest))
			m.ClientIPAddr = net.ParseIP(got)
		})
	}
	require.Equal(t, dhcpv4.MessageTypeAck, renew(mac(0x41)).MessageType())
	require.Equal(t, dhcpv4.MessageTypeNak, renew(mac(0x42)).MessageType(), "another machine's")

	// A class by a list: its own statements, and those of one member.
	open, err := DHCPD(t.Context(), "p", []byte(`ping-check off; subnet 10.3.0.0 netmask 255.255.255.0 { range 10.3.0.10 10.3.0.99; } include "classes.conf";`), o)
	require.NoError(t, err)
	unprobed(open)
	require.Equal(t, "lab.0", ask(t, open, "10.3.0.1", mac(0x11), bios).BootFileName)
	require.Equal(t, "twelve.0", ask(t, open, "10.3.0.1", mac(0x12), bios).BootFileName)
	require.Empty(t, ask(t, open, "10.3.0.1", mac(0x13), bios).BootFileName)
	blue := func(m *dhcpv4.DHCPv4) {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("blue")))
	}
	require.Equal(t, "10.3.0.9", ask(t, open, "10.3.0.1", mac(0x12), bios, blue).ServerIPAddr.String())
}

// A pool's own options have no place here but the subnet.
func TestDHCPDPoolOptions(t *testing.T) {
	c := read(t, `subnet 10.3.0.0 netmask 255.255.255.0 {
  range 10.3.0.10;
  pool { range 10.3.0.20; filename "x"; }
}`)
	require.Equal(t, []string{`test.conf:3:27: filename of a pool is for the whole subnet 10.3.0.0/24 here: give it to a class`}, notes(c))
}

func TestIncludes(t *testing.T) {
	o := options()
	o.Open = files(map[string]string{"self": `include "self";`, "bad": "\n subnet {", "dself": "conf-file=dself", "dbad": "dhcp-boot=\"x"})
	for text, want := range map[string]string{
		`include "self";`:    `self:1:1: includes are nested more than 16 deep`,
		`include "missing";`: `f:1:1: include "missing": file does not exist`,
		`include "bad";`:     `bad:2:9: this block is never closed: a } is missing`,
	} {
		_, err := DHCPD(t.Context(), "f", []byte(text), o)
		require.EqualError(t, err, want)
	}
	for text, want := range map[string]string{
		"conf-file=dself":   `dself:1:1: files are nested more than 16 deep`,
		"conf-file=missing": `f:1:1: conf-file "missing": file does not exist`,
		"\nconf-file=dbad":  `dbad:1:1: a quote is not closed`,
	} {
		_, err := Dnsmasq(t.Context(), "f", []byte(text), o)
		require.EqualError(t, err, want)
	}
}

const taggedRanges = `
no-ping
dhcp-authoritative
conf-file=hosts.conf
dhcp-match=set:efi,option:client-arch,7
dhcp-range=tag:efi,set:new,10.4.0.10,10.4.0.19,255.255.255.0
dhcp-range=tag:known,tag:!efi,10.4.0.20,10.4.0.29,255.255.255.0
dhcp-range=10.5.0.10,10.5.0.19,255.255.255.0
dhcp-range=tag:efi,10.5.0.29,10.5.0.20,255.255.255.0
dhcp-boot=tag:new,new.efi
dhcp-boot=old.0
`

// Ranges for clients with tags.
func TestDnsmasqTaggedRanges(t *testing.T) {
	o := options()
	o.Open = files(map[string]string{"hosts.conf": "dhcp-host=02:00:00:00:00:01,one\nstrange\ndhcp-host=x\n"})
	c, err := Dnsmasq(t.Context(), "d", []byte(taggedRanges), o)
	require.NoError(t, err)
	unprobed(c)
	require.Equal(t, []string{
		`d:9:1: 10.5.0.29 to 10.5.0.20 is no range of the subnet 10.5.0.0/24`,
		`hosts.conf:2:1: strange has no effect here`,
		`hosts.conf:3:1: the host has neither hardware address nor client identifier: its name alone is not taken over`,
	}, notes(c))
	known, stranger := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 9}
	bios, uefi := dhcp.BIOSFirmware(), dhcp.UEFIFirmware(iana.EFI_X86_64)
	reply := ask(t, c, "10.4.0.1", stranger, uefi)
	require.Regexp(t, `^10\.4\.0\.1\d$`, reply.YourIPAddr.String())
	require.Equal(t, "new.efi", reply.BootFileName, "the range sets a tag")
	reply = ask(t, c, "10.4.0.1", known, bios)
	require.Regexp(t, `^10\.4\.0\.2\d$`, reply.YourIPAddr.String())
	require.Equal(t, "old.0", reply.BootFileName)
	require.Nil(t, ask(t, c, "10.4.0.1", stranger, bios), "no range is for it")
	require.Regexp(t, `^10\.5\.0\.1\d$`, ask(t, c, "10.5.0.1", stranger, bios).YourIPAddr.String())
}

// A pool for some clients only, in another file.
func ExampleOptions_Open() {
	site := map[string]string{"pools.conf": `pool { range 198.51.100.50 198.51.100.59; allow members of "thin"; }`}
	config, err := DHCPD(context.Background(), "dhcpd.conf", []byte(`
class "thin" { match hardware; }
subclass "thin" 1:02:00:00:00:00:01;
subnet 198.51.100.0 netmask 255.255.255.0 {
  range 198.51.100.100 198.51.100.199;
  include "pools.conf";
}`), &Options{ServerID: netip.MustParseAddr("198.51.100.1"), Open: func(name string) ([]byte, error) { return []byte(site[name]), nil }})
	if err != nil {
		fmt.Println(err)
		return
	}
	network := config.Networks[0]
	fmt.Println(network.Pools[0].Ranges, network.Members[0].Name, network.Members[0].Pools[0].Ranges, config.Notes)
	// Output: [{198.51.100.100 198.51.100.199}] members of thin [{198.51.100.50 198.51.100.59}] []
}

// What a pool has, its copy for some clients has too, whatever fields there
// will be.
func TestMembersHaveAllFields(t *testing.T) {
	p := &dhcp.Pool{}
	for i := range reflect.TypeFor[dhcp.Pool]().NumField() {
		if v := reflect.ValueOf(p).Elem().Field(i); v.CanSet() {
			switch v.Kind() {
			case reflect.Bool:
				v.SetBool(true)
			case reflect.Int, reflect.Int64:
				v.SetInt(7)
			case reflect.String:
				v.SetString("x")
			case reflect.Slice:
				v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			case reflect.Map:
				v.Set(reflect.MakeMap(v.Type()))
			case reflect.Func:
				v.Set(reflect.MakeFunc(v.Type(), nil))
			}
		}
	}
	p.Prefix, p.ServerID, p.Router = netip.MustParsePrefix("10.0.0.0/8"), ip("10.0.0.1"), ip("10.0.0.2")
	p.Store, p.Logger = &dhcp.MemoryStore{}, slog.Default()
	n := &Network{Pools: []*dhcp.Pool{p}}
	n.restrict("x", 0, nil, false, nil)
	own := reflect.ValueOf(n.Members[0].Pools[0]).Elem()
	for i := range own.NumField() {
		if f := own.Type().Field(i); f.IsExported() && f.Name != "Ranges" {
			require.False(t, own.Field(i).IsZero(), f.Name)
		}
	}
}

// A lease is the machine's, also of one without a hardware address.
func TestHolds(t *testing.T) {
	pool := &dhcp.Pool{Prefix: netip.MustParsePrefix("10.20.0.0/24"), ServerID: netip.MustParseAddr("10.20.0.2"), Store: new(dhcp.MemoryStore)}
	addr, other := netip.MustParseAddr("10.20.0.5"), netip.MustParseAddr("10.20.0.6")
	require.NoError(t, pool.Store.Commit(t.Context(), dhcp.Lease{Addr: addr, ID: "client-id=infiniband a", ClientID: []byte("infiniband a")}))
	require.NoError(t, pool.Store.Commit(t.Context(), dhcp.Lease{Addr: other, HardwareAddr: station}))
	from := func(hw net.HardwareAddr, id string) *dhcp.Request {
		m, err := dhcpv4.New(dhcpv4.WithGeneric(dhcpv4.OptionClientIdentifier, []byte(id)))
		require.NoError(t, err)
		m.ClientHWAddr = hw
		return &dhcp.Request{DHCPv4: m}
	}
	for _, test := range []struct {
		addr netip.Addr
		r    *dhcp.Request
		want bool
	}{
		{addr, from(nil, "infiniband a"), true}, {addr, from(nil, "infiniband b"), false}, {addr, from(station, "infiniband a"), false},
		{other, from(station, "x"), true}, {other, from(nil, "infiniband a"), false}, {other, from(net.HardwareAddr{2, 1, 1, 1, 1, 1}, "x"), false},
	} {
		require.Equal(t, test.want, holds(t.Context(), []*dhcp.Pool{pool}, test.addr, test.r), "%v %v", test.addr, test.r)
	}
}
