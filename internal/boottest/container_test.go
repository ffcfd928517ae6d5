package boottest

import (
	"bytes"
	"io"
	"os"
	"path"
	"testing"
	"testing/fstest"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/container"
	"github.com/seed-3ec230fa/diskless/squash/netroot"
)

// A node from a container image: the root is the merge of its layers, prepared
// for machines without a disk, and the kernel and Debian's own initramfs are
// taken out of it.
func TestContainerImage(t *testing.T) {
	stock := vmtest.Stock(t, guest.InitramfsTools)
	m, line := machine("node01", "entry: node")
	s := makeSite(t)

	kernel, err := os.ReadFile(stock.Image)
	require.NoError(t, err)
	initrd, err := os.ReadFile(stock.Initrd)
	require.NoError(t, err)
	former, err := guest.Root(random())
	require.NoError(t, err)
	root, err := guest.Root(s.marker)
	require.NoError(t, err)
	archive := s.path("node.tar")
	writeContainer(t, archive,
		// What FROM has, and what it leaves to those who boot it.
		squash.FromFS(former),
		squash.FromFS(fstest.MapFS{
			".dockerenv": {}, "etc/machine-id": {Data: []byte("0123456789abcdef0123456789abcdef\n")}, "etc/ssh/ssh_host_rsa_key": {Data: []byte("secret")},
			"etc/fstab": {Data: []byte("UUID=1-2 / ext4 defaults 0 1\n")}, "boot/vmlinuz-6.9.9-1-amd64": {Data: []byte("an older one")},
		}),
		squash.FromFS(root),
		squash.FromFS(fstest.MapFS{"boot/vmlinuz-6.10.1-1-amd64": {Data: kernel}, "boot/initrd.img-6.10.1-1-amd64": {Data: initrd}}),
	)

	image, err := container.Open(archive, &container.Options{Platform: "linux/amd64"})
	require.NoError(t, err)
	defer image.Close()
	findings, err := netroot.Check(t.Context(), image, nil)
	require.NoError(t, err)
	names := map[string]bool{}
	for _, f := range findings {
		require.NotEqual(t, netroot.Missing, f.Severity, "%+v", f)
		names[f.Name] = true
	}
	require.Equal(t, map[string]bool{"container": true, "machine-id": true, "host-keys": true, "fstab": true, "modules": true}, names)
	require.NoError(t, squash.BuildFile(t.Context(), s.path("demo.squashfs"), netroot.Remedies(findings).Apply(image), nil))

	f, err := os.Open(s.path("demo.squashfs"))
	require.NoError(t, err)
	defer f.Close()
	for defect, err := range squash.Verify(t.Context(), f, nil) {
		require.NoError(t, err)
		t.Error(defect)
	}
	built, err := squash.Open(f)
	require.NoError(t, err)
	findings, err = netroot.Check(t.Context(), built, nil)
	require.NoError(t, err)
	require.Len(t, findings, 1, "the modules: %+v", findings)
	kernels, err := netroot.Kernels(t.Context(), built)
	require.NoError(t, err)
	require.Equal(t, "6.10.1-1-amd64", kernels[0].Version)
	require.NoError(t, os.Mkdir(s.path("boot/node"), 0o755))
	require.NoError(t, netroot.CopyKernel(t.Context(), built, kernels[0], s.path("boot/node")))

	s.serve(common + "  - {name: node, kernel: node/" + path.Base(kernels[0].Path) + ", initrd: [node/" + path.Base(kernels[0].Initrd) +
		"], image: demo, args: [overlayroot=tmpfs, KERNELARGS]}\nmachines:\n" + line)
	vmtest.Slots(t, 1)
	g := vmtest.Ready(t, s.start(m))
	s.requireGuest(g, m)
	s.requireOverlayInMemory(g)
}

// writeContainer writes an archive as "docker save" does, one layer a source.
func writeContainer(t *testing.T, file string, layers ...squash.Source) {
	t.Helper()
	image := empty.Image
	config, err := image.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	image, err = mutate.ConfigFile(image, config)
	require.NoError(t, err)
	var list []v1.Layer
	for _, src := range layers {
		var b bytes.Buffer
		_, err := squash.WriteTar(t.Context(), &b, src)
		require.NoError(t, err)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
		require.NoError(t, err)
		list = append(list, l)
	}
	image, err = mutate.AppendLayers(image, list...)
	require.NoError(t, err)
	tag, err := name.NewTag("example.org/node:1")
	require.NoError(t, err)
	require.NoError(t, tarball.WriteToFile(file, tag, image))
}
