package boottest

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
	"github.com/seed-3ec230fa/diskless/ltsconf/initrd"
	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/squash"
)

// BenchmarkAddon boots a minimal Debian from a writable root over NBD, without
// an add-on, with an empty one and with the settings of a node, and from an
// image that needs modules: each once a round, since one boot differs from the
// next by more than what is measured. The figures are medians of the machine's
// seconds:
//
//	NAME-initramfs-s   from the initramfs's first program to systemd
//	NAME-system-s      from there until all services are up
//	NAME-addon-s       from the mounted root to the switch to it: part of the first
//	NAME-added-s       what both are longer than without (Image reads another
//	                   kind of file system besides)
//	NAME-addon-B       the archive, without modules
//
// Counted are instructions, of two nanoseconds each, and so it matters little
// what else the host does; but what emulation takes long for counts as little
// as anything else.
//
//	go test ./internal/boottest -run '^$' -bench Addon/Timed -benchtime 5x
func BenchmarkAddon(b *testing.B) {
	debian := vmtest.Debian(b)
	modules := debianModules(b, debian.SquashFS, debian.Image)
	settings := []initrd.Setting{
		{Name: "HOSTS_01_API", Value: "10.9.8.7 api.cluster"}, {Name: "FSTAB_01_SCRATCH", Value: "tmpfs /srv/scratch tmpfs size=1M,mode=0700 0 0"},
		{Name: "CRONTAB_01", Value: "* * * * * root true"}, {Name: "MODULE_01", Value: "dummy numdummies=2"}, {Name: "DNS_SERVER", Value: "10.9.8.1"},
		{Name: "TIMEZONE", Value: "Europe/Berlin"}, {Name: "LANG", Value: "C.UTF-8"}, {Name: "CONSOLE_KEYMAP", Value: "de"},
		{Name: "PREINIT_01", Value: "passwd -d root"}, {Name: "PREINIT_02", Value: "echo here >/run/here"},
		{Name: "RCFILE_01", Value: "sysctl -w net.ipv4.ip_forward=1"},
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	server := &nbd.Server{Handler: nbd.Exports{"squashfs": nbd.FileServer(debian.SquashFS), "ext4": nbd.HandlerFunc(func(context.Context, *nbd.Request) (nbd.Device, error) {
		base, err := nbd.OpenFile(debian.Ext4)
		if err != nil {
			return nil, err
		}
		return nbd.NewOverlay(base), nil
	})}}
	go func() { _ = server.Serve(ln) }() // ends with Close
	b.Cleanup(func() { _ = server.Close() })
	web, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	reports := make(chan string, 1)
	hs := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reports <- r.FormValue("began") + " " + r.FormValue("ended")
	})}
	go func() { _ = hs.Serve(web) }() // ends with Close
	b.Cleanup(func() { _ = hs.Close() })
	inside := func(ln net.Listener) string { return strings.Replace(ln.Addr().String(), "127.0.0.1", "10.0.2.2", 1) }

	variants := []*variant{
		{name: "None", export: "ext4", without: true},
		{name: "Empty", export: "ext4"},
		{name: "Node", export: "ext4", settings: settings},
		{name: "Image", export: "squashfs", settings: settings, modules: modules},
	}
	stock, err := os.ReadFile(debian.Initrd)
	require.NoError(b, err)
	dir := b.TempDir()
	for _, v := range variants {
		o := &initrd.Options{Hostname: "node01", MachineID: strings.Repeat("0a", 16), Report: "http://" + inside(web) + "/up"}
		small, err := initrd.Build(v.settings, nil, o)
		require.NoError(b, err)
		archive, err := initrd.Build(v.settings, v.modules, o)
		require.NoError(b, err)
		if v.without {
			small, archive = nil, nil
		}
		v.size = len(small)
		mode := "rw"
		if v.export == "squashfs" { // which cannot be opened so
			mode = "ro"
		}
		both := filepath.Join(dir, v.name)
		// The kernel finds an archive at a multiple of four.
		require.NoError(b, os.WriteFile(both, append(append(stock[:len(stock):len(stock)], make([]byte, -len(stock)&3)...), archive...), 0o600))
		v.machine = vm.Machine{
			Name: "node01", User: &vm.User{Hostname: "node01"}, Kernel: debian.Image, Initrd: both, Memory: 768,
			// With an address: klibc's DHCP client sometimes waits for ten seconds.
			Cmdline: vm.KernelArgs + " " + patient + " loglevel=7 systemd.log_target=kmsg printk.devkmsg=on root=/dev/nbd0 nbdroot=" + inside(ln) + "/" + v.export +
				" ip=10.0.2.15::10.0.2.2:255.255.255.0:node01::off " + mode,
		}
	}
	for _, test := range []struct {
		name string
		args []string
	}{{"Timed", nil}, {"Counted", []string{"-icount", "shift=1"}}} {
		b.Run(test.name, func(b *testing.B) {
			b.ReportMetric(0, "ns/op") // it says nothing
			vmtest.Slots(b, 1)
			for _, v := range variants {
				v.times = [4][]float64{}
			}
			for range b.N {
				for _, v := range variants {
					v.machine.Args = test.args
					for i, t := range measure(b, v.machine, reports, v.without) {
						v.times[i] = append(v.times[i], t)
					}
				}
			}
			for _, v := range variants {
				for i, what := range []string{"initramfs", "system", "addon"} {
					b.ReportMetric(median(v.times[i]), v.name+"-"+what+"-s")
				}
				b.ReportMetric(median(v.times[3])-median(variants[0].times[3]), v.name+"-added-s")
				b.ReportMetric(float64(v.size), v.name+"-addon-B")
			}
		})
	}
}

