package adapters_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"testing/fstest"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/ltsconf"
	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/tftp"
)

var (
	mac  = net.HardwareAddr{0x52, 0x54, 0, 0x67, 0, 1}
	addr = netip.MustParseAddr("192.168.67.11")
)

// leased is a pool in which one machine has a lease.
func leased() *dhcp.Pool {
	store := &dhcp.MemoryStore{}
	_ = store.Commit(context.Background(), dhcp.Lease{
		Addr: addr, HardwareAddr: mac, Hostname: "node01", Expires: time.Now().Add(time.Hour),
	})
	return &dhcp.Pool{
		Prefix: netip.MustParsePrefix("192.168.67.0/24"), ServerID: netip.MustParseAddr("192.168.67.1"), Store: store,
		Reservations: []dhcp.Reservation{{HardwareAddr: mac, Addr: addr, Hostname: "node01"}},
	}
}

// clientOf is the adapter from leases to boot configurations.
func clientOf(pool *dhcp.Pool) func(context.Context, netip.Addr) (pxecfg.Client, error) {
	return func(ctx context.Context, addr netip.Addr) (pxecfg.Client, error) {
		l, err := pool.LeaseByAddr(ctx, addr)
		return pxecfg.Client{MAC: l.HardwareAddr, UUID: l.UUID, IP: l.Addr, Hostname: l.Hostname}, err
	}
}

// A lease says who asks, so one name is another file for each machine.
func Example_leaseToBootConfiguration() {
	tree := &pxecfg.Tree{
		Lookup: clientOf(leased()),
		Source: pxecfg.SourceFunc(func(_ context.Context, c pxecfg.Client) (*pxecfg.Config, error) {
			return &pxecfg.Config{Entries: []pxecfg.Entry{{Label: "live", Kernel: "vmlinuz", Args: []string{"host=" + c.Hostname}}}}, nil
		}),
	}
	r := httptest.NewRequest("GET", "/pxelinux.cfg/01-52-54-00-67-00-01", nil)
	r.RemoteAddr = addr.String() + ":1024"
	w := httptest.NewRecorder()
	tree.ServeHTTP(w, r)
	fmt.Println(w.Code, bytes.Contains(w.Body.Bytes(), []byte("host=node01")))
	// Output: 200 true
}

// A lease also says whose lts.conf it is, and that is served beside the boot
// configuration, over TFTP and HTTP.
func Example_leaseToLTSConf() {
	conf, _ := ltsconf.Parse(bytes.NewReader([]byte("[Default]\nLANG=C\n\n[node01]\nSCREEN_07=kiosk\n")))
	lookup := clientOf(leased())
	tree := &pxecfg.Tree{Extra: map[string]func(context.Context, pxecfg.Client) ([]byte, error){
		"lts.conf": func(_ context.Context, c pxecfg.Client) ([]byte, error) {
			var out bytes.Buffer
			_, err := ltsconf.Collect(conf.Resolve(ltsconf.Client{Hostname: c.Hostname, IP: c.IP, MAC: c.MAC})).WriteTo(&out)
			return out.Bytes(), err
		},
	}}
	handler := tftp.FSFunc(func(ctx context.Context, r *tftp.Request) (fs.FS, error) {
		c, err := lookup(ctx, r.Peer.Addr())
		return tree.For(ctx, c), err
	})
	f, err := handler.OpenTFTP(context.Background(), &tftp.Request{Name: "ltsp/amd64/lts.conf", Peer: netip.AddrPortFrom(addr, 1024)})
	if err != nil {
		fmt.Println(err)
		return
	}
	text := make([]byte, f.Size())
	_, _ = f.ReadAt(text, 0)
	fmt.Print(string(text))
	// Output:
	// [Default]
	// LANG="C"
	// SCREEN_07="kiosk"
}

// Where only an lts.conf is to be served, its file system for one client is
// enough: it has that client's file at every name that an LTSP client asks for.
func Example_leaseToLTSConfOnly() {
	conf, _ := ltsconf.Parse(bytes.NewReader([]byte("[Default]\nLANG=C\n\n[node01]\nRCFILE_01=\"join s3cret\"\n")))
	lookup := clientOf(leased())
	handler := tftp.FSFunc(func(ctx context.Context, r *tftp.Request) (fs.FS, error) {
		c, err := lookup(ctx, r.Peer.Addr())
		if err != nil {
			return conf.For(ltsconf.Client{}) // what is for everybody
		}
		return conf.For(ltsconf.Client{Hostname: c.Hostname, IP: c.IP, MAC: c.MAC})
	})
	for _, peer := range []netip.Addr{addr, addr.Next()} {
		for _, name := range []string{"ltsp/amd64/lts.conf", "lts.conf"} {
			f, err := handler.OpenTFTP(context.Background(), &tftp.Request{Name: name, Peer: netip.AddrPortFrom(peer, 1024)})
			if err != nil {
				fmt.Println(err)
				return
			}
			text := make([]byte, f.Size())
			_, _ = f.ReadAt(text, 0)
			fmt.Println(peer, name, bytes.Contains(text, []byte("s3cret")))
		}
	}
	// Output:
	// 192.168.67.11 ltsp/amd64/lts.conf true
	// 192.168.67.11 lts.conf true
	// 192.168.67.12 ltsp/amd64/lts.conf false
	// 192.168.67.12 lts.conf false
}

// Where leases are known, a machine opens its own root only.
func Example_leaseToRoot() {
	pool := leased()
	own := func(next nbd.Handler) nbd.Handler {
		return nbd.HandlerFunc(func(ctx context.Context, r *nbd.Request) (nbd.Device, error) {
			name, err := nbd.ParseName(r.Export)
			if err != nil {
				return nil, err
			}
			if l, err := pool.LeaseByAddr(ctx, r.Client.Addr()); name.Root != "" && (err != nil || l.Hostname != name.Root) {
				return nil, fmt.Errorf("%w: %s is not yours", fs.ErrPermission, name.Root)
			}
			return next.OpenNBD(ctx, r)
		})
	}
	empty := nbd.HandlerFunc(func(context.Context, *nbd.Request) (nbd.Device, error) {
		return nbd.NewReaderAt(bytes.NewReader(make([]byte, 512)), 512), nil
	})
	for _, root := range []string{"node01", "node02"} {
		_, err := own(empty).OpenNBD(context.Background(), &nbd.Request{
			Export: "debian12@" + root, Client: netip.AddrPortFrom(addr, 1024),
		})
		fmt.Println(root, err)
	}
	// Output:
	// node01 <nil>
	// node02 permission denied: node02 is not yours
}

// A SquashFS image is an io.ReaderAt and its tree an fs.FS: built from any
// tree, exported over NBD, and read back through the NBD device.
func Example_imageToExport() {
	dir, _ := os.MkdirTemp("", "example")
	defer os.RemoveAll(dir)
	file := dir + "/root.squashfs"
	tree := fstest.MapFS{"etc/hostname": {Data: []byte("node01\n"), Mode: 0o644}}
	if err := squash.BuildFile(context.Background(), file, squash.FromFS(tree), nil); err != nil {
		fmt.Println(err)
		return
	}
	images := &nbd.Images{}
	defer images.Close()
	_ = images.Add(context.Background(), "debian12", file)
	device, err := images.OpenNBD(context.Background(), &nbd.Request{Export: "debian12"})
	if err != nil {
		fmt.Println(err)
		return
	}
	root, _ := squash.Open(device)
	text, err := fs.ReadFile(root, "etc/hostname")
	fmt.Printf("%q %v\n", text, err)
	// Output: "node01\n" <nil>
}
