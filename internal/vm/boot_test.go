package vm_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// peers adds the boots that show nothing new of the rig on an ordinary run.
var peers = flag.Bool("peers", false, "boot in every way that the rig knows, from other people's servers")

func TestMain(m *testing.M) {
	flag.Parse()
	if *peers {
		vmtest.Main(m, guest.InitramfsTools, guest.Dracut)
	}
	vmtest.Main(m)
}

// stack is a boot server made of other people's programs.
type stack struct {
	tftp, images, marker string
	http                 string
	args                 string // kernel arguments for the NBD root
}

func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	if cmd.Err != nil {
		cmd = exec.Command("/usr/sbin/"+name, args...)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// background runs a server until the test's end.
func background(t *testing.T, name string, args ...string) {
	cmd := command(name, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", name, said.String())
		}
	})
}

func copyFile(t *testing.T, from, to string) {
	data, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, data, 0o644))
}

// newStack makes the images and serves a machine's files over TFTP and HTTP,
// at addr.
func newStack(t *testing.T, host string) *stack {
	kernel, initrd := vmtest.Guest(t)
	s := &stack{tftp: t.TempDir(), images: t.TempDir(), marker: fmt.Sprintf("marker-%d", time.Now().UnixNano())}
	copyFile(t, kernel.Image, filepath.Join(s.tftp, "vmlinuz"))
	copyFile(t, initrd, filepath.Join(s.tftp, "initrd"))
	tree, err := guest.Root(s.marker)
	require.NoError(t, err)
	require.NoError(t, guest.WriteTree(filepath.Join(s.images, "tree"), tree))

	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	require.NoError(t, err)
	server := &http.Server{Handler: http.FileServerFS(os.DirFS(s.tftp))}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	s.http = l.Addr().String()
	return s
}

// stock has the machine boot a distribution's own initramfs.
func (s *stack) stock(t *testing.T, g guest.Generator) {
	stock := vmtest.Stock(t, g)
	copyFile(t, stock.Image, filepath.Join(s.tftp, "vmlinuz"))
	copyFile(t, stock.Initrd, filepath.Join(s.tftp, "initrd"))
}

func (s *stack) squashfs(t *testing.T) string {
	vmtest.Need(t, "squashfs-tools")
	image := filepath.Join(s.images, "root.squashfs")
	out, err := command("mksquashfs", filepath.Join(s.images, "tree"), image, "-noappend", "-all-root", "-quiet", "-no-progress").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return image
}

// export serves an image with nbdkit on a port of this host, "0" for any, and
// returns the port.
func (s *stack) export(t *testing.T, host, port string, options ...string) string {
	vmtest.Need(t, "nbdkit")
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	require.NoError(t, err)
	_, port, err = net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	l.Close()
	background(t, "nbdkit", append([]string{"-f", "-i", host, "-p", port}, options...)...)
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", net.JoinHostPort(host, port))
		if err == nil {
			c.Close()
		}
		return err == nil
	}, 30*time.Second, 20*time.Millisecond)
	return port
}

// dnsmasq answers DHCP and TFTP in the lab.
func (s *stack) dnsmasq(t *testing.T, lab *vm.Lab, options ...string) {
	vmtest.Need(t, "dnsmasq-base")
	prefix := strings.TrimSuffix(lab.Addr().String(), ".1")
	background(t, "dnsmasq", append([]string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-facility=-", "--log-dhcp",
		"--interface=" + lab.Name(), "--bind-interfaces", "--leasefile-ro", "--no-ping",
		"--dhcp-range=" + prefix + ".50," + prefix + ".99,1h",
		"--enable-tftp", "--tftp-root=" + s.tftp,
		"--dhcp-userclass=set:ipxe,iPXE",
		"--dhcp-option-force=tag:ipxe,encap:175,176,1b", // no wait for a second server
	}, options...)...)
}

func ipxeScript(http, args string) string {
	return fmt.Sprintf("#!ipxe\nkernel http://%s/vmlinuz initrd=initrd %s %s\ninitrd http://%s/initrd\nboot\n", http, vm.KernelArgs, args, http)
}

func write(t *testing.T, file, content string) {
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
}

const exportName = "debian12~0a1b2c3d4e5f@node-01.6f3k9a-x7Qm2p"