// variant is a machine that is measured.
type variant struct {
	name, export string
	settings     []initrd.Setting
	modules      initrd.Modules
	without      bool

	machine vm.Machine
	size    int
	times   [4][]float64 // as measure returns them
}

func median(values []float64) float64 {
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// measure boots once. The times are those in the initramfs, of the system, of
// the add-on's main part, and the sum of the first two.
func measure(b *testing.B, m vm.Machine, reports <-chan string, without bool) (times [4]float64) {
	b.Helper()
	r := vmtest.Start(b, m)
	defer r.Kill()
	ctx, cancel := context.WithTimeout(b.Context(), 2*vm.BootTimeout)
	defer cancel()
	at := func(pattern string) float64 {
		line, err := r.Expect(ctx, pattern)
		require.NoError(b, err)
		return seconds(b, regexp.MustCompile(`^\[ *([\d.]+)\]`).FindStringSubmatch(line)[1])
	}
	began := at(`^\[ *[\d.]+\] Run /init as init process`)
	systemd := at(`^\[ *[\d.]+\] systemd\[1\]: systemd \d+.* running in system mode`)
	up := at(`^\[ *[\d.]+\] systemd\[1\]: Startup finished`)
	times = [4]float64{systemd - began, up - systemd, 0, up - began}
	if !without {
		select {
		case report := <-reports:
			from, to, _ := strings.Cut(report, " ")
			times[2] = seconds(b, to) - seconds(b, from)
		case <-ctx.Done():
			b.Fatal("no report")
		}
	}
	return times
}

func seconds(b *testing.B, text string) float64 {
	b.Helper()
	s, err := strconv.ParseFloat(text, 64)
	require.NoError(b, err)
	return s
}

// debianModules are those that the image needs in addition to the initramfs's.
func debianModules(b *testing.B, image, kernel string) initrd.Modules {
	b.Helper()
	data, err := os.ReadFile(kernel)
	require.NoError(b, err)
	version, err := initrd.KernelVersion(strings.NewReader(string(data)))
	require.NoError(b, err)
	f, err := os.Open(image)
	require.NoError(b, err)
	defer f.Close()
	tree, err := squash.Open(f)
	require.NoError(b, err)
	modules, err := initrd.ReadModules(tree, version, initrd.DefaultModules()...)
	require.NoError(b, err)
	return modules
}
