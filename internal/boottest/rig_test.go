package boottest

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/tftp"
)

// rig is a network with servers that a test has put together itself, where a
// [site] runs what the binary runs. Fields are set before serve. Every name
// that a machine asks for is noted, also those that are not there.
type rig struct {
	t      *testing.T
	lab    *vm.Lab
	dir    string
	marker string // in the image

	pool  dhcp.Pool
	rules dhcp.BootRules
	reply func(next dhcp.Handler) dhcp.Handler // changes replies; may be nil
	tree  pxecfg.Tree
	files []tftp.Mount // what tree.Files is made of

	mu      sync.Mutex
	options map[asked]options
	asked   []asked
}

// asked is a name that somebody asked for.
type asked struct {
	peer    netip.Addr
	name    string
	missing bool
}

// options are what a loader has negotiated for a file: blksize and windowsize.
type options struct{ block, window int }

// newRig makes a network, the files vmlinuz and initrd.img, and an image
// demo.squashfs, which is exported and is a file too.
func newRig(t *testing.T) *rig {
	kernel, initrd := vmtest.Guest(t)
	return newRigWith(t, kernel.Image, initrd)
}

func newRigWith(t *testing.T, kernel, initrd string) *rig {
	r := &rig{t: t, lab: vmtest.Lab(t), dir: t.TempDir(), marker: random(), options: make(map[asked]options)}
	for from, to := range map[string]string{kernel: "/vmlinuz", initrd: "/initrd.img"} {
		data, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(r.dir+to, data, 0o644))
	}
	tree, err := guest.Root(r.marker)
	require.NoError(t, err)
	require.NoError(t, squash.BuildFile(t.Context(), r.dir+"/demo.squashfs", squash.FromFS(tree), nil))
	r.pool = dhcp.Pool{Prefix: r.lab.Network().Masked(), ServerID: r.lab.Addr()}
	r.mount("", r.dir)
	return r
}

// mount shows a directory in the boot tree.
func (r *rig) mount(path, dir string) {
	d, err := tftp.Dir(dir, nil)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = d.Close() })
	r.files = append(r.files, tftp.Mount{Path: path, FS: d})
}

// addr is the address in the network that ends in n.
func (r *rig) addr(n byte) netip.Addr {
	b := r.lab.Addr().As4()
	b[3] = n
	return netip.AddrFrom4(b)
}

// add makes a machine at an address, and returns what there is to know of it
// before it has asked for anything.
func (r *rig) add(m vm.Machine, last byte) pxecfg.Client {
	addr := r.addr(last)
	r.pool.Reservations = append(r.pool.Reservations,
		dhcp.Reservation{HardwareAddr: m.HardwareAddr(), Addr: addr, Hostname: m.Name})
	return pxecfg.Client{UUID: pxecfg.SwapUUID(m.SystemUUID()), MAC: m.HardwareAddr(), IP: addr, Hostname: m.Name}
}

// live boots the image over NBD with an overlay in memory, with further
// arguments.
func (r *rig) live(args ...string) *pxecfg.Config {
	return &pxecfg.Config{Entries: []pxecfg.Entry{{
		Label: "live", Kernel: "vmlinuz", Initrd: []string{"initrd.img"},
		Root: pxecfg.NBDInitramfsTools{Server: r.lab.Addr(), Export: "demo", ReadOnly: true, Overlay: "tmpfs"},
		Args: append(strings.Fields(vm.KernelArgs), args...),
	}}}
}