// TestBoot is the rig's own test: from a card's ROM to userland, in a network
// of its own, and what the guest says then.
func TestBoot(t *testing.T) {
	type cell struct {
		name    string
		machine vm.Machine
		boot    string // the first file that the firmware is given
		prepare func(t *testing.T, s *stack)
	}
	script := func(t *testing.T, s *stack) {
		write(t, filepath.Join(s.tftp, "boot.ipxe"), ipxeScript(s.http, s.args))
	}
	loader := func(from, to string) func(t *testing.T, s *stack) {
		return func(t *testing.T, s *stack) {
			copyFile(t, from, filepath.Join(s.tftp, to))
			script(t, s)
		}
	}
	cells := []cell{{"BIOS iPXE", vm.Machine{}, "", script}}
	if *peers {
		cells = append(cells,
			cell{"BIOS plain PXE", vm.Machine{Client: vm.PlainPXE}, "undionly.kpxe", loader("/usr/lib/ipxe/undionly.kpxe", "undionly.kpxe")},
			cell{"UEFI iPXE", vm.Machine{Firmware: vm.UEFI}, "snponly.efi", loader("/usr/lib/ipxe/snponly.efi", "snponly.efi")},
			cell{"BIOS PXELINUX", vm.Machine{}, "pxelinux.0", func(t *testing.T, s *stack) {
				copyFile(t, "/usr/lib/PXELINUX/pxelinux.0", filepath.Join(s.tftp, "pxelinux.0"))
				copyFile(t, "/usr/lib/syslinux/modules/bios/ldlinux.c32", filepath.Join(s.tftp, "ldlinux.c32"))
				write(t, filepath.Join(s.tftp, "pxelinux.cfg", "default"), fmt.Sprintf(
					"DEFAULT linux\nLABEL linux\nKERNEL vmlinuz\nAPPEND initrd=initrd %s %s\nIPAPPEND 2\n", vm.KernelArgs, s.args))
			}},
			cell{"UEFI GRUB", vm.Machine{Firmware: vm.UEFI}, "grubnetx64.efi", func(t *testing.T, s *stack) {
				copyFile(t, "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", filepath.Join(s.tftp, "grubnetx64.efi"))
				write(t, filepath.Join(s.tftp, "grub", "grub.cfg"), fmt.Sprintf(
					"set timeout=0\nmenuentry x {\nlinux /vmlinuz %s %s\ninitrd /initrd\n}\n", vm.KernelArgs, s.args))
			}},
		)
	}
	if *peers {
		cells = append(cells, cell{"BIOS iPXE initramfs-tools", vm.Machine{Memory: 1024}, "", func(t *testing.T, s *stack) {
			s.stock(t, guest.InitramfsTools)
			script(t, s)
		}})
	}
	if *peers {
		t.Run("BIOS iPXE dracut", dracut)
	}
	for i, c := range cells {
		t.Run(c.name, func(t *testing.T) {
			lab := vmtest.Lab(t)
			host := lab.Addr().String()
			s := newStack(t, host)
			port := s.export(t, host, "0", "-r", "file", s.squashfs(t))
			s.args = fmt.Sprintf("root=/dev/nbd0 nbdroot=%s:%s/%s ip=dhcp ro overlayroot=tmpfs", host, port, exportName)
			c.prepare(t, s)

			c.machine.Name = fmt.Sprintf("node-%02d", i+1)
			mac := c.machine.HardwareAddr().String()
			ip := strings.TrimSuffix(host, "1") + fmt.Sprint(20+i)
			options := []string{"--dhcp-host=" + mac + "," + ip + "," + c.machine.Name}
			if c.boot == "" || strings.HasPrefix(c.boot, "undionly") || strings.HasPrefix(c.boot, "snponly") {
				options = append(options, "--dhcp-boot=tag:ipxe,http://"+s.http+"/boot.ipxe")
				if c.boot != "" {
					options = append(options, "--dhcp-boot=tag:!ipxe,"+c.boot)
				}
			} else {
				options = append(options, "--dhcp-boot="+c.boot)
			}
			s.dnsmasq(t, lab, options...)

			vmtest.Slots(t, 1)
			c.machine.Tap = vmtest.Tap(t, lab)
			m := vmtest.Start(t, c.machine)
			r := vmtest.Ready(t, m)
			require.Equal(t, "overlay", r.Root)
			require.Equal(t, "squashfs", r.Base)
			require.Equal(t, "ro", r.BaseMode)
			require.Equal(t, exportName, r.Export)
			require.Equal(t, c.machine.Name, r.Hostname)
			require.Equal(t, mac, r.MAC)
			require.Equal(t, ip+"/24", r.IP)
			require.Equal(t, s.marker, r.Marker)
			require.Regexp(t, `^ok \d+$`, r.Sums)
			require.Equal(t, "ok", r.Write)

			shell := &guest.Shell{Console: m}
			require.Equal(t, "hello\n", vmtest.Do(t, shell, "exec echo hello"))
			require.Equal(t, m.Machine().SystemUUID()+"\n", vmtest.Do(t, shell, "read /sys/class/dmi/id/product_uuid"))
			_, err := shell.Do(t.Context(), "read absent")
			require.ErrorIs(t, err, guest.ErrCommand)
			vmtest.Do(t, shell, "poweroff")
			require.NoError(t, m.Wait())
			_, err = m.Expect(t.Context(), "anything")
			require.ErrorIs(t, err, vm.ErrStopped)
		})
	}
}

