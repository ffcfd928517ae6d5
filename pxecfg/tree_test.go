package pxecfg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func testTree() (*Tree, *Machines) {
	m := &Machines{Logger: quiet, List: []Machine{
		{MAC: mac(1), Source: kernel("one")},
		{MAC: mac(2), UUID: wireUUID, Source: kernel("two")},
		{IP: ip(7), Source: kernel("seven")},
	}}
	leases := map[netip.Addr]Client{
		ip(1): {MAC: mac(1), UUID: "b8945908-d6a6-41a9-611d-74a6ab80b83d"},
		ip(2): {MAC: mac(2), UUID: wireUUID, IP: ip(2)},
		ip(3): {MAC: mac(3)},
	}
	return &Tree{
		Source: m,
		Lookup: func(_ context.Context, a netip.Addr) (Client, error) {
			c, ok := leases[a]
			if !ok {
				return Client{}, fs.ErrNotExist
			}
			return c, nil
		},
		Files: fstest.MapFS{
			"one/vmlinuz":   {Data: []byte("kernel one")},
			"static.ipxe":   {Data: []byte("#!ipxe\n")},
			"grub/unifont":  {Data: []byte("font")},
			"sub/deep/file": {Data: []byte("deep")},
		},
		Logger: quiet,
	}, m
}

func open(t testing.TB, tree *Tree, n byte, name string) (string, error) {
	fsys, err := tree.ForAddr(t.Context(), ip(n))
	require.NoError(t, err)
	data, err := fs.ReadFile(fsys, name)
	if err == nil && strings.Contains(name, "grub.cfg") && tree.Source != nil {
		grubSeen(string(data))
	}
	return string(data), err
}

var genericNames = []string{
	"pxelinux.cfg/default", "ltsp/amd64/pxelinux.cfg/default", "boot.ipxe", "x/autoexec.ipxe",
	"grub/grub.cfg", "grub/x86_64-efi/grub.cfg", "grub.cfg",
}

