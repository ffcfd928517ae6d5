package nbd_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
)

func TestAllowFrom(t *testing.T) {
	dev := nbd.NewReaderAt(nil, 0)
	h := nbd.AllowFrom(nbd.Exports{"debian12": nbd.Share(dev)},
		netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("fe80::/10"))
	for client, ok := range map[string]bool{
		"192.0.2.1:1": true, "[::ffff:192.0.2.1]:1": true, "192.0.2.128:1": false,
		"[fe80::1%eth0]:1": true, "[2001:db8::1]:1": false, "": false,
	} {
		req := &nbd.Request{Export: "debian12"}
		if client != "" {
			req.Client = netip.MustParseAddrPort(client)
		}
		_, err := h.OpenNBD(t.Context(), req)
		req.Export = ""
		list, listErr := h.(nbd.Lister).ListNBD(t.Context(), req)
		require.NoError(t, listErr)
		if ok {
			require.NoError(t, err, client)
			require.Len(t, list, 1)
		} else {
			require.ErrorIs(t, err, fs.ErrPermission, client)
			require.Empty(t, list)
		}
	}
	_, err := nbd.AllowFrom(nbd.Share(dev)).(nbd.Lister).ListNBD(t.Context(), &nbd.Request{})
	require.ErrorIs(t, err, fs.ErrPermission)
}

// ownList gives out the list that it has itself.
type ownList []nbd.ExportInfo

func (ownList) OpenNBD(context.Context, *nbd.Request) (nbd.Device, error) { return nil, nil }
func (l ownList) ListNBD(context.Context, *nbd.Request) ([]nbd.ExportInfo, error) {
	return l, nil
}

func TestAuthorizeLeavesAListAlone(t *testing.T) {
	own := ownList{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	h := nbd.Authorize(own, func(_ context.Context, r *nbd.Request) error {
		if r.Export == "a" && r.Client.Port() != 1 {
			return fs.ErrPermission
		}
		return nil
	}).(nbd.Lister)
	for _, c := range []struct {
		client string
		want   int
	}{{"192.0.2.1:2", 2}, {"192.0.2.1:1", 3}} {
		list, err := h.ListNBD(t.Context(), &nbd.Request{Client: netip.MustParseAddrPort(c.client)})
		require.NoError(t, err)
		require.Len(t, list, c.want)
		require.Equal(t, own[3-c.want:], ownList(list))
	}
}

func TestOwnRoot(t *testing.T) {
	broken := errors.New("no table")
	h := nbd.OwnRoot(nbd.HandlerFunc(func(context.Context, *nbd.Request) (nbd.Device, error) {
		return nbd.NewReaderAt(nil, 0), nil
	}), func(_ context.Context, client netip.Addr) (string, error) {
		switch client.String() {
		case "192.0.2.1":
			return "node-01", nil
		case "192.0.2.2":
			return "", fs.ErrNotExist
		case "192.0.2.3":
			return "", nil
		}
		return "", broken
	})
	for _, c := range []struct {
		client, export string
		want           error
	}{
		{"192.0.2.1", "debian12@node-01.token", nil},
		{"::ffff:192.0.2.1", "/debian12@node-01", nil},
		{"192.0.2.1", "debian12@node-02.token", fs.ErrPermission},
		{"192.0.2.1", "debian12", nil},
		{"192.0.2.2", "debian12@node-01", fs.ErrPermission},
		{"192.0.2.2", "debian12~0123456789ab", nil},
		{"192.0.2.3", "debian12@node-01", fs.ErrPermission},
		{"192.0.2.4", "debian12@node-01", broken},
		{"", "debian12@node-01", fs.ErrPermission},
	} {
		req := &nbd.Request{Export: c.export}
		if c.client != "" {
			req.Client = netip.AddrPortFrom(netip.MustParseAddr(c.client), 1)
		}
		_, err := h.OpenNBD(t.Context(), req)
		require.ErrorIs(t, err, c.want, "%+v", c)
	}
}

func ExampleAllowFrom() {
	rack := netip.MustParsePrefix("10.0.7.0/24")
	h := nbd.AllowFrom(nbd.Exports{"debian12": nbd.Share(nbd.NewReaderAt(nil, 0))}, rack)
	_, err := h.OpenNBD(context.Background(), &nbd.Request{
		Export: "debian12", Client: netip.MustParseAddrPort("10.0.8.1:40000"),
	})
	fmt.Println(err)
	// Output:
	// nbd: 10.0.8.1 is in none of the address ranges allowed: permission denied
}

func ExampleOwnRoot() {
	leases := map[netip.Addr]string{netip.MustParseAddr("10.0.7.1"): "node-01"}
	roots := nbd.HandlerFunc(func(context.Context, *nbd.Request) (nbd.Device, error) {
		return nbd.NewReaderAt(nil, 0), nil
	})
	h := nbd.OwnRoot(roots, func(_ context.Context, client netip.Addr) (string, error) {
		return leases[client], nil
	})
	for _, name := range []string{"debian12@node-01", "debian12@node-02"} {
		_, err := h.OpenNBD(context.Background(), &nbd.Request{
			Export: name, Client: netip.MustParseAddrPort("10.0.7.1:40000"),
		})
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// nbd: root node-02 is not that of 10.0.7.1: permission denied
}

func ExampleAuthorize() {
	h := nbd.Authorize(nbd.Share(nbd.NewReaderAt(nil, 0)), func(_ context.Context, r *nbd.Request) error {
		if r.CertName() == "" {
			return fmt.Errorf("without a certificate: %w", fs.ErrPermission)
		}
		return nil
	})
	_, err := h.OpenNBD(context.Background(), &nbd.Request{Export: "debian12"})
	fmt.Println(err)
	// Output:
	// without a certificate: permission denied
}
