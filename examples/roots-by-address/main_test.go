package main

import (
	"context"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

func TestNode(t *testing.T) {
	for addr, want := range map[string]string{
		"192.168.0.200": "", "192.168.0.201": "node01", "192.168.0.210": "node10", "192.168.0.211": "", "192.168.1.201": "", "::1": "",
	} {
		require.Equal(t, want, node(netip.MustParseAddr(addr)), addr)
	}
}

// The machine at 192.168.0.201 finds its configuration at C0A800C9, opens its
// root, and its neighbour may not.
func TestBoot(t *testing.T) {
	image := filepath.Join(t.TempDir(), "master.ext4")
	require.NoError(t, os.WriteFile(image, make([]byte, 1<<20), 0o644))
	images := &nbd.Images{}
	require.NoError(t, images.Add(t.Context(), "master", image))
	defer images.Close()
	roots := &nbd.Roots{Images: images}
	one, two := netip.MustParseAddr("192.168.0.201"), netip.MustParseAddr("192.168.0.202")

	tree := &pxecfg.Tree{Source: source(roots)}
	text, err := fs.ReadFile(tree.For(t.Context(), pxecfg.Client{IP: one}), "pxelinux.cfg/C0A800C9")
	require.NoError(t, err)
	require.Contains(t, string(text), "@node01.")

	name, err := roots.Boot(context.Background(), "master", "node01", nbd.Kept)
	require.NoError(t, err)
	require.Contains(t, string(text), name.String(), "a look changes nothing")
	open := func(from netip.Addr) error {
		d, err := owned{roots}.OpenNBD(t.Context(), &nbd.Request{
			Export: name.String(), Client: netip.AddrPortFrom(from, 1024), Disconnect: func(error) {},
		})
		if err == nil {
			require.NoError(t, d.(interface{ Close() error }).Close())
		}
		return err
	}
	require.ErrorIs(t, open(two), fs.ErrPermission)
	require.NoError(t, open(one))
}