// serve runs DHCP, TFTP, HTTP and NBD until the test's end.
func (r *rig) serve() {
	t, addr := r.t, r.lab.Addr().String()
	r.tree.Files = tftp.Union(r.files...)
	r.tree.Trace = &pxecfg.Trace{Sent: func(_ context.Context, s pxecfg.Sent) {
		r.note(s.Peer, s.Name, s.Status == http.StatusNotFound)
	}}
	var handler dhcp.Handler = &dhcp.BootPolicy{Next: &r.pool, Boot: r.rules.Boot}
	if r.reply != nil {
		handler = r.reply(handler)
	}
	ds := &dhcp.Server{Interfaces: []string{r.lab.Name()}, Handler: handler}
	ts := &tftp.Server{
		Handler: tftp.FSFunc(func(ctx context.Context, q *tftp.Request) (fs.FS, error) { return r.tree.ForAddr(ctx, q.Peer.Addr()) }),
		Trace: &tftp.Trace{Done: func(q *tftp.Request, res tftp.Result) {
			if !res.Probe {
				r.mu.Lock()
				r.options[asked{peer: q.Peer.Addr(), name: q.Name}] = options{res.BlockSize, res.WindowSize}
				r.mu.Unlock()
				r.note(q.Peer.Addr(), q.Name, errors.Is(res.Err, fs.ErrNotExist))
			}
		}},
	}
	hs := &http.Server{Handler: &r.tree}
	ns := &nbd.Server{Handler: nbd.Exports{"demo": nbd.FileServer(r.dir + "/demo.squashfs")}}

	dc, err := dhcp.Listen("", r.lab.Name())
	require.NoError(t, err)
	tc, err := net.ListenPacket("udp4", addr+":69")
	require.NoError(t, err)
	hl, err := net.Listen("tcp4", addr+":80")
	require.NoError(t, err)
	nl, err := net.Listen("tcp4", addr+":10809")
	require.NoError(t, err)
	var running sync.WaitGroup
	for _, serve := range []func() error{
		func() error { return ds.Serve(dc) }, func() error { return ts.Serve(tc) },
		func() error { return hs.Serve(hl) }, func() error { return ns.Serve(nl) },
	} {
		running.Go(func() { _ = serve() })
	}
	t.Cleanup(func() {
		_, _, _, _ = ds.Close(), ts.Close(), hs.Close(), ns.Close()
		running.Wait()
		if t.Failed() {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, a := range r.asked {
				t.Logf("%s asked for %s, missing: %v", a.peer, a.name, a.missing)
			}
		}
	})
}

func (r *rig) note(peer netip.Addr, name string, missing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, asked{peer, name, missing})
}

// names is what a machine has asked for, in order, of the names that contain a
// text, and which of those were there. A name repeated at once counts once: on
// a busy host a loader sends its datagram again.
func (r *rig) names(peer netip.Addr, part string) (all, found []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.asked {
		if a.peer != peer || !strings.Contains(a.name, part) {
			continue
		}
		all = append(all, a.name)
		if !a.missing {
			found = append(found, a.name)
		}
	}
	return slices.Compact(all), slices.Compact(found)
}

// negotiated is how a machine got a file by TFTP.
func (r *rig) negotiated(peer netip.Addr, name string) options {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.options[asked{peer: peer, name: name}]
}

// start switches a machine on.
func (r *rig) start(m vm.Machine) *vm.Running {
	m.Tap = vmtest.Tap(r.t, r.lab)
	return vmtest.Start(r.t, m)
}

// requireGuest asserts that userland came up from the image that was made for
// this test, under an overlay.
func (r *rig) requireGuest(g *guest.Report, c pxecfg.Client) {
	r.t.Helper()
	r.requireImage(g, c)
	require.Equal(r.t, []string{"overlay", "squashfs", "ok"}, []string{g.Root, g.Base, g.Write})
}

func (r *rig) requireImage(g *guest.Report, c pxecfg.Client) {
	r.t.Helper()
	require.Equal(r.t, []string{c.Hostname, c.MAC.String(), c.IP.String() + "/24"}, []string{g.Hostname, g.MAC, g.IP})
	require.Equal(r.t, r.marker, g.Marker)
	require.Regexp(r.t, `^ok \d+$`, g.Sums)
}

// under is names below a directory.
func under(dir string, names []string) []string {
	names = slices.Clone(names)
	for i := range names {
		names[i] = dir + names[i]
	}
	return names
}
