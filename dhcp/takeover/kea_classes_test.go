package takeover

import (
	"net"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

const keaClassSite = `{ "Dhcp4": {
  "client-classes": [
    { "name": "ipxe", "test": "option[77].hex == 'iPXE'", "boot-file-name": "http://10.6.0.1/boot.ipxe" },
    { "name": "efi", "test": "not member('ipxe') and (option[93].hex == 0x0007 or option[93].hex == 0x0009)", "boot-file-name": "snponly.efi",
      "next-server": "10.6.0.8", "option-data": [ { "name": "domain-name", "data": "efi.example" }, { "code": 224, "data": "0a", "csv-format": false } ] },
    { "name": "pxe", "test": "substring(option[60].hex,0,9) == 'PXEClient'", "boot-file-name": "undionly.kpxe", "server-hostname": "boot" },
    { "name": "later", "test": "option[93].exists", "only-if-required": true },
    { "name": "bare" },
    { "name": "odd", "test": "pkt4.transid == 0x1" }
  ],
  "subnet4": [ { "subnet": "10.6.0.0/24", "boot-file-name": "subnet.0", "option-data": [ { "code": 224, "data": "0b", "csv-format": false } ],
      "pools": [ { "pool": "10.6.0.10-10.6.0.19", "client-class": "efi" }, { "pool": "10.6.0.20-10.6.0.29", "client-class": "KNOWN" }, { "pool": "10.6.0.32/29" } ],
      "reservations": [ { "hw-address": "02:00:00:00:00:01", "boot-file-name": "own.0" } ] },
    { "subnet": "10.7.0.0/24", "client-class": "efi", "pools": [ { "pool": "10.7.0.10-10.7.0.19" }, { "pool": "10.7.0.20-10.7.0.29", "client-class": "pxe" } ] } ]
} }`

func TestKeaClasses(t *testing.T) {
	c, err := Kea(t.Context(), "k", []byte(keaClassSite), options())
	require.NoError(t, err)
	unprobed(c)
	require.Equal(t, []string{
		`k:7:5: class "later" is not taken over: only-if-required`,
		`k:8:5: class "bare" has no test: its members are not known, and what it gives is not taken over`,
		`k:9:30: class "odd" is not taken over: pkt4.transid is not supported`,
		`k:14:150: client-class of a pool of a subnet with another client-class: nobody gets an address of this pool`,
	}, notes(c))
	bios, uefi := dhcp.BIOSFirmware(), dhcp.UEFIFirmware(iana.EFI_X86_64)
	mac := func(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }

	reply := ask(t, c, "10.6.0.1", mac(9), uefi)
	require.Equal(t, "snponly.efi", reply.BootFileName, "a class goes before the subnet, the first before the next")
	require.Equal(t, "10.6.0.8", reply.ServerIPAddr.String())
	require.Equal(t, "boot", reply.ServerHostName, "of the second class, which it is in too")
	require.Equal(t, "efi.example", reply.DomainName())
	require.Equal(t, "\x0b", string(reply.Options[224]), "an option of the subnet goes before that of a class")
	require.Regexp(t, `^10\.6\.0\.1\d$`, reply.YourIPAddr.String())

	reply = ask(t, c, "10.6.0.1", mac(8), bios)
	require.Equal(t, "undionly.kpxe", reply.BootFileName)
	require.Empty(t, reply.DomainName())
	require.Regexp(t, `^10\.6\.0\.3[2-9]$`, reply.YourIPAddr.String())
	require.Equal(t, "http://10.6.0.1/boot.ipxe", ask(t, c, "10.6.0.1", mac(8), dhcp.IPXEFirmware(0)).BootFileName)
	require.Equal(t, "subnet.0", ask(t, c, "10.6.0.1", mac(7), dhcp.UBootFirmware()).BootFileName)

	reply = ask(t, c, "10.6.0.1", mac(1), bios)
	require.Equal(t, "own.0", reply.BootFileName, "a reservation goes before a class")
	require.Regexp(t, `^10\.6\.0\.2\d$`, reply.YourIPAddr.String(), "KNOWN")

	require.Regexp(t, `^10\.7\.0\.1\d$`, ask(t, c, "10.7.0.1", mac(9), uefi).YourIPAddr.String())
	require.Nil(t, ask(t, c, "10.7.0.1", mac(8), bios), "the subnet is for a class")
}

func TestKeaExpressions(t *testing.T) {
	r := &dhcp.Request{DHCPv4: &dhcpv4.DHCPv4{
		ClientHWAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}, GatewayIPAddr: net.IP{10, 6, 0, 1},
		Options: dhcpv4.Options{60: []byte("PXEClient:Arch:00007"), 93: []byte{0, 7}, 12: []byte("node\x00"), 82: []byte{1, 2, 'a', 'b'}},
	}}
	known := func(name string) (boolExpr, bool) {
		return func(*dhcp.Request) bool { return name == "yes" }, name != "none"
	}
	for text, want := range map[string]bool{
		`option[93].hex == 0x0007`:                            true,
		`option[93].hex == 0x7`:                               false,
		`option[93].exists`:                                   true,
		`not option[77].exists`:                               true,
		`option[77].hex == ''`:                                true,
		`option[host-name].text == 'node'`:                    true,
		`option[12].hex == 'node'`:                            false,
		`substring(option[60].hex, 0, 9) == 'PXEClient'`:      true,
		`substring(option[60].hex,10,all) == 'Arch:00007'`:    true,
		`substring(option[60].hex,99,4) == ''`:                true,
		`concat('PXE', 'Client') == 'PXEClient'`:              true,
		`pkt4.mac == 0x020000000001`:                          true,
		`substring(pkt4.mac,0,3) == 0x020000`:                 true,
		`pkt4.giaddr == 10.6.0.1`:                             true,
		`relay4[1].hex == 'ab'`:                               true,
		`relay4[2].exists`:                                    false,
		`member('yes')`:                                       true,
		`member('no') or member('yes') and option[93].exists`: true,
		`not (member('no') or member('yes'))`:                 false,
		`not member('no') and not member('yes')`:              false,
	} {
		e, err := keaCondition(text, known)
		require.NoError(t, err, text)
		require.Equal(t, want, e(r), text)
	}
	for text, want := range map[string]string{
		``:                                   `"" is not supported`,
		`option[93]`:                         `expected ".", found ""`,
		`option[300].hex == 1`:               `option "300" is not known`,
		`option[93].hex`:                     `expected ==`,
		`option[93].hex == option[1].exists`: `exists is no value`,
		`option[93].option[1].hex == 0x1`:    `option[93].option is not supported`,
		`member('none')`:                     `class "none" is not known here`,
		`option[93].hex == 0xzz`:             `is no`,
		`(option[93].exists`:                 `expected ")"`,
		`option[93].exists option`:           `is not expected`,
		`substring('a',x,1) == 'a'`:          `substring takes`,
		`substring('a',-1,1) == 'a'`:         `expected ","`,
		`ifelse(a,b,c) == 'x'`:               `"ifelse" is not supported`,
		`'a == 'b'`:                          ``,
		strings.Repeat("not ", 100) + "member('yes')": `nested more than`,
	} {
		_, err := keaCondition(text, known)
		require.ErrorContains(t, err, want, text)
	}
}

func FuzzKeaCondition(f *testing.F) {
	f.Add(`not member('ipxe') and (option[93].hex == 0x0007 or substring(option[60].hex,0,9) == 'PXEClient')`)
	f.Add(`pkt4.giaddr == 10.6.0.1 or relay4[1].exists and concat(pkt4.mac, 'a') == 0x1`)
	r := &dhcp.Request{DHCPv4: &dhcpv4.DHCPv4{Options: dhcpv4.Options{60: []byte("PXEClient"), 82: []byte{1, 9}}}}
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := keaCondition(text, func(string) (boolExpr, bool) { return func(*dhcp.Request) bool { return true }, true }); err == nil {
			e(r)
		}
	})
}
