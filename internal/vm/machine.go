package vm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"time"
)

// KernelArgs is what a kernel under this package's QEMU needs in addition.
const KernelArgs = "console=ttyS0 no_timer_check"

// BootTimeout is long enough for any boot on a busy host.
const BootTimeout = 240 * time.Second

// Firmware is what a machine starts with.
type Firmware int

// The kinds of firmware.
const (
	BIOS Firmware = iota // SeaBIOS
	UEFI                 // OVMF, without secure boot
)

// String returns "BIOS" or "UEFI".
func (f Firmware) String() string {
	if f == UEFI {
		return "UEFI"
	}
	return "BIOS"
}

// Client is what asks for a boot file.
type Client int

// The boot clients.
const (
	// DefaultClient is iPXE in the network card's ROM under BIOS, and the
	// firmware's own PXE client under UEFI.
	DefaultClient Client = iota
	// PlainPXE, under BIOS, says nothing of iPXE in its user class (option
	// 77), takes next-server and the file name as they are and loads that
	// file over TFTP. It is an iPXE all the same, for want of another ROM,
	// and still sends option 175.
	PlainPXE
)

// Machine describes a virtual machine. It needs a network, Tap or User; the
// zero value of everything else works.
type Machine struct {
	// Name is for messages, and where MAC and UUID come from if not given.
	Name string
	// MAC is the network card's address; nil: 52:54:00 and three bytes made
	// from Name.
	MAC net.HardwareAddr
	// UUID is in the SMBIOS tables, and in DHCP's option 97; "": made from
	// Name.
	UUID     string
	Firmware Firmware
	Client   Client
	// IPv6, under UEFI, has PXE use it alone, in place of IPv4.
	IPv6 bool
	// Memory is in MiB; 0: 512.
	Memory int
	// Tap is the name of a tap interface, from [Lab.Tap].
	Tap string
	// User is QEMU's own network, which needs no privilege.
	User *User
	// Kernel, Initrd and Cmdline boot a kernel without firmware's help; the
	// initramfs still has its network.
	Kernel, Initrd, Cmdline string
	// NoReboot: QEMU ends where the machine would start again.
	NoReboot bool
	// Line, if not nil, is called with each line of the console as it ends,
	// by one goroutine at a time, which waits for it.
	Line func(line string)
	// Args are further arguments of QEMU.
	Args []string
}

// User is the network that QEMU makes up for one machine: DHCP and TFTP by
// QEMU itself on 10.0.2.2, where this host's loopback addresses are, too.
type User struct {
	// BootFile is DHCP's boot file, as in "http://10.0.2.2:8080/boot.ipxe":
	// up to 127 bytes.
	BootFile string
	// TFTP is a directory that QEMU's TFTP server serves; "": none.
	TFTP string
	// Hostname is DHCP's option 12; "": none.
	Hostname string
}

func (m Machine) check() error {
	switch {
	case m.Tap == "" && m.User == nil:
		return fmt.Errorf("%w: no network: set Tap or User", fs.ErrInvalid)
	case m.Tap != "" && m.User != nil:
		return fmt.Errorf("%w: both Tap and User", fs.ErrInvalid)
	case m.Client == PlainPXE && m.Firmware != BIOS:
		return fmt.Errorf("%w: PlainPXE is for BIOS; UEFI's own client is plain already", fs.ErrInvalid)
	case m.Client == PlainPXE && m.Kernel != "":
		return fmt.Errorf("%w: PlainPXE and a kernel", fs.ErrInvalid)
	case m.MAC != nil && len(m.MAC) != 6:
		return fmt.Errorf("%w: MAC address %s", fs.ErrInvalid, m.MAC)
	case m.User != nil && len(m.User.BootFile) > 127:
		return fmt.Errorf("%w: BootFile has %d bytes, DHCP takes 127", fs.ErrInvalid, len(m.User.BootFile))
	}
	return nil
}

