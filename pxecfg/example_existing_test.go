package pxecfg_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing/fstest"

	"github.com/seed-3ec230fa/diskless/pxecfg"
)

const menuText = `DEFAULT debian
PROMPT 1
TIMEOUT 50
LABEL debian
  KERNEL vmlinuz quiet
  APPEND ro root=/dev/nbd0
  INITRD initrd.img
  IPAPPEND 2
LABEL disk
  LOCALBOOT 0
`

// What does the kernel see that PXELINUX starts?
func ExampleFile_Load() {
	f, err := pxecfg.ParseFile("default", strings.NewReader(menuText))
	if err != nil {
		panic(err)
	}
	p, err := f.Load(nil, "")
	if err != nil {
		panic(err)
	}
	mac, _ := net.ParseMAC("52:54:00:12:34:56")
	sys := pxecfg.Client{MAC: mac}.SysStrings(netip.Addr{}, netip.Addr{}, netip.Addr{})
	line, _ := p.Lookup(p.Command).KernelLine(sys)
	fmt.Println(line)
	// Output: BOOT_IMAGE=vmlinuz quiet ro root=/dev/nbd0 initrd=initrd.img BOOTIF=01-52-54-00-12-34-56
}

func ExampleFile_Set() {
	f, err := pxecfg.ParseFile("default", strings.NewReader("# ours\nlabel a\n\tkernel k\n\tappend  ro # why\n"))
	if err != nil {
		panic(err)
	}
	if err := f.Set("a", "APPEND", "ro quiet"); err != nil {
		panic(err)
	}
	if err := f.Set("a", "INITRD", "i"); err != nil {
		panic(err)
	}
	_, _ = f.WriteTo(os.Stdout)
	// Output:
	// # ours
	// label a
	// 	kernel k
	// 	append  ro quiet
	// 	INITRD i
}

func ExampleLint() {
	text := `DEFAULT Debian
LABEL debian
  KERNEL vmlinuz-6.0
  SYSAPPEND 2
  APPEND ro initrd=initrd.img
`
	f, err := pxecfg.ParseFile("default", strings.NewReader(text))
	if err != nil {
		panic(err)
	}
	for _, finding := range pxecfg.Lint(f, nil, "") {
		fmt.Println(finding)
	}
	// Output:
	// default:1:9: no label is "Debian": PXELINUX takes it for a file; labels are case-sensitive, and there is "debian" (no-such-label)
	// default:2:1: KERNEL vmlinuz-6.0 boots as type PXE because of the end of its name: write LINUX (kernel-type)
	// default:4:1: U-Boot: "SYSAPPEND" ends the entry, and APPEND in line 5 is lost: move it to the end of the entry (uboot-ends-label)
}

// A directory that PXELINUX machines boot from, for iPXE machines too.
func ExampleExisting() {
	root := fstest.MapFS{
		"vmlinuz": {}, "initrd.img": {},
		"pxelinux.cfg/C0A8": {Data: []byte(menuText)},
	}
	src := &pxecfg.Existing{FS: root}
	cfg, err := src.Config(context.Background(), pxecfg.Client{IP: netip.MustParseAddr("192.168.0.7")})
	if err != nil {
		panic(err)
	}
	for _, e := range cfg.Entries {
		fmt.Println(e.Label, e.Kernel, e.Initrd, e.Args, e.LocalBoot)
	}
	var b strings.Builder
	_ = cfg.WritePXELINUX(&b, pxecfg.Target{})
	fmt.Println("PXELINUX gets its file as it is:", b.String() == menuText)
	// Output:
	// debian vmlinuz [initrd.img] [quiet ro root=/dev/nbd0] false
	// disk  [] [] true
	// PXELINUX gets its file as it is: true
}

func ExampleKernels() {
	root := fstest.MapFS{
		"ltsp/vmlinuz-6.1.0-9": {}, "ltsp/initrd.img-6.1.0-9": {},
		"ltsp/vmlinuz-6.1.0-18": {}, "ltsp/initrd.img-6.1.0-18": {},
	}
	k := &pxecfg.Kernels{
		Methods: []pxecfg.KernelMethod{{Name: "NBD", Args: []string{"root=/dev/nbd0"}}},
		Args:    []string{"ro", "init=/sbin/init-ltsp", "quiet"},
	}
	cfg, err := k.Config(root, "ltsp")
	if err != nil {
		panic(err)
	}
	for _, e := range cfg.Entries {
		fmt.Println(e.Label, e.Kernel, e.Initrd, e.Args)
	}
	// Output:
	// ltsp-NBD ltsp/vmlinuz-6.1.0-18 [ltsp/initrd.img-6.1.0-18] [ro init=/sbin/init-ltsp quiet root=/dev/nbd0]
	// ltsp-NBD-6.1.0-18 ltsp/vmlinuz-6.1.0-18 [ltsp/initrd.img-6.1.0-18] [ro init=/sbin/init-ltsp quiet root=/dev/nbd0]
	// ltsp-NBD-6.1.0-9 ltsp/vmlinuz-6.1.0-9 [ltsp/initrd.img-6.1.0-9] [ro init=/sbin/init-ltsp quiet root=/dev/nbd0]
}

func ExampleClient_UBootNames() {
	c := pxecfg.Client{MAC: net.HardwareAddr{0xb8, 0x27, 0xeb, 1, 2, 3}}
	for _, name := range c.UBootNames(pxecfg.UBoot{Arch: "arm", SoC: "bcm283x", Board: "rpi"}) {
		fmt.Println(name)
	}
	// Output:
	// pxelinux.cfg/01-b8-27-eb-01-02-03
	// pxelinux.cfg/default-arm-bcm283x-rpi
	// pxelinux.cfg/default-arm-bcm283x
	// pxelinux.cfg/default-arm
	// pxelinux.cfg/default
}