// dracut boots dracut's initramfs, which has no overlay, and takes an export by
// name from the usual port only.
func dracut(t *testing.T) {
	lab := vmtest.Lab(t)
	host := lab.Addr().String()
	s := newStack(t, host)
	s.stock(t, guest.Dracut)
	s.export(t, host, "10809", "-r", "file", s.squashfs(t))
	write(t, filepath.Join(s.tftp, "boot.ipxe"), ipxeScript(s.http,
		fmt.Sprintf("root=nbd:%s:%s:squashfs:ro ip=dhcp rd.neednet=1", host, exportName)))
	m := vm.Machine{Name: "dracut", Memory: 1024, Tap: vmtest.Tap(t, lab)}
	s.dnsmasq(t, lab, "--dhcp-host="+m.HardwareAddr().String()+",node-dracut", "--dhcp-boot=tag:ipxe,http://"+s.http+"/boot.ipxe")
	vmtest.Slots(t, 1)
	r := vmtest.Ready(t, vmtest.Start(t, m))
	require.Equal(t, "squashfs", r.Root)
	require.Equal(t, exportName, r.Export)
	require.Equal(t, "node-dracut", r.Hostname)
	require.Equal(t, s.marker, r.Marker)
	require.Equal(t, "readonly", r.Write)
}

// TestUserNetwork boots without any privilege, from a writable root, and then
// again after the power went: what was synced is there, bytes that changed
// behind the guest's back are noticed, and the reset button works.
func TestUserNetwork(t *testing.T) {
	s := newStack(t, "127.0.0.1")
	image := filepath.Join(s.images, "root.ext4")
	require.NoError(t, guest.Ext4(t.Context(), filepath.Join(s.images, "tree"), image, 32<<20))
	port := s.export(t, "127.0.0.1", "0", "file", image)
	_, httpPort, _ := net.SplitHostPort(s.http)
	gateway := "10.0.2.2:"
	write(t, filepath.Join(s.tftp, "boot.ipxe"), ipxeScript(gateway+httpPort,
		"root=/dev/nbd0 nbdroot=10.0.2.2:"+port+"/disk rw"))
	vmtest.Slots(t, 1)
	machine := vm.Machine{Name: "user", User: &vm.User{
		BootFile: "http://" + gateway + httpPort + "/boot.ipxe", Hostname: "node-user",
	}}
	m := vmtest.Start(t, machine)
	r := vmtest.Ready(t, m)
	require.Equal(t, "ext4", r.Root)
	require.Equal(t, "rw", r.Mode)
	require.Equal(t, "node-user", r.Hostname)
	require.Equal(t, "ok", r.Write)
	require.Empty(t, r.Nonce)
	vmtest.Do(t, &guest.Shell{Console: m}, "write nonce "+s.marker)
	m.Kill()
	require.NoError(t, m.Wait())

	// One wrong byte in the image does not go unseen.
	flip(t, image, filepath.Join(s.images, "tree", "srv/data/1048576"))
	m = vmtest.Start(t, machine)
	r = vmtest.Ready(t, m)
	require.Equal(t, s.marker, r.Nonce)
	require.Regexp(t, `^bad of \d+: /srv/data/1048576`, r.Sums)

	flip(t, image, filepath.Join(s.images, "tree", "srv/data/0131073"))
	require.NoError(t, m.Reset(t.Context()))
	r = vmtest.Ready(t, m)
	require.Equal(t, s.marker, r.Nonce)
	require.Regexp(t, `^bad of \d+: /srv/data/0131073 /srv/data/1048576`, r.Sums)
}

// flip changes a byte of a file's content where it lies in an image.
func flip(t *testing.T, image, file string) {
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	data, err := os.ReadFile(image)
	require.NoError(t, err)
	at := bytes.Index(data, content[:4096])
	require.Positive(t, at)
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte{data[at] ^ 1}, int64(at))
	require.NoError(t, err)
}

// TestNoServer shows that a boot that fails is reported as what it is, and at
// once.
func TestNoServer(t *testing.T) {
	kernel, initrd := vmtest.Guest(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	vmtest.Slots(t, 1)
	m := vmtest.Start(t, vm.Machine{
		Name: "lost", User: &vm.User{}, Kernel: kernel.Image, Initrd: initrd,
		Cmdline: vm.KernelArgs + " root=/dev/nbd0 nbdroot=10.0.2.2:" + port + "/disk",
	})
	ctx, cancel := context.WithTimeout(t.Context(), vm.BootTimeout)
	defer cancel()
	_, err = guest.Ready(ctx, m)
	require.ErrorContains(t, err, "the initramfs gave up: nbd-client could not attach export disk")
	require.NoError(t, m.Wait())
	_, err = m.Expect(ctx, "^DISKLESS ready$")
	require.ErrorIs(t, err, vm.ErrStopped)
}
