package pxecfg_test

import (
	"fmt"
	"os"
	"time"

	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// A menu with a heading, a submenu, help, hot keys, and what boots when another
// entry does not, in all three languages.
func ExampleEntry_submenu() {
	menu := &pxecfg.Config{
		Title:   "Lab",
		UI:      "menu.c32",
		OnError: "local",
		Timeout: 5 * time.Second,
		Entries: []pxecfg.Entry{
			{Separator: true, Title: "Systems"},
			{Label: "debian", Title: "Debian", Hotkey: 'd', Help: "Changes are lost.", Kernel: "vmlinuz"},
			{Label: "more", Title: "More", Entries: []pxecfg.Entry{{Label: "memtest", Chain: "memtest.efi"}}},
			{Label: "local", Hidden: true, LocalBoot: true},
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
	// UI menu.c32
	// TIMEOUT 50
	// ONERROR local
	// MENU TITLE Lab
	// LABEL =1
	//   MENU LABEL Systems
	//   MENU DISABLE
	// LABEL debian
	//   MENU LABEL ^Debian
	//   LINUX vmlinuz
	//   TEXT HELP
	// Changes are lost.
	//   ENDTEXT
	// MENU BEGIN more
	//   MENU TITLE More
	// LABEL memtest
	//   KERNEL memtest.efi
	// MENU END
	// LABEL local
	//   LOCALBOOT 0
	//   MENU HIDE
	// #!ipxe
	// :menu
	// menu Lab
	// item --gap -- Systems
	// item --key d entry-debian Debian
	// item --gap -- Changes are lost.
	// item menu-more More
	// choose --default entry-debian --timeout 5000 entry || goto menu
	// goto ${entry}
	// :menu-more
	// menu More
	// item entry-memtest memtest
	// choose entry || goto menu
	// goto ${entry}
	// :entry-debian
	// imgfree
	// kernel /vmlinuz || goto failed-debian
	// boot
	// :failed-debian
	// echo debian did not boot: the lines above say why
	// prompt --timeout 10000 Press a key for the iPXE shell, or wait for local || goto entry-local
	// shell
	// goto entry-debian
	// :entry-memtest
	// chain /memtest.efi || goto failed-memtest
	// exit
	// :failed-memtest
	// echo memtest did not boot: the lines above say why
	// prompt --timeout 10000 Press a key for the iPXE shell, or wait for local || goto entry-local
	// shell
	// goto entry-memtest
	// :entry-local
	// iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||
	// exit
	// function onerror {
	// 	exit
	// }
	// set default='debian'
	// set timeout=5
	// menuentry 'Systems' {
	// 	true
	// }
	// menuentry 'Debian' --id 'debian' --hotkey=d {
	// 	echo -- 'Changes are lost.'
	// 	if linux '/vmlinuz'; then
	// 		boot
	// 	fi
	// 	echo 'debian did not boot: the lines above say why. Trying local.'
	// 	onerror
	// }
	// submenu 'More' --id 'more' {
	// 	menuentry 'memtest' --id 'memtest' {
	// 		if chainloader '/memtest.efi'; then
	// 			boot
	// 		fi
	// 		echo 'memtest did not boot: the lines above say why. Trying local.'
	// 		onerror
	// 	}
	// }
}