// HardwareAddr returns the address that the machine's network card has.
func (m Machine) HardwareAddr() net.HardwareAddr {
	if m.MAC != nil {
		return m.MAC
	}
	sum := sha256.Sum256([]byte("mac " + m.Name))
	return net.HardwareAddr{0x52, 0x54, 0x00, sum[0], sum[1], sum[2]}
}

// SystemUUID returns the UUID in the machine's SMBIOS tables.
func (m Machine) SystemUUID() string {
	if m.UUID != "" {
		return m.UUID
	}
	u := sha256.Sum256([]byte("uuid " + m.Name))
	u[6] = u[6]&0x0f | 0x80 // RFC 9562 section 5.8: made our own way
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// files is what a machine reads that is not its own.
type files struct {
	code, vars string // UEFI: firmware, and this machine's own variables
	ipxe, pose string // PlainPXE: iPXE as a kernel, and its script
}

// args returns the arguments of QEMU. Monitor and console are the inherited
// descriptors 3 and 4.
func (m Machine) args(f files) []string {
	memory := m.Memory
	if memory == 0 {
		memory = 512
	}
	accel, cpu := "tcg", "qemu64" // "max" costs half as much again
	if useKVM() {
		accel, cpu = "kvm", "host"
	}
	a := []string{
		"-no-user-config", "-nodefaults", "-display", "none",
		// graphics=off: SeaBIOS and what it loads write to the serial port.
		"-machine", "pc,graphics=off,accel=" + accel, "-cpu", cpu, "-smp", "1", "-m", strconv.Itoa(memory),
		"-name", comma(m.Name), "-uuid", m.SystemUUID(),
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
		"-chardev", "socket,id=console,fd=4", "-serial", "chardev:console",
		"-device", "virtio-rng-pci",
	}
	card := "virtio-net-pci,netdev=n0,bootindex=1,mac=" + m.HardwareAddr().String()
	if m.Firmware == UEFI {
		card += ",romfile=" // or iPXE would come before the firmware's client
		a = append(a,
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+comma(f.code),
			"-drive", "if=pflash,unit=1,format=raw,file="+comma(f.vars),
		)
		without := "IPv6"
		if m.IPv6 {
			without = "IPv4"
		}
		a = append(a, "-fw_cfg", "name=opt/org.tianocore/"+without+"PXESupport,string=n")
	}
	if m.Tap != "" {
		a = append(a, "-netdev", "tap,id=n0,script=no,downscript=no,ifname="+comma(m.Tap))
	} else {
		user := "user,id=n0"
		for _, o := range [][2]string{{"bootfile", m.User.BootFile}, {"tftp", m.User.TFTP}, {"hostname", m.User.Hostname}} {
			if o[1] != "" {
				user += "," + o[0] + "=" + comma(o[1])
			}
		}
		a = append(a, "-netdev", user)
	}
	a = append(a, "-device", card)
	switch {
	case m.Kernel != "":
		a = append(a, "-kernel", m.Kernel, "-append", m.Cmdline)
		if m.Initrd != "" {
			a = append(a, "-initrd", m.Initrd)
		}
	case m.Client == PlainPXE:
		a = append(a, "-kernel", f.ipxe, "-initrd", f.pose)
	}
	if m.NoReboot {
		a = append(a, "-no-reboot")
	}
	return append(a, m.Args...)
}

// comma doubles the commas of a value, as QEMU's option lists want it.
func comma(s string) string {
	var b []byte
	for i := range len(s) {
		if b = append(b, s[i]); s[i] == ',' {
			b = append(b, ',')
		}
	}
	return string(b)
}

// useKVM: see the package documentation.
func useKVM() bool {
	if os.Getenv("DISKLESS_KVM") != "1" {
		return false
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err == nil {
		err = f.Close()
	}
	return err == nil
}

// errNoQEMU is for a machine without QEMU.
var errNoQEMU = errors.New("qemu-system-x86_64 not found; install the package qemu-system-x86")
