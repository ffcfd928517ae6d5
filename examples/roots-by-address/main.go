// Command roots-by-address gives each machine of a range of addresses a root of
// its own, kept over boots: 192.168.0.201 has node01, 192.168.0.202 node02 and
// so on, all over one master image. Whoever gives the addresses decides who is
// who; PXELINUX finds its configuration under its address in hexadecimal.
//
// It wants master.ext4, and boot/ with pxelinux.0, ldlinux.c32, vmlinuz and
// initrd.img.
package main

import (
	"context"
	"fmt"
	"io/fs"
	"log"
	"net/netip"
	"os"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
	"github.com/seed-3ec230fa/diskless/tftp"
)

var (
	server = netip.MustParseAddr("192.168.0.10")
	first  = netip.MustParseAddr("192.168.0.201")
)

const nodes = 10

func main() {
	ctx := context.Background()
	images := &nbd.Images{}
	if err := images.Add(ctx, "master", "master.ext4"); err != nil {
		log.Fatal(err)
	}
	roots := &nbd.Roots{Images: images, Dir: "state"}
	tree := &pxecfg.Tree{Source: source(roots), Files: os.DirFS("boot")}
	view := func(ctx context.Context, r *tftp.Request) (fs.FS, error) {
		return tree.For(ctx, pxecfg.Client{IP: r.Peer.Addr()}), nil
	}
	go func() { log.Fatal((&tftp.Server{Handler: tftp.FSFunc(view)}).ListenAndServe()) }()
	log.Fatal((&nbd.Server{Handler: owned{roots}}).ListenAndServe())
}

// node is the name of the machine at an address, "" for one outside the range.
func node(addr netip.Addr) string {
	a, b := first.As4(), addr.Unmap()
	if !b.Is4() {
		return ""
	}
	c := b.As4()
	n := int(c[3]) - int(a[3]) + 1
	if [3]byte(a[:3]) != [3]byte(c[:3]) || n < 1 || n > nodes {
		return ""
	}
	return fmt.Sprintf("node%02d", n)
}

// source gives each machine of the range its root.
func source(roots *nbd.Roots) pxecfg.Source {
	return pxecfg.SourceFunc(func(ctx context.Context, c pxecfg.Client) (*pxecfg.Config, error) {
		name := node(c.IP)
		if name == "" {
			return nil, fs.ErrNotExist
		}
		root, err := roots.Boot(ctx, "master", name, nbd.Kept)
		if err != nil {
			return nil, err
		}
		return &pxecfg.Config{Entries: []pxecfg.Entry{{
			Label: name, Kernel: "vmlinuz", Initrd: []string{"initrd.img"},
			Root: pxecfg.NBDInitramfsTools{Server: server, Export: root.String()},
		}}}, nil
	})
}

// owned lets an address open its own root only.
type owned struct{ *nbd.Roots }

// OpenNBD implements nbd.Handler.
func (o owned) OpenNBD(ctx context.Context, r *nbd.Request) (nbd.Device, error) {
	name, err := nbd.ParseName(r.Export)
	if err != nil {
		return nil, err
	}
	if name.Root != "" && name.Root != node(r.Client.Addr()) {
		return nil, fmt.Errorf("%w: %s is not the root of %s", fs.ErrPermission, name.Root, r.Client.Addr())
	}
	return o.Roots.OpenNBD(ctx, r)
}
