package initrd_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing/fstest"

	"github.com/cavaliergopher/cpio"

	"github.com/seed-3ec230fa/diskless/ltsconf"
	"github.com/seed-3ec230fa/diskless/ltsconf/initrd"
)

// The settings of one machine, as an lts.conf has them, become its archive.
func ExampleBuild() {
	f, err := ltsconf.Parse(strings.NewReader(`
[Default]
FSTAB_01_TMP = "tmpfs /tmp tmpfs size=1G 0 0"
PREINIT_01   = "echo booted from $SERVER"

[node-01]
RCFILE_01_JOIN = "kubeadm join api.cluster --token abcdef"
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	var settings []initrd.Setting
	for name, v := range f.Resolve(ltsconf.Client{Hostname: "node-01"}) {
		text, ok := v.Literal()
		if !ok { // it has a $VAR in it
			text = v.Raw
		}
		settings = append(settings, initrd.Setting{Name: name, Value: text, Expand: !ok})
	}
	data, err := initrd.Build(settings, nil, &initrd.Options{Hostname: "node-01", Report: "http://192.0.2.1/up/node-01"})
	if err != nil {
		fmt.Println(err)
		return
	}

	r := cpio.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err != nil {
			break
		}
		if h.Name == "diskless/rcfiles" {
			text, _ := io.ReadAll(r)
			fmt.Print(string(text))
		}
	}
	// Output:
	// diskless_run 'RCFILE_01_JOIN' 'kubeadm join api.cluster --token abcdef'
}

// The modules of the image's own kernel, in an archive for all machines that
// boot it.
func ExampleReadModules() {
	image := fstest.MapFS{ // squash.Open's, or os.DirFS
		"usr/lib/modules/6.1.0/modules.builtin": {Data: []byte("kernel/fs/squashfs/squashfs.ko\nkernel/fs/overlayfs/overlay.ko\n")},
	}
	modules, err := initrd.ReadModules(image, "6.1.0", "squashfs", "overlay")
	fmt.Println(len(modules), err, "- this kernel has them built in")

	_, err = initrd.ReadModules(image, "6.2.0", "squashfs")
	fmt.Println(err)
	// Output:
	// 0 <nil> - this kernel has them built in
	// the image has no modules of kernel 6.2.0: boot the image's own kernel: file does not exist
}

// The version decides whose modules a kernel can load.
func ExampleKernelVersion() {
	vmlinuz := make([]byte, 4096)
	copy(vmlinuz[0x202:], "HdrS")
	vmlinuz[0x20f] = 0x04
	copy(vmlinuz[0x600:], "6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org)")
	fmt.Println(initrd.KernelVersion(bytes.NewReader(vmlinuz)))
	// Output: 6.1.0-56-cloud-amd64 <nil>
}
