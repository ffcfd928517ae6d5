package dhcp_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcptest"
	"github.com/stretchr/testify/require"
)

func TestFileStore(t *testing.T) {
	dhcptest.TestLeaseStore(t, func(t *testing.T) dhcp.LeaseStore {
		s, err := dhcp.OpenFileStore(filepath.Join(t.TempDir(), "leases"), nil)
		require.NoError(t, err)
		t.Cleanup(func() { s.Close() })
		return s
	})
}

// Leases that outlive the server.
func ExampleOpenFileStore() {
	dir, err := os.MkdirTemp("", "leases")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	store, err := dhcp.OpenFileStore(filepath.Join(dir, "leases"), nil)
	if err != nil {
		panic(err)
	}
	pool := &dhcp.Pool{Prefix: netip.MustParsePrefix("198.51.100.0/24"), ServerID: dhcptest.Addr(1), Store: store}
	if err := pool.Validate(); err != nil {
		panic(err)
	}
	lease := dhcp.Lease{Addr: dhcptest.Addr(11), HardwareAddr: dhcptest.HardwareAddr(1), Expires: time.Now().Add(time.Hour)}
	fmt.Println("kept:", store.Commit(context.Background(), lease) == nil)
	store.Close()

	if store, err = dhcp.OpenFileStore(filepath.Join(dir, "leases"), nil); err != nil {
		panic(err)
	}
	defer store.Close()
	again, err := store.LeaseByAddr(context.Background(), dhcptest.Addr(11))
	fmt.Println(again.HardwareAddr, err)
	// Output:
	// kept: true
	// 02:00:00:00:00:01 <nil>
}

func ExampleSharedNetwork() {
	old := &dhcp.Pool{
		Prefix: netip.MustParsePrefix("192.0.2.0/24"), ServerID: netip.MustParseAddr("192.0.2.1"),
		Ranges: []dhcp.Range{{First: netip.MustParseAddr("192.0.2.50"), Last: netip.MustParseAddr("192.0.2.50")}},
	}
	second := &dhcp.Pool{
		Prefix: netip.MustParsePrefix("198.51.100.0/24"), ServerID: netip.MustParseAddr("192.0.2.1"),
		Ranges: []dhcp.Range{{First: dhcptest.Addr(50), Last: dhcptest.Addr(50)}},
	}
	link := &dhcp.SharedNetwork{Pools: []*dhcp.Pool{old, second}}
	for _, n := range []byte{1, 2} {
		offer, err := link.ServeDHCP(context.Background(), onSubnet(dhcptest.HardwareAddr(n), 1))
		fmt.Println(offer.YourIPAddr, err)
	}
	// Output:
	// 192.0.2.50 <nil>
	// 198.51.100.50 <nil>
}

func ExampleExplain() {
	pool := &dhcp.Pool{
		Prefix: netip.MustParsePrefix("198.51.100.0/24"), ServerID: dhcptest.Addr(1),
		Reservations: []dhcp.Reservation{{HardwareAddr: dhcptest.HardwareAddr(7), Addr: dhcptest.Addr(7)}},
	}
	for _, step := range dhcp.Explain(context.Background(), pool, onSubnet(dhcptest.HardwareAddr(7), 1)).Steps {
		fmt.Println(step)
	}
	// Output:
	// DISCOVER of 02:00:00:00:00:07: platform "", no architecture
	// 198.51.100.7 is reserved for 02:00:00:00:00:07
	// reply OFFER to 198.51.100.7:68
}

// Beside another server that gives the addresses. Ports 67 and 4011 are
// served by a Server with ProxyPort set.
func ExampleProxy() {
	rules := dhcp.BootRules{
		{Match: dhcp.Match{Platforms: []dhcp.Platform{dhcp.PlatformIPXE}}, Boot: dhcp.Boot{File: "http://198.51.100.1/boot.ipxe"}},
		{Match: dhcp.Match{Archs: []iana.Arch{iana.INTEL_X86PC}}, Boot: dhcp.Boot{File: "undionly.kpxe"}},
		{Match: dhcp.Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: dhcp.Boot{File: "snponly.efi"}},
	}
	proxy := &dhcp.Proxy{ServerID: dhcptest.Addr(1), Boot: rules.Boot}
	fmt.Println(proxy.Check(context.Background(), true))

	r := onSubnet(dhcptest.HardwareAddr(7), 1)
	r.UpdateOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001"))
	r.UpdateOption(dhcpv4.OptClientArch(iana.INTEL_X86PC))
	offer, err := proxy.ServeDHCP(context.Background(), r)
	fmt.Println(offer.YourIPAddr, offer.ServerIdentifier(), offer.BootFileName, err)
	// Output:
	// <nil>
	// <nil> 198.51.100.1 undionly.kpxe <nil>
}

func ExampleBootPolicy_Check() {
	rules := dhcp.BootRules{
		{Match: dhcp.Match{Archs: []iana.Arch{iana.INTEL_X86PC}}, Boot: dhcp.Boot{File: "undionly.kpxe"}},
	}
	fmt.Println((&dhcp.BootPolicy{Boot: rules.Boot}).Check(context.Background(), false) != nil)
	rules = append(dhcp.BootRules{
		{Match: dhcp.Match{Platforms: []dhcp.Platform{dhcp.PlatformIPXE, dhcp.PlatformGPXE}}, Boot: dhcp.Boot{File: "http://198.51.100.1/boot.ipxe"}},
	}, rules...)
	fmt.Println((&dhcp.BootPolicy{Boot: rules.Boot}).Check(context.Background(), false))
	// Output:
	// true
	// <nil>
}

func ExampleChooseEDK2() {
	plain := &dhcpv4.DHCPv4{YourIPAddr: net.IPv4(198, 51, 100, 9), BootFileName: "snponly.efi", Options: dhcpv4.Options{}}
	// Option 60 without option 43 sends the firmware to port 4011.
	redirect := &dhcpv4.DHCPv4{
		YourIPAddr: net.IPv4(198, 51, 100, 9), BootFileName: "snponly.efi", ServerIPAddr: net.IPv4(198, 51, 100, 1),
		Options: dhcpv4.Options{60: []byte("PXEClient")},
	}
	choice, ok := dhcp.ChooseEDK2([]*dhcpv4.DHCPv4{plain})
	fmt.Println(choice.File, choice.Asks.IsValid(), ok)
	choice, ok = dhcp.ChooseEDK2([]*dhcpv4.DHCPv4{plain, redirect})
	fmt.Println(choice.File, choice.Asks, ok)
	// Output:
	// snponly.efi false true
	//  198.51.100.1 true
}
