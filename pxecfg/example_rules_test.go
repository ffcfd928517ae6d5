package pxecfg_test

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/iana"

	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// farm is a site in a few lines: what machines have in common is in profiles.
func farm() *pxecfg.Rules {
	return &pxecfg.Rules{
		MostSpecific: true,
		Profiles: map[string]pxecfg.Profile{
			"serial": {Args: []string{"console=ttyS0,115200n8"}},
			"debian": {
				Args: []string{"quiet"},
				Config: pxecfg.Config{Entries: []pxecfg.Entry{{
					Label: "debian", Kernel: "debian12/vmlinuz", Initrd: []string{"debian12/initrd.img"},
					Root: pxecfg.NBDInitramfsTools{Server: netip.MustParseAddr("192.0.2.1"), Export: "debian12", ReadOnly: true, Overlay: "tmpfs"},
				}}},
			},
		},
		List: []pxecfg.Rule{
			{
				Name:    "office",
				Match:   pxecfg.Match{Network: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
				Profile: pxecfg.Profile{Inherit: []string{"debian"}},
			},
			{
				Name: "rack 7",
				Match: pxecfg.Match{Range: []pxecfg.IPRange{
					{First: netip.MustParseAddr("192.0.2.100"), Last: netip.MustParseAddr("192.0.2.149")},
				}},
				Profile: pxecfg.Profile{Inherit: []string{"debian", "serial"}, Drop: []string{"quiet"}},
			},
			{Name: "printers", Match: pxecfg.Match{MACPrefix: []net.HardwareAddr{{0x00, 0x80, 0x77}}}, Source: pxecfg.Deny()},
			{Name: "kiosks", Match: pxecfg.Match{Hostname: []string{"kiosk-*"}, Arch: []iana.Arch{iana.EFI_X86_64}}, Source: debian("kiosk")},
		},
		Unknown: pxecfg.LocalDisk(),
		Logger:  quiet,
	}
}

func ExampleRules() {
	rules := farm()
	if err := rules.Validate(); err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range []pxecfg.Client{
		{IP: netip.MustParseAddr("192.0.2.7")},
		{IP: netip.MustParseAddr("192.0.2.107")},
		{Hostname: "kiosk-3", Arch: iana.EFI_X86_64, ArchKnown: true},
		{MAC: net.HardwareAddr{0x00, 0x80, 0x77, 1, 2, 3}},
		{MAC: mac02},
	} {
		cfg, err := rules.Config(context.Background(), c)
		if err != nil {
			fmt.Printf("%v: %v\n", c, err)
			continue
		}
		fmt.Printf("%v: %s %v\n", c, cfg.Entries[0].Label, cfg.Entries[0].Args)
	}
	fmt.Println("unknown:", rules.Seen()[0].Client)
	// Output:
	// 192.0.2.7: debian [quiet]
	// 192.0.2.107: debian [console=ttyS0,115200n8]
	// kiosk-3: debian12 [quiet console=ttyS0,115200n8]
	// 00:80:77:01:02:03: file does not exist
	// 52:54:00:00:00:02: local []
	// unknown: 52:54:00:00:00:02
}

// Where each value came from.
func ExampleExplain_rules() {
	for _, step := range pxecfg.Explain(context.Background(), farm(), pxecfg.Client{MAC: mac01, IP: netip.MustParseAddr("192.0.2.107")}) {
		fmt.Printf("%s: %v, %s: %s\n", step.Name, step.Hit, step.Rule, step.Why)
		for _, v := range step.Values {
			fmt.Printf("  %s %s %s: %s\n", v.Entry, v.Field, v.Value, v.From)
		}
	}
	// Output:
	// pxelinux.cfg/01-52-54-00-00-00-01: false, unknown machines: only the fallback for unknown machines, which is kept for the last name
	// pxelinux.cfg/C000026B: true, rule "rack 7": entry "debian": kernel debian12/vmlinuz
	//   debian kernel debian12/vmlinuz: profile "debian"
	//   debian initrd debian12/initrd.img: profile "debian"
	//   debian root root=/dev/nbd0 nbdroot=192.0.2.1:10809/debian12 ip=dhcp ro overlayroot=tmpfs: profile "debian"
	//   debian arg console=ttyS0,115200n8: profile "serial"
}

// Each machine gets a root of its own over what the profile says.
func ExampleRule() {
	rules := farm()
	rules.List = append(rules.List, pxecfg.Rule{
		Name:    "nodes",
		Match:   pxecfg.Match{Hostname: []string{"node-??"}},
		Profile: pxecfg.Profile{Inherit: []string{"debian"}},
		Source: pxecfg.SourceFunc(func(_ context.Context, c pxecfg.Client) (*pxecfg.Config, error) {
			return &pxecfg.Config{Entries: []pxecfg.Entry{{
				Label: "debian",
				Root:  pxecfg.NBDInitramfsTools{Server: netip.MustParseAddr("192.0.2.1"), Export: "debian12@" + c.Hostname},
			}}}, nil
		}),
	})
	cfg, err := rules.Config(context.Background(), pxecfg.Client{Hostname: "node-07"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(cfg.Entries[0].Kernel)
	fmt.Println(cfg.Entries[0].Root.Args())
	// Output:
	// debian12/vmlinuz
	// [root=/dev/nbd0 nbdroot=192.0.2.1:10809/debian12@node-07 ip=dhcp rw] <nil>
}

func ExampleDeny() {
	_, err := pxecfg.Deny().Config(context.Background(), pxecfg.Client{MAC: mac01})
	fmt.Println(err)
	// Output:
	// file does not exist
}

// A machine installs once, and boots from its disk from then on.
func ExampleOnce() {
	ctx := context.Background()
	install := &pxecfg.Once{Source: debian("installer"), Grace: time.Minute}
	c := pxecfg.Client{MAC: mac01}
	show := func() {
		cfg, err := install.Config(ctx, c)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(cfg.Entries[0].Label)
	}
	show() // a size probe
	show() // the read
	if err := install.Done(ctx, c); err != nil {
		fmt.Println(err)
	}
	show()
	if err := install.Again(ctx, c); err != nil {
		fmt.Println(err)
	}
	show()
	// Output:
	// debian12
	// debian12
	// local
	// debian12
}

func ExampleTemplate() {
	tmpl, err := pxecfg.ParseTemplate("site.ipxe", "#!ipxe\nchain http://192.0.2.1/{{.Vars.release}}/{{hyphens .MAC}}.ipxe host={{ipxe .Hostname}}\n")
	if err != nil {
		fmt.Println(err)
		return
	}
	tmpl.Vars = func(context.Context, pxecfg.Client) (map[string]any, error) {
		return map[string]any{"release": "bookworm"}, nil
	}
	tree := &pxecfg.Tree{
		Extra:  map[string]func(context.Context, pxecfg.Client) ([]byte, error){"site.ipxe": tmpl.Render},
		Logger: quiet,
	}
	text, err := fs.ReadFile(tree.For(context.Background(), pxecfg.Client{MAC: mac01, Hostname: "node-07"}), "site.ipxe")
	fmt.Printf("%s%v\n", text, err)
	_, err = tmpl.Render(context.Background(), pxecfg.Client{MAC: mac02})
	fmt.Println(err)
	// Output:
	// #!ipxe
	// chain http://192.0.2.1/bookworm/52-54-00-00-00-01.ipxe host=node-07
	// <nil>
	// template: site.ipxe:2:75: executing "site.ipxe" at <.Hostname>: map has no entry for key "Hostname"
}

// The forms of the initramfs in use.
func ExampleRoot() {
	server := netip.MustParseAddr("192.0.2.1")
	fixed := &pxecfg.StaticIP{Addr: netip.MustParsePrefix("192.0.2.7/24"), Gateway: netip.MustParseAddr("192.0.2.254"), Interface: "eth0"}
	for _, root := range []pxecfg.Root{
		pxecfg.NFSInitramfsTools{Server: server, Path: "/srv/root", IP: fixed},
		pxecfg.NFSDracut{Server: server, Path: "/srv/root", Version4: true, IP: fixed},
		pxecfg.NFSCasper{Server: server, Path: "/srv/ubuntu", IP: fixed},
		pxecfg.NFSLTSP{Server: server, Path: "/srv/ltsp", Image: "images/x86_64.img"},
		pxecfg.NBDLTSP5{Server: server, Export: "/opt/ltsp/amd64"},
		pxecfg.HTTPRootURL{URL: "http://192.0.2.1/x.squashfs", Overlay: "tmpfs"},
		pxecfg.HTTPDracut{URL: "http://192.0.2.1/x.squashfs", Overlay: pxecfg.LiveOverlay},
		pxecfg.HTTPLiveBoot{URL: "http://192.0.2.1/x.squashfs"},
		pxecfg.HTTPCasper{URL: "http://192.0.2.1/x.squashfs"},
		pxecfg.NFSInitramfsTools{Server: server, Path: "/srv/root", MountOptions: []string{"vers=4"}},
	} {
		args, err := root.Args()
		if err != nil {
			fmt.Println("refused:", err)
			continue
		}
		fmt.Println(strings.Join(args, " "))
	}
	// Output:
	// root=/dev/nfs nfsroot=192.0.2.1:/srv/root ip=192.0.2.7:192.0.2.1:192.0.2.254:255.255.255.0::eth0:off rw
	// root=nfs4:192.0.2.1:/srv/root:rw ip=192.0.2.7::192.0.2.254:255.255.255.0::eth0:none rd.neednet=1
	// boot=casper netboot=nfs nfsroot=192.0.2.1:/srv/ubuntu ip=eth0,192.0.2.7,255.255.255.0,192.0.2.254
	// root=/dev/nfs nfsroot=192.0.2.1:/srv/ltsp ip=dhcp ro ltsp.image=images/x86_64.img loop.max_part=9
	// root=/dev/nbd0 nbdroot=192.0.2.1:10809//opt/ltsp/amd64 ip=dhcp ro init=/sbin/init-ltsp
	// root=squash:http://192.0.2.1/x.squashfs ip=dhcp ro overlayroot=tmpfs overlayroot_cfgdisk=disabled
	// root=live:http://192.0.2.1/x.squashfs ip=dhcp rd.neednet=1 rd.live.overlay.overlayfs=1
	// boot=live fetch=http://192.0.2.1/x.squashfs
	// refused: URL "http://192.0.2.1/x.squashfs": casper fetches files that end in .iso only: invalid argument
	// refused: mount option "vers=4": the initramfs' mount program, klibc's nfsmount, knows NFS 2 and 3 only: invalid argument
}

// One menu in three languages.
func ExampleConfig_menu() {
	menu := &pxecfg.Config{
		Title:   "Lab 2",
		Default: "debian",
		Timeout: 10 * time.Second,
		Entries: []pxecfg.Entry{
			{Label: "debian", Title: "Debian; it's 12", Kernel: "vmlinuz", Initrd: []string{"initrd.img"}, Args: []string{"quiet"}},
			{Label: "shell", Chain: "shell.efi"},
			{Label: "local", Title: "Local disk", LocalBoot: true},
		},
	}
	for _, write := range []func() error{
		func() error { return menu.WritePXELINUX(os.Stdout, pxecfg.Target{}) },
		func() error { return menu.WriteIPXE(os.Stdout, pxecfg.Target{}) },
		func() error { return menu.WriteGRUB(os.Stdout, pxecfg.Target{}) },
	} {
		if err := write(); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// DEFAULT debian
	// PROMPT 1
	// TIMEOUT 100
	// MENU TITLE Lab 2
	// SAY debian: Debian; it's 12
	// SAY shell: shell
	// SAY local: Local disk
	// LABEL debian
	//   MENU LABEL Debian; it's 12
	//   LINUX vmlinuz
	//   INITRD initrd.img
	//   APPEND quiet
	// LABEL shell
	//   KERNEL shell.efi
	// LABEL local
	//   MENU LABEL Local disk
	//   LOCALBOOT 0
	// #!ipxe
	// :menu
	// menu Lab 2
	// item entry-debian Debian; it's 12
	// item entry-shell shell
	// item entry-local Local disk
	// choose --default entry-debian --timeout 10000 entry || goto menu
	// goto ${entry}
	// :entry-debian
	// imgfree
	// kernel /vmlinuz initrd=initrd0 quiet || goto failed-debian
	// initrd --name initrd0 /initrd.img || goto failed-debian
	// boot
	// :failed-debian
	// echo debian did not boot: the lines above say why
	// prompt --timeout 10000 Press a key for the iPXE shell, or wait to try again || goto entry-debian
	// shell
	// goto entry-debian
	// :entry-shell
	// chain /shell.efi || goto failed-shell
	// exit
	// :failed-shell
	// echo shell did not boot: the lines above say why
	// prompt --timeout 10000 Press a key for the iPXE shell, or wait to try again || goto entry-shell
	// shell
	// goto entry-shell
	// :entry-local
	// iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||
	// exit
	// set default='debian'
	// set timeout=10
	// menuentry 'Debian; it'\''s 12' --id 'debian' {
	// 	if linux '/vmlinuz' 'quiet'; then
	// 		if initrd '/initrd.img'; then
	// 			boot
	// 		fi
	// 	fi
	// 	echo 'debian did not boot: the lines above say why. Starting over.'
	// 	sleep --interruptible 10
	// 	reboot
	// }
	// menuentry 'shell' --id 'shell' {
	// 	if chainloader '/shell.efi'; then
	// 		boot
	// 	fi
	// 	echo 'shell did not boot: the lines above say why. Starting over.'
	// 	sleep --interruptible 10
	// 	reboot
	// }
	// menuentry 'Local disk' --id 'local' {
	// 	exit
	// }
}
