package vm

import (
	"io/fs"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestArgs(t *testing.T) {
	t.Setenv("DISKLESS_KVM", "")
	m := Machine{Name: "a,b", Tap: "tap0"}
	args := strings.Join(m.args(files{}), " ")
	require.Contains(t, args, "accel=tcg -cpu qemu64 -smp 1 -m 512 -name a,,b -uuid "+m.SystemUUID())
	require.Contains(t, args, "-netdev tap,id=n0,script=no,downscript=no,ifname=tap0 -device virtio-net-pci,netdev=n0,bootindex=1,mac=52:54:00:")
	require.NotContains(t, args, "romfile", "SeaBIOS needs the card's ROM")
	require.NotContains(t, args, "-no-reboot")

	m = Machine{
		Firmware: UEFI, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Memory: 1024, NoReboot: true, Args: []string{"-S"},
		User: &User{BootFile: "http://10.0.2.2:80/a,b", Hostname: "n1"},
	}
	args = strings.Join(m.args(files{code: "code.fd", vars: "vars.fd"}), " ")
	require.Contains(t, args, "-m 1024 ")
	require.Contains(t, args, "-netdev user,id=n0,bootfile=http://10.0.2.2:80/a,,b,hostname=n1 ")
	require.Contains(t, args, "mac=02:00:00:00:00:01,romfile= ")
	require.Contains(t, args, "unit=0,format=raw,readonly=on,file=code.fd")
	require.Contains(t, args, "unit=1,format=raw,file=vars.fd")
	require.True(t, strings.HasSuffix(args, "-no-reboot -S"), args)
}

func TestIdentity(t *testing.T) {
	a, b := Machine{Name: "node-01"}, Machine{Name: "node-02"}
	require.Equal(t, a.HardwareAddr(), Machine{Name: "node-01"}.HardwareAddr())
	require.NotEqual(t, a.HardwareAddr(), b.HardwareAddr())
	require.NotEqual(t, a.SystemUUID(), b.SystemUUID())
	require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, a.SystemUUID())
	require.Equal(t, "x", Machine{UUID: "x"}.SystemUUID())
}

func TestStartRefuses(t *testing.T) {
	for _, m := range []Machine{
		{},
		{Tap: "t", User: &User{}},
		{Tap: "t", Firmware: UEFI, Client: PlainPXE},
		{Tap: "t", Client: PlainPXE, Kernel: "vmlinuz"},
		{Tap: "t", MAC: net.HardwareAddr{1, 2, 3}},
		{User: &User{BootFile: strings.Repeat("x", 128)}},
	} {
		_, err := Start(t.Context(), m)
		require.ErrorIs(t, err, fs.ErrInvalid, "%+v", m)
	}
}

func TestMissing(t *testing.T) {
	require.Equal(t, []string{"no-such-package"}, Missing("no-such-package"))
	for _, p := range debian {
		require.NotEmpty(t, p.files, p.name)
	}
	require.False(t, pkg{"x", [][]string{{"/no/such/file", "no-such-program"}}}.installed())
	require.False(t, pkg{"x", [][]string{{"/"}, {"/no/such/file"}}}.installed(), "all the lists count")
	require.True(t, pkg{"x", [][]string{{"/no/such/file", "/"}}}.installed(), "one of a list is enough")
}
