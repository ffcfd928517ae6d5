package pxecfg

import (
	"io/fs"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPortOnly: the form of one port per image, as nbd-client's script was seen
// to read it.
func TestPortOnly(t *testing.T) {
	args, err := NBDInitramfsTools{Server: rootServer4, Port: 2000, PortOnly: true, ReadOnly: true}.Args()
	require.NoError(t, err)
	require.Equal(t, []string{"root=/dev/nbd0", "nbdroot=" + rootServer4.String() + ":2000", "ip=dhcp", "ro"}, args)
	args, err = NBDLTSP5{Server: rootServer4, Port: 2000, PortOnly: true}.Args()
	require.NoError(t, err)
	require.Contains(t, args, "nbdroot="+rootServer4.String()+":2000")
	for _, r := range []Root{
		NBDInitramfsTools{Server: rootServer4, PortOnly: true},
		NBDInitramfsTools{Server: rootServer4, Port: 2000, PortOnly: true, Export: "x"},
		NBDInitramfsTools{Server: netip.MustParseAddr("2001:db8::1"), Port: 2000, PortOnly: true},
		NBDInitramfsTools{Server: rootServer4, Port: 2000},
		NBDDracut{Server: rootServer4, Port: 2000},
	} {
		_, err := r.Args()
		require.ErrorIs(t, err, fs.ErrInvalid)
	}
}
