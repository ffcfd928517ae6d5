package takeover

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/stretchr/testify/require"
)

const leaseFile = `
# The format of this file is documented in the dhcpd.leases(5) manual page.
authoring-byte-order little-endian;
server-duid "\000\001\000\001";
lease 10.0.0.10 {
  starts 4 2026/01/01 00:00:00;
  ends 4 2026/01/01 12:00:00;
  cltt 4 2026/01/01 00:00:00;
  binding state active;
  next binding state free;
  hardware ethernet 02:00:00:00:00:0a;
  uid "\001\002\000\000\000\000\012";
  set vendor-class-identifier = "PXEClient";
  client-hostname "node-1";
}
lease 10.0.0.11 { starts never; ends never; binding state active; hardware ethernet 02:00:00:00:00:0b; }
lease 10.0.0.12 { ends epoch 4000000000; binding state active; hardware ethernet 02:00:00:00:00:0c; }
lease 10.0.0.12 { ends epoch 4000000000; binding state released; hardware ethernet 02:00:00:00:00:0c; }
lease 10.0.0.13 { ends 4 2026/01/01 12:00:00; binding state abandoned; }
lease 10.0.0.14 { ends 4 2026/13/01 12:00:00; binding state active; hardware ethernet 02:00:00:00:00:0e; }
lease 10.0.0.15 { ends never; binding state free; }
failover peer "x" state { my state normal at 4 2026/01/01 12:00:00; }
`

func TestDHCPDLeases(t *testing.T) {
	leases, notes, err := DHCPDLeases("l", []byte(leaseFile))
	require.NoError(t, err)
	require.Len(t, notes, 2)
	require.Equal(t, `l:20:1: "4 2026/13/01 12:00:00" is no time`, notes[0].String())
	require.Equal(t, `l:21:1: the lease of 10.0.0.15 names no hardware address`, notes[1].String())
	require.Len(t, leases, 4)
	require.Equal(t, dhcp.Lease{
		Addr: ip("10.0.0.10"), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 0xa}, ClientID: []byte{1, 2, 0, 0, 0, 0, 10},
		ClientHostname: "node-1", Expires: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC),
	}, leases[0])
	now := time.Now()
	require.True(t, leases[1].Expires.IsZero())
	require.False(t, leases[2].Active(now), "released later in the file")
	require.True(t, leases[3].Declined)

	store := new(dhcp.MemoryStore)
	require.NoError(t, store.Commit(t.Context(), dhcp.Lease{Addr: ip("10.0.0.11"), HardwareAddr: net.HardwareAddr{9}}))
	refused, err := Restore(t.Context(), store, leases)
	require.NoError(t, err)
	require.Equal(t, 1, refused)
	l, err := store.LeaseByAddr(t.Context(), ip("10.0.0.13"))
	require.NoError(t, err)
	require.True(t, l.Declined)

	_, _, err = DHCPDLeases("l", []byte("lease 10.0.0.1 {\n ends never;"))
	require.EqualError(t, err, "l:1:16: this block is never closed: a } is missing")
}

func FuzzDHCPDLeases(f *testing.F) {
	f.Add([]byte(leaseFile))
	f.Fuzz(func(t *testing.T, data []byte) {
		leases, _, err := DHCPDLeases("f", data)
		if err == nil {
			_, err = Restore(t.Context(), new(dhcp.MemoryStore), leases)
			require.NoError(t, err)
		}
	})
}

func ExampleDHCPDLeases() {
	leases, notes, err := DHCPDLeases("dhcpd.leases", []byte(`
lease 198.51.100.100 { ends never; binding state active; hardware ethernet 02:00:00:00:00:01; }
`))
	fmt.Println(leases[0].Addr, leases[0].HardwareAddr, len(notes), err)
	store := new(dhcp.MemoryStore)
	fmt.Println(Restore(context.Background(), store, leases))
	// Output:
	// 198.51.100.100 02:00:00:00:00:01 0 <nil>
	// 0 <nil>
}
