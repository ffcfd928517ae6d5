package boottest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/accept"
	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
	"github.com/seed-3ec230fa/diskless/nbd"
)

// The images that Linux takes and those that it refuses, by the kernel of the
// machines that boot from them: over NBD, each file read.
func TestDebianKernelReadsImages(t *testing.T) {
	kernel, initrd := vmtest.Guest(t)
	images, err := accept.Images()
	require.NoError(t, err)
	dir, exports := t.TempDir(), nbd.Exports{}
	var names []string
	for _, i := range images {
		if strings.Contains(i.Name, "padded") {
			continue // what a device of an odd length is, the server says
		}
		file := filepath.Join(dir, i.Name)
		require.NoError(t, os.WriteFile(file, i.Data, 0o600))
		exports[i.Name] = nbd.FileServer(file)
		names = append(names, i.Name)
	}
	server := newBackend(t, exports)

	script := fmt.Sprintf(`#!/bin/sh
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec >/dev/ttyS0 2>&1
dmesg -n 1
while read -r module; do insmod "/lib/modules/$module"; done </lib/modules/order
for dir in /sys/class/net/*; do ip link set ${dir##*/} up; done
ip addr add 10.0.2.15/24 dev eth0
mkdir /mnt
%s
for name in %s; do
	sum="not attached"
	for try in $(seq 50); do
		nbd-client 10.0.2.2 %s -N $name /dev/nbd0 >/dev/null 2>&1 && sum="not mounted" && break
		usleep 200000
	done
	if [ "$sum" = "not mounted" ]; then
		mount -t squashfs -o ro /dev/nbd0 /mnt 2>/dev/null && sum=$(sum /mnt 2>/dev/null) && umount /mnt
		nbd-client -d /dev/nbd0 >/dev/null 2>&1
	fi
	echo "IMAGE $name $sum"
done
echo "IMAGES end $(uname -r)"
poweroff -f
`, accept.Script, strings.Join(names, " "), server.port)
	var all bytes.Buffer
	b, err := os.ReadFile(initrd)
	require.NoError(t, err)
	all.Write(b)
	all.Write(make([]byte, -len(b)&3))
	require.NoError(t, guest.AddFile(&all, "init", []byte(script)))
	file := filepath.Join(dir, "initrd")
	require.NoError(t, os.WriteFile(file, all.Bytes(), 0o600))

	var mu sync.Mutex
	got := map[string]string{}
	vmtest.Slots(t, 1)
	m := vmtest.Start(t, vm.Machine{
		Name: "squashfs", User: &vm.User{}, Kernel: kernel.Image, Initrd: file, Cmdline: vm.KernelArgs + " net.ifnames=0", NoReboot: true,
		Line: func(line string) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "IMAGE "); ok {
				name, sum, _ := strings.Cut(rest, " ")
				mu.Lock()
				got[name] = sum
				mu.Unlock()
			}
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), vm.BootTimeout)
	defer cancel()
	line, err := m.Expect(ctx, "IMAGES end ")
	require.NoError(t, err)
	t.Log(line)
	mu.Lock()
	defer mu.Unlock()
	want := accept.Sum()
	for _, i := range images {
		sum, ok := got[i.Name]
		switch {
		case !ok:
			require.Contains(t, i.Name, "padded")
		case i.Taken:
			require.Equal(t, want, sum, i.Name)
		default:
			require.NotEqual(t, want, sum, i.Name)
			require.NotEqual(t, "not attached", sum, i.Name)
		}
	}
}
