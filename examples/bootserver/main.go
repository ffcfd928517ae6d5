// Command bootserver is a whole boot server in a few lines, for a network whose
// DHCP server already sends next-server and a boot file: kernel and initrd
// over TFTP and HTTP, and a root for each machine over NBD, clean at each boot.
//
// It wants debian12.squashfs, and boot/ with vmlinuz, initrd.img and the boot
// loader that DHCP names.
package main

import (
	"context"
	"io/fs"
	"log"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
	"github.com/seed-3ec230fa/diskless/tftp"
)

func main() {
	ctx, me := context.Background(), netip.MustParseAddr("192.168.67.1")
	images := &nbd.Images{}
	if err := images.Add(ctx, "debian12", "debian12.squashfs"); err != nil {
		log.Fatal(err)
	}
	roots := &nbd.Roots{Images: images}
	tree := &pxecfg.Tree{
		Files: os.DirFS("boot"),
		Source: pxecfg.SourceFunc(func(ctx context.Context, c pxecfg.Client) (*pxecfg.Config, error) {
			if len(c.MAC) == 0 {
				return nil, nil // asked again under a name that says who it is
			}
			root, err := roots.Boot(ctx, "debian12", "m"+strings.ReplaceAll(c.MAC.String(), ":", ""), nbd.Ephemeral)
			return &pxecfg.Config{Entries: []pxecfg.Entry{{
				Label: "debian12", Kernel: "vmlinuz", Initrd: []string{"initrd.img"},
				Root: pxecfg.NBDInitramfsTools{Server: me, Export: root.String()},
			}}}, err
		}),
	}
	view := func(ctx context.Context, r *tftp.Request) (fs.FS, error) {
		return tree.For(ctx, pxecfg.Client{IP: r.Peer.Addr()}), nil
	}
	go func() { log.Fatal(http.ListenAndServe(":8080", tree)) }()
	go func() { log.Fatal((&tftp.Server{Handler: tftp.FSFunc(view)}).ListenAndServe()) }()
	log.Fatal((&nbd.Server{Handler: roots}).ListenAndServe())
}
