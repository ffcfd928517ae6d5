package pxecfg_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"testing/fstest"
	"time"

	"github.com/seed-3ec230fa/diskless/pxecfg"
)

var (
	mac01 = net.HardwareAddr{0x52, 0x54, 0x00, 0x00, 0x00, 0x01}
	mac02 = net.HardwareAddr{0x52, 0x54, 0x00, 0x00, 0x00, 0x02}
	quiet = slog.New(slog.DiscardHandler)
)

// debian is an entry with its root on an NBD export.
func debian(root string) *pxecfg.Config {
	return &pxecfg.Config{Entries: []pxecfg.Entry{{
		Label:  "debian12",
		Title:  "Debian 12",
		Kernel: "debian12/vmlinuz",
		Initrd: []string{"debian12/initrd.img"},
		Root: pxecfg.NBDInitramfsTools{
			Server: netip.MustParseAddr("192.0.2.1"),
			Export: "debian12@" + root,
		},
		Args: []string{"quiet", "console=ttyS0,115200n8"},
	}}}
}

func ExampleClient_Names() {
	c := pxecfg.Client{MAC: mac01, IP: netip.MustParseAddr("192.168.0.201")}
	for _, name := range c.Names() {
		fmt.Println(name)
	}
	// Output:
	// pxelinux.cfg/01-52-54-00-00-00-01
	// pxelinux.cfg/C0A800C9
	// pxelinux.cfg/C0A800C
	// pxelinux.cfg/C0A800
	// pxelinux.cfg/C0A80
	// pxelinux.cfg/C0A8
	// pxelinux.cfg/C0A
	// pxelinux.cfg/C0
	// pxelinux.cfg/C
	// pxelinux.cfg/default
}

func ExampleClient_GRUBNames() {
	c := pxecfg.Client{MAC: mac01}
	fmt.Println(c.GRUBNames())
	fmt.Println(c.GRUBAliases())
	// Output:
	// [grub.cfg-01-52-54-00-00-00-01 grub.cfg]
	// [grub.cfg-52:54:00:00:00:01 grub.cfg-52-54-00-00-00-01]
}

func ExampleParseName() {
	for _, name := range []string{
		"ltsp/amd64/pxelinux.cfg/01-52-54-00-00-00-01",
		"pxelinux.cfg/C0A800C9",
		"grub/grub.cfg-52:54:00:00:00:01",
		"pxelinux.cfg/default",
	} {
		c, ok := pxecfg.ParseName(name)
		fmt.Println(c, ok)
	}
	// Output:
	// 52:54:00:00:00:01 true
	// 192.168.0.201 true
	// 52:54:00:00:00:01 true
	// unknown client false
}

func ExampleMachines() {
	machines := &pxecfg.Machines{
		List: []pxecfg.Machine{
			{MAC: mac01, Source: debian("node01")},
			{IP: netip.MustParseAddr("192.0.2.12"), Source: debian("node02")},
		},
		Unknown: pxecfg.LocalDisk(),
		Logger:  quiet,
	}
	for _, c := range []pxecfg.Client{{MAC: mac01}, {IP: netip.MustParseAddr("192.0.2.12")}, {MAC: mac02}} {
		cfg, err := machines.Config(context.Background(), c)
		fmt.Println(c, "boots", cfg.Entries[0].Label, err)
	}
	for _, s := range machines.Seen() {
		fmt.Println("unknown:", s.Client, s.Count)
	}
	// Output:
	// 52:54:00:00:00:01 boots debian12 <nil>
	// 192.0.2.12 boots debian12 <nil>
	// 52:54:00:00:00:02 boots local <nil>
	// unknown: 52:54:00:00:00:02 1
}

func ExampleSourceFunc() {
	// A range of addresses boots a range of roots.
	nodes := pxecfg.SourceFunc(func(_ context.Context, c pxecfg.Client) (*pxecfg.Config, error) {
		if !netip.MustParsePrefix("192.168.0.192/26").Contains(c.IP) {
			return nil, fs.ErrNotExist
		}
		return debian(fmt.Sprintf("node%02d", c.IP.As4()[3]-200)), nil
	})
	cfg, err := nodes.Config(context.Background(), pxecfg.Client{IP: netip.MustParseAddr("192.168.0.201")})
	if err != nil {
		fmt.Println(err)
		return
	}
	args, err := cfg.Entries[0].Root.Args()
	fmt.Println(args, err)
	// Output:
	// [root=/dev/nbd0 nbdroot=192.0.2.1:10809/debian12@node01 ip=dhcp rw] <nil>
}

