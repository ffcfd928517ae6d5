package pxecfg_test

import (
	"fmt"
	"os"

	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// The two spellings of one UUID: PXELINUX asks with the wire's, dmidecode and
// iPXE show the other.
func ExampleSwapUUID() {
	wire := pxecfg.FormatUUID([16]byte{0xb8, 0x94, 0x59, 0x08, 0xd6, 0xa6, 0x41, 0xa9, 0x61, 0x1d, 0x74, 0xa6, 0xab, 0x80, 0xb8, 0x3d})
	fmt.Println(wire)
	fmt.Println(pxecfg.SwapUUID(wire))
	// Output:
	// b8945908-d6a6-41a9-611d-74a6ab80b83d
	// 085994b8-a6d6-a941-611d-74a6ab80b83d
}

// What PXELINUX puts before each name it asks for.
func ExamplePrefix() {
	fmt.Printf("%q %q\n", pxecfg.Prefix("ltsp/amd64/pxelinux.0"), pxecfg.Prefix("ltsp/my_pxelinux.0"))
	// Output: "ltsp/amd64/" "ltsp/my_"
}

// Sending a machine to its own disk.
func ExampleLocalDisk() {
	_ = pxecfg.LocalDisk().WritePXELINUX(os.Stdout, pxecfg.Target{})
	// Output:
	// DEFAULT local
	// PROMPT 0
	// TIMEOUT 100
	// LABEL local
	//   MENU LABEL Boot from the local disk
	//   LOCALBOOT 0
}