// One name, different machines.
func TestTreeWithLeases(t *testing.T) {
	tree, m := testTree()
	for _, name := range append([]string{
		"pxelinux.cfg/01-02-00-00-00-00-01", "pxelinux.cfg/b8945908-d6a6-41a9-611d-74a6ab80b83d", "pxelinux.cfg/C0000201", "pxelinux.cfg/C0",
		"a/b/pxelinux.cfg/01-02-00-00-00-00-01", "grub/grub.cfg-01-02-00-00-00-00-01", "grub/grub.cfg-02:00:00:00:00:01",
		"grub/grub.cfg-02-00-00-00-00-01", "mac-02-00-00-00-00-01.ipxe", "uuid-085994b8-a6d6-a941-611d-74a6ab80b83d.ipxe",
		"ltsp/my_pxelinux.cfg/default", "grub/grub.cfg-C00002",
	}, genericNames...) {
		text, err := open(t, tree, 1, name)
		require.NoError(t, err, name)
		require.Contains(t, text, "one/vmlinuz", name)
	}
	for _, name := range genericNames {
		text, err := open(t, tree, 2, name)
		require.NoError(t, err, name)
		require.Contains(t, text, "two/vmlinuz", name)
	}
	// Another's names do not exist, nor do one's own with another address type.
	for _, name := range []string{
		"pxelinux.cfg/01-02-00-00-00-00-02", "pxelinux.cfg/" + wireUUID, "pxelinux.cfg/C0000202", "pxelinux.cfg/C1",
		"grub/grub.cfg-02:00:00:00:00:02", "mac-02-00-00-00-00-02.ipxe", "uuid-" + dmiUUID + ".ipxe",
		"pxelinux.cfg/20-02-00-00-00-00-01", "pxelinux.cfg/other", "grub/grub.cfg-2001-db8-0-0-0-0-0-1",
	} {
		_, err := open(t, tree, 1, name)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
	// A lease, but not configured.
	for _, name := range genericNames {
		_, err := open(t, tree, 3, name)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
	require.Len(t, m.Seen(), 1)
	m.Unknown = LocalDisk()
	text, err := open(t, tree, 3, "pxelinux.cfg/01-02-00-00-00-00-03")
	require.NoError(t, err)
	require.Contains(t, text, "LOCALBOOT")
}

// Every name of a client leads to it: what the loaders ask for is what the
// tree has.
func TestTreeHasAllNames(t *testing.T) {
	tree, _ := testTree()
	c := Client{MAC: mac(2), UUID: wireUUID, IP: ip(2)}
	for _, fsys := range []fs.FS{tree.For(t.Context(), c)} {
		for _, n := range append(c.Names(), append(c.GRUBNames(), c.GRUBAliases()...)...) {
			data, err := fs.ReadFile(fsys, path.Join("some/where", n))
			require.NoError(t, err, n)
			require.Contains(t, string(data), "two/vmlinuz")
		}
	}
}

// Without a lease a machine is who the name says, and bare names ask who it is.
func TestTreeWithoutLeases(t *testing.T) {
	tree, m := testTree()
	tree.Lookup = nil
	for _, name := range []string{
		"pxelinux.cfg/01-02-00-00-00-00-02", "pxelinux.cfg/" + wireUUID, "grub/grub.cfg-02:00:00:00:00:02",
		"mac-02-00-00-00-00-02.ipxe", "uuid-" + dmiUUID + ".ipxe",
	} {
		text, err := open(t, tree, 50, name)
		require.NoError(t, err, name)
		require.Contains(t, text, "two/vmlinuz", name)
	}
	for _, name := range []string{"pxelinux.cfg/01-02-00-00-00-00-09", "pxelinux.cfg/C0000250", "pxelinux.cfg/default", "mac-02-00-00-00-00-09.ipxe"} {
		_, err := open(t, tree, 50, name)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
	script, err := open(t, tree, 50, "boot.ipxe")
	require.NoError(t, err)
	require.Contains(t, script, "chain mac-${netX/mac:hexhyp}.ipxe && exit ||\n")
	grub, err := open(t, tree, 50, "grub/grub.cfg")
	require.NoError(t, err)
	require.Contains(t, grub, "configfile '/grub/grub.cfg-'$net_default_mac\n")

	// Who is known by address needs no dispatcher.
	for _, name := range append([]string{"pxelinux.cfg/C0000207", "pxelinux.cfg/C00002"}, genericNames...) {
		text, err := open(t, tree, 7, name)
		require.NoError(t, err, name)
		require.Contains(t, text, "seven/vmlinuz", name)
	}
	_, err = open(t, tree, 7, "pxelinux.cfg/C1")
	require.ErrorIs(t, err, fs.ErrNotExist, "not its address")

	// The fallback comes last: it hides no name that says more.
	m.Unknown = LocalDisk()
	for _, name := range []string{"pxelinux.cfg/b8945908-d6a6-41a9-611d-74a6ab80b83d", "pxelinux.cfg/01-02-00-00-00-00-09", "pxelinux.cfg/C0000250", "pxelinux.cfg/C0", "grub.cfg-02:00:00:00:00:09"} {
		_, err := open(t, tree, 50, name)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
	text, err := open(t, tree, 50, "pxelinux.cfg/default")
	require.NoError(t, err)
	require.Contains(t, text, "LOCALBOOT")
	script, err = open(t, tree, 50, "boot.ipxe")
	require.NoError(t, err)
	require.Less(t, strings.Index(script, "chain mac-"), strings.Index(script, "sanboot"))
	grub, err = open(t, tree, 50, "grub/grub.cfg")
	require.NoError(t, err)
	require.Less(t, strings.Index(grub, "configfile"), strings.Index(grub, "menuentry"))

	tree.BaseURL = "http://192.0.2.100/boot"
	script, err = open(t, tree, 50, "x/boot.ipxe")
	require.NoError(t, err)
	require.Contains(t, script, "chain http://192.0.2.100/boot/x/boot.ipxe?mac=${netX/mac:hexhyp}&uuid=${uuid}&")
}

func TestDispatcherScripts(t *testing.T) {
	tool := need(t, "grub-script-check")[0]
	tree, m := testTree()
	tree.Lookup = nil
	for _, unknown := range []Source{nil, LocalDisk()} {
		m.Unknown = unknown
		text, err := open(t, tree, 50, "boot/it's/grub.cfg")
		require.NoError(t, err)
		grubCheck(t, tool, text)
	}
}

func TestTreePrefix(t *testing.T) {
	tree, _ := testTree()
	text, err := open(t, tree, 1, "one/pxelinux.cfg/default")
	require.NoError(t, err)
	require.Contains(t, text, "LINUX vmlinuz\n")
	text, err = open(t, tree, 2, "one/pxelinux.cfg/default")
	require.NoError(t, err)
	require.Contains(t, text, "LINUX ::two/vmlinuz\n")
}

// A size probe and the read that follows are two openings of the same bytes,
// and an open file does not change.
func TestTreeStable(t *testing.T) {
	tree, _ := testTree()
	var n atomic.Int64
	tree.Source = SourceFunc(func(context.Context, Client) (*Config, error) {
		return kernel(fmt.Sprint("k", n.Add(1))), nil
	})
	fsys := tree.For(t.Context(), Client{MAC: mac(1)})
	f, err := fsys.Open("boot.ipxe")
	require.NoError(t, err)
	require.EqualValues(t, 1, n.Load(), "one question for one file")
	info, err := f.Stat()
	require.NoError(t, err)
	_, err = fsys.Open("boot.ipxe")
	require.NoError(t, err)
	data, err := io.ReadAll(f)
	require.NoError(t, err)
	require.Len(t, data, int(info.Size()))
	require.Contains(t, string(data), "k1/vmlinuz")
	require.NoError(t, f.Close())
	require.Equal(t, "boot.ipxe", info.Name())
	require.True(t, info.ModTime().IsZero())
	require.False(t, info.IsDir())
	_, err = fsys.Open("one/vmlinuz")
	require.NoError(t, err)
	require.EqualValues(t, 2, n.Load(), "no question for a common file")
}

func TestTreeFiles(t *testing.T) {
	tree, _ := testTree()
	require.NoError(t, fstest.TestFS(tree.For(t.Context(), Client{MAC: mac(1), IP: ip(1)}), "one/vmlinuz", "static.ipxe", "grub/unifont", "sub/deep/file"))
	fsys := tree.For(t.Context(), Client{MAC: mac(1)})
	_, err := fsys.Open("../x")
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = fsys.Open("grub/x86_64-efi/command.lst")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = (&Tree{}).For(t.Context(), Client{}).Open("boot.ipxe")
	require.ErrorIs(t, err, fs.ErrNotExist)
	// A rendered file that a machine does not have uncovers the common one.
	tree.Files = fstest.MapFS{"boot.ipxe": {Data: []byte("common")}}
	text, err := open(t, tree, 3, "boot.ipxe")
	require.NoError(t, err)
	require.Equal(t, "common", text)
}

func TestTreeFailures(t *testing.T) {
	tree, _ := testTree()
	down := errors.New("down")
	var failed []string
	tree.Trace = &Trace{Failed: func(_ context.Context, _ Client, name string, err error) {
		failed = append(failed, name+": "+err.Error())
	}}
	tree.Source = SourceFunc(func(_ context.Context, c Client) (*Config, error) {
		switch c.MAC[5] {
		case 1:
			return nil, down
		case 2:
			return one(Entry{Kernel: "k", Root: rootFunc(func() ([]string, error) { return nil, fmt.Errorf("image: %w", fs.ErrNotExist) })}), nil
		}
		return one(Entry{Kernel: "k", Args: []string{"${x}"}}), nil
	})
	_, err := open(t, tree, 1, "boot.ipxe")
	require.ErrorIs(t, err, down)
	_, err = open(t, tree, 2, "boot.ipxe")
	require.ErrorContains(t, err, "image: ")
	_, err = open(t, tree, 3, "boot.ipxe")
	require.ErrorIs(t, err, fs.ErrInvalid)
	require.Len(t, failed, 3)
	// The others' languages can say it.
	_, err = open(t, tree, 3, "pxelinux.cfg/default")
	require.NoError(t, err)
	// If the leases cannot be read, nobody is taken for somebody else.
	tree.Lookup = func(context.Context, netip.Addr) (Client, error) { return Client{}, down }
	_, err = tree.ForAddr(t.Context(), ip(1))
	require.ErrorIs(t, err, down)
}

type rootFunc func() ([]string, error)

func (f rootFunc) Args() ([]string, error) { return f() }

func TestTreeExtra(t *testing.T) {
	tree, _ := testTree()
	tree.Extra = map[string]func(context.Context, Client) ([]byte, error){
		"lts.conf": func(_ context.Context, c Client) ([]byte, error) {
			if len(c.MAC) == 0 {
				return nil, fs.ErrNotExist
			}
			return []byte("HOSTMAC=" + c.MAC.String() + "\n"), nil
		},
		"exact/name": func(context.Context, Client) ([]byte, error) { return []byte("exact"), nil },
		"empty":      func(context.Context, Client) ([]byte, error) { return []byte{}, nil },
	}
	for _, name := range []string{"lts.conf", "ltsp/amd64/lts.conf"} {
		text, err := open(t, tree, 1, name)
		require.NoError(t, err)
		require.Equal(t, "HOSTMAC=02:00:00:00:00:01\n", text)
		_, err = open(t, tree, 50, name)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	_, err := open(t, tree, 1, "exact/name")
	require.NoError(t, err)
	for _, name := range []string{"name", "x/exact/name", "empty"} {
		_, err = open(t, tree, 1, name)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
}

func TestTreeConcurrent(t *testing.T) {
	tree, m := testTree()
	m.Unknown = LocalDisk()
	var rendered atomic.Int64
	tree.Trace = &Trace{Rendered: func(context.Context, Client, string, int64, bool) { rendered.Add(1) }}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			n := byte(i%4 + 1)
			fsys, err := tree.ForAddr(t.Context(), ip(n))
			if err != nil {
				t.Error(err)
				return
			}
			for range 50 {
				data, err := fs.ReadFile(fsys, "boot.ipxe")
				want := map[byte]string{1: "one/vmlinuz", 2: "two/vmlinuz", 3: "sanboot", 4: "chain "}[n]
				if err != nil || !strings.Contains(string(data), want) {
					t.Errorf("machine %d: %v %s", n, err, data)
				}
				m.Seen()
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 32*50, rendered.Load())
}

func BenchmarkTreeOpen(b *testing.B) {
	tree, _ := testTree()
	fsys := tree.For(context.Background(), Client{MAC: mac(1)})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := fsys.Open("pxelinux.cfg/01-02-00-00-00-00-01"); err != nil {
			b.Fatal(err)
		}
	}
}
