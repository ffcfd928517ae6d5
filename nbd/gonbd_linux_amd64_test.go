package nbd_test

import (
	"net"
	"testing"

	goclient "github.com/pojntfx/go-nbd/pkg/client"
	"github.com/stretchr/testify/require"
)

// go-nbd's client builds nowhere else without cgo.
func TestGoNBDClientList(t *testing.T) {
	addr, _, _, _ := image(t)
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer nc.Close()
	names, err := goclient.List(nc)
	require.NoError(t, err)
	require.Equal(t, []string{"disk"}, names, "it takes one reply only")
}