func ExampleFirst() {
	src := pxecfg.First(
		&pxecfg.Machines{List: []pxecfg.Machine{{MAC: mac01, Source: debian("node01")}}, Logger: quiet},
		pxecfg.LocalDisk(), // a Config is the source of itself
	)
	for _, mac := range []net.HardwareAddr{mac01, mac02} {
		cfg, err := src.Config(context.Background(), pxecfg.Client{MAC: mac})
		fmt.Println(cfg.Entries[0].Label, err)
	}
	// Output:
	// debian12 <nil>
	// local <nil>
}

func ExampleExplain() {
	src := &pxecfg.Machines{List: []pxecfg.Machine{{IP: netip.MustParseAddr("192.168.0.201"), Source: debian("node01")}}}
	c := pxecfg.Client{MAC: mac01, IP: netip.MustParseAddr("192.168.0.201")}
	for _, step := range pxecfg.Explain(context.Background(), src, c) {
		fmt.Printf("%s: %s\n", step.Name, step.Why)
	}
	// Output:
	// pxelinux.cfg/01-52-54-00-00-00-01: the source has nothing for it
	// pxelinux.cfg/C0A800C9: entry "debian12": kernel debian12/vmlinuz
}

func ExampleConfig_WritePXELINUX() {
	if err := debian("node01").WritePXELINUX(os.Stdout, pxecfg.Target{}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// DEFAULT debian12
	// PROMPT 0
	// TIMEOUT 100
	// LABEL debian12
	//   MENU LABEL Debian 12
	//   LINUX debian12/vmlinuz
	//   INITRD debian12/initrd.img
	//   APPEND root=/dev/nbd0 nbdroot=192.0.2.1:10809/debian12@node01 ip=dhcp rw quiet console=ttyS0,115200n8
}

func ExampleConfig_WriteIPXE() {
	if err := debian("node01").WriteIPXE(os.Stdout, pxecfg.Target{BaseURL: "http://192.0.2.1"}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// #!ipxe
	// :entry-debian12
	// imgfree
	// kernel http://192.0.2.1/debian12/vmlinuz initrd=initrd0 root=/dev/nbd0 nbdroot=192.0.2.1:10809/debian12@node01 ip=dhcp rw quiet console=ttyS0,115200n8 || goto failed-debian12
	// initrd --name initrd0 http://192.0.2.1/debian12/initrd.img || goto failed-debian12
	// boot
	// :failed-debian12
	// echo debian12 did not boot: the lines above say why
	// prompt --timeout 10000 Press a key for the iPXE shell, or wait to try again || goto entry-debian12
	// shell
	// goto entry-debian12
}

func ExampleConfig_WriteGRUB() {
	if err := debian("node01").WriteGRUB(os.Stdout, pxecfg.Target{}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// set default='debian12'
	// set timeout=0
	// menuentry 'Debian 12' --id 'debian12' {
	// 	if linux '/debian12/vmlinuz' 'root=/dev/nbd0' 'nbdroot=192.0.2.1:10809/debian12@node01' 'ip=dhcp' 'rw' 'quiet' 'console=ttyS0,115200n8'; then
	// 		if initrd '/debian12/initrd.img'; then
	// 			boot
	// 		fi
	// 	fi
	// 	echo 'debian12 did not boot: the lines above say why. Starting over.'
	// 	sleep --interruptible 10
	// 	reboot
	// }
}

// A menu of three, which waits for ten seconds.
func ExampleConfig() {
	menu := &pxecfg.Config{
		Title:   "Lab 2",
		Default: "debian12",
		Timeout: 10 * time.Second,
		Entries: []pxecfg.Entry{
			debian("lab").Entries[0],
			{Label: "memtest", Title: "Memory test", Chain: "memtest.efi"},
			{Label: "local", Title: "Local disk", LocalBoot: true},
		},
	}
	menu.Entries[0].Root, menu.Entries[0].Args = nil, nil
	if err := menu.WritePXELINUX(os.Stdout, pxecfg.Target{}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// DEFAULT debian12
	// PROMPT 1
	// TIMEOUT 100
	// MENU TITLE Lab 2
	// SAY debian12: Debian 12
	// SAY memtest: Memory test
	// SAY local: Local disk
	// LABEL debian12
	//   MENU LABEL Debian 12
	//   LINUX debian12/vmlinuz
	//   INITRD debian12/initrd.img
	// LABEL memtest
	//   MENU LABEL Memory test
	//   KERNEL memtest.efi
	// LABEL local
	//   MENU LABEL Local disk
	//   LOCALBOOT 0
}

// What a loader would change is an error that names the entry and the argument.
func ExampleRenderError() {
	cfg := debian("node01")
	cfg.Entries[0].Args = []string{"motd=${mac}"}
	fmt.Println(cfg.WriteIPXE(os.Stdout, pxecfg.Target{}))
	// Output:
	// entry "debian12": argument "motd=${mac}" cannot be written for iPXE: iPXE would expand ${
}

func ExampleNBDInitramfsTools() {
	root := pxecfg.NBDInitramfsTools{
		Server:   netip.MustParseAddr("192.0.2.1"),
		Export:   "debian12~0a1b2c3d4e5f@node-01.6f3k9a-x7Qm2p",
		ReadOnly: true,
		Overlay:  "tmpfs",
	}
	fmt.Println(root.Args())
	// Output:
	// [root=/dev/nbd0 nbdroot=192.0.2.1:10809/debian12~0a1b2c3d4e5f@node-01.6f3k9a-x7Qm2p ip=dhcp ro overlayroot=tmpfs] <nil>
}

func ExampleNBDDracut() {
	root := pxecfg.NBDDracut{Server: netip.MustParseAddr("192.0.2.1"), Export: "fedora", FSType: "squashfs", ReadOnly: true}
	fmt.Println(root.Args())
	root.Port = 10810
	_, err := root.Args()
	fmt.Println(err)
	// Output:
	// [root=nbd:192.0.2.1:fedora:squashfs:ro ip=dhcp rd.neednet=1] <nil>
	// port 10810: dracut cannot name an export on a port other than 10809: serve it there: invalid argument
}

// Two machines ask for one name and boot two roots.
func ExampleTree_For() {
	tree := &pxecfg.Tree{
		Source: &pxecfg.Machines{List: []pxecfg.Machine{
			{MAC: mac01, Source: debian("node01")},
			{MAC: mac02, Source: debian("node02")},
		}},
		Files:  fstest.MapFS{"debian12/vmlinuz": {Data: []byte("a kernel")}},
		Logger: quiet,
	}
	for _, mac := range []net.HardwareAddr{mac01, mac02} {
		fsys := tree.For(context.Background(), pxecfg.Client{MAC: mac})
		info, err := fs.Stat(fsys, "grub/grub.cfg") // a size probe
		if err != nil {
			fmt.Println(err)
			return
		}
		text, err := fs.ReadFile(fsys, "grub/grub.cfg")
		fmt.Println(mac, len(text) == int(info.Size()), err)
		cfg, err := fs.ReadFile(fsys, "pxelinux.cfg/default")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s\n", regexp.MustCompile(`debian12@\w+`).Find(cfg))
	}
	_, err := fs.ReadFile(tree.For(context.Background(), pxecfg.Client{MAC: mac01}), "pxelinux.cfg/01-52-54-00-00-00-02")
	fmt.Println(err)
	// Output:
	// 52:54:00:00:00:01 true <nil>
	// debian12@node01
	// 52:54:00:00:00:02 true <nil>
	// debian12@node02
	// open pxelinux.cfg/01-52-54-00-00-00-02: file does not exist
}

// A machine without a lease is asked who it is.
func ExampleTree_ServeHTTP() {
	tree := &pxecfg.Tree{
		Source: &pxecfg.Machines{List: []pxecfg.Machine{{MAC: mac01, Source: debian("node01")}}, Logger: quiet},
		Logger: quiet,
	}
	for _, url := range []string{"/boot.ipxe", "/boot.ipxe?mac=52-54-00-00-00-02"} {
		w := httptest.NewRecorder()
		tree.ServeHTTP(w, httptest.NewRequest(http.MethodGet, url, nil))
		fmt.Println(w.Code)
		fmt.Print(w.Body)
	}
	// Output:
	// 200
	// #!ipxe
	// chain boot.ipxe?mac=${netX/mac:hexhyp}&uuid=${uuid}&hostname=${hostname:uristring}&arch=${buildarch}&platform=${platform} && exit ||
	// echo The boot server has nothing for this machine: MAC ${netX/mac} UUID ${uuid}
	// exit
	// 404
	// Not Found
}
