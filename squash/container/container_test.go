package container_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/container"
)

// tarOf makes an archive of names and contents.
func tarOf(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}
		if target, ok := strings.CutPrefix(files[i+1], "link:"); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, target, 0
		}
		require.NoError(t, w.WriteHeader(h))
		if h.Size > 0 {
			_, err := io.WriteString(w, files[i+1])
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// sample is an image for an architecture, whose last layer says which.
func sample(t testing.TB, arch, variant string) v1.Image {
	t.Helper()
	image := empty.Image
	config, err := image.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = "linux", arch, variant
	image, err = mutate.ConfigFile(image, config)
	require.NoError(t, err)
	for _, b := range [][]byte{
		tarOf(t, "etc/os-release", "base", "etc/old", "old", "usr/a", "content"),
		tarOf(t, "etc/.wh.old", "", "usr/b", "link:usr/a", "etc/arch", arch),
		tarOf(t, "usr/a", "replaced"),
	} {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
		require.NoError(t, err)
		image, err = mutate.AppendLayers(image, l)
		require.NoError(t, err)
	}
	return image
}

// memory is an image in memory.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, end-int64(len(m.b)))...)
	}
	return copy(m.b[off:], p), nil
}

func build(t testing.TB, src squash.Source) *squash.FS {
	t.Helper()
	var m memory
	require.NoError(t, squash.Build(t.Context(), &m, src, nil))
	f, err := squash.Open(bytes.NewReader(m.b))
	require.NoError(t, err)
	return f
}

func requireSample(t *testing.T, path string, opts *container.Options, arch string) {
	t.Helper()
	image, err := container.Open(path, opts)
	require.NoError(t, err)
	defer image.Close()
	require.Equal(t, "linux/"+arch, image.Platform)
	f := build(t, image)
	got := map[string]string{}
	require.NoError(t, fs.WalkDir(f, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			b, err := f.ReadFile(name)
			require.NoError(t, err)
			got[name] = string(b)
		}
		return err
	}))
	require.Equal(t, map[string]string{"etc/os-release": "base", "etc/arch": strings.Split(arch, "/")[0], "usr/a": "replaced", "usr/b": "content"}, got)
}

// pack puts a directory into an archive, the last file first.
func pack(t testing.TB, dir string) string {
	t.Helper()
	var files []string
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			b, err := os.ReadFile(p)
			require.NoError(t, err)
			rel, err := filepath.Rel(dir, p)
			require.NoError(t, err)
			files = append([]string{rel, string(b)}, files...)
		}
		return err
	}))
	path := filepath.Join(t.TempDir(), "image.tar")
	require.NoError(t, os.WriteFile(path, tarOf(t, files...), 0o600))
	return path
}

func TestDockerArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image.tar")
	one, two := name.MustParseReference("example.org/node:1"), name.MustParseReference("example.org/node:2")
	require.NoError(t, tarball.WriteToFile(path, one, sample(t, "amd64", "")))
	requireSample(t, path, nil, "amd64")
	requireSample(t, path, &container.Options{Name: "node:1", Platform: "linux/amd64"}, "amd64")
	_, err := container.Open(path, &container.Options{Name: "node:3"})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "example.org/node:1 (linux/amd64)")
	_, err = container.Open(path, &container.Options{Platform: "a/b/c/d"})
	require.ErrorIs(t, err, fs.ErrInvalid)

	require.NoError(t, tarball.MultiRefWriteToFile(path, map[name.Reference]v1.Image{one: sample(t, "amd64", ""), two: sample(t, "arm", "v7")}))
	requireSample(t, path, &container.Options{Name: "example.org/node:2"}, "arm/v7")
	requireSample(t, path, &container.Options{Platform: "linux/amd64"}, "amd64")
	_, err = container.Open(path, nil)
	require.ErrorIs(t, err, fs.ErrInvalid)
	require.ErrorContains(t, err, "2 images fit")
}

func TestLayout(t *testing.T) {
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	require.NoError(t, err)
	require.NoError(t, l.AppendImage(sample(t, "amd64", ""), layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "one"})))
	for _, path := range []string{dir, pack(t, dir)} {
		requireSample(t, path, nil, "amd64")
	}

	// An index in the index, with platforms, an attestation and what nobody knows.
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: sample(t, "arm64", ""), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: sample(t, "arm", "v7"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}}},
		mutate.IndexAddendum{Add: sample(t, "x", ""), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}},
	)
	require.NoError(t, l.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "many"})))
	require.NoError(t, l.AppendDescriptor(v1.Descriptor{MediaType: "application/strange", Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}}))
	for _, path := range []string{dir, pack(t, dir)} {
		requireSample(t, path, &container.Options{Name: "one"}, "amd64")
		requireSample(t, path, &container.Options{Name: "many", Platform: "linux/arm64"}, "arm64")
		requireSample(t, path, &container.Options{Platform: "linux/arm64/v8"}, "arm64")
		requireSample(t, path, &container.Options{Platform: "linux/arm/v7"}, "arm/v7")
		_, err = container.Open(path, &container.Options{Platform: "linux/riscv64"})
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorContains(t, err, "many (linux/arm64)")
		require.NotContains(t, err.Error(), "unknown/unknown")
	}
}

// Every blob turned over in one byte, and cut by one: found when it is opened
// or when it is built, and no image is left.
func TestDamagedLayout(t *testing.T) {
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	require.NoError(t, err)
	require.NoError(t, l.AppendImage(sample(t, "amd64", "")))
	blobs, err := filepath.Glob(dir + "/blobs/sha256/*")
	require.NoError(t, err)
	require.Len(t, blobs, 5)
	out := filepath.Join(t.TempDir(), "image")
	try := func() error {
		image, err := container.Open(dir, nil)
		if err != nil {
			return err
		}
		defer image.Close()
		return squash.BuildFile(t.Context(), out, image, nil)
	}
	require.NoError(t, try())
	require.NoError(t, os.Remove(out))
	for _, blob := range blobs {
		b, err := os.ReadFile(blob)
		require.NoError(t, err)
		for _, at := range []int{0, 4, len(b) / 2, len(b) - 5, len(b) - 1} { // byte 4 is in gzip's time, which no decoder checks
			bad := bytes.Clone(b)
			bad[at] ^= 1
			require.NoError(t, os.WriteFile(blob, bad, 0o600))
			require.Error(t, try(), "%s at byte %d", blob, at)
			require.NoFileExists(t, out)
		}
		require.NoError(t, os.WriteFile(blob, b[:len(b)-1], 0o600))
		require.Error(t, try())
		require.NoError(t, os.Remove(blob))
		require.ErrorIs(t, try(), fs.ErrNotExist)
		require.NoError(t, os.WriteFile(blob, b, 0o600))
	}
	require.NoError(t, try())
}

func TestDiffIDIsChecked(t *testing.T) {
	image := sample(t, "amd64", "")
	config, err := image.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.RootFS.DiffIDs[1].Hex = strings.Repeat("0", 64)
	image, err = mutate.ConfigFile(image, config)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "image.tar")
	require.NoError(t, tarball.WriteToFile(path, name.MustParseReference("a"), image))
	c, err := container.Open(path, nil)
	require.NoError(t, err)
	defer c.Close()
	require.ErrorContains(t, squash.Build(t.Context(), &memory{}, c, nil), "the archive's digest is")
}

func TestForeignLayer(t *testing.T) {
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	require.NoError(t, err)
	require.NoError(t, l.AppendImage(sample(t, "amd64", "")))
	index, err := l.ImageIndex()
	require.NoError(t, err)
	im, err := index.IndexManifest()
	require.NoError(t, err)
	image, err := index.Image(im.Manifests[0].Digest)
	require.NoError(t, err)
	m, err := image.Manifest()
	require.NoError(t, err)
	layers, err := image.Layers()
	require.NoError(t, err)
	foreign, err := mutate.Append(empty.Image, mutate.Addendum{Layer: layers[0], MediaType: types.OCIRestrictedLayer, URLs: []string{"https://example.org/layer"}})
	require.NoError(t, err)
	require.NoError(t, l.ReplaceImage(foreign, func(v1.Descriptor) bool { return true }))
	require.NoError(t, os.Remove(filepath.Join(dir, "blobs/sha256", m.Layers[0].Digest.Hex)))
	_, err = container.Open(dir, nil)
	require.ErrorContains(t, err, "https://example.org/layer")
}

func TestNoImages(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(p, b, 0o600))
		return p
	}
	for _, tt := range []struct {
		path, text string
	}{
		{dir, "no container image"},
		{dir + "/absent", "no such file"},
		{write("root.tar", tarOf(t, "etc/passwd", "x")), "use squash.Tar"},
		{write("gz.tar.gz", []byte("\x1f\x8b\x08\x00abcdef")), "decompress it first"},
		{write("empty", nil), "no container image"},
		{write("noise", bytes.Repeat([]byte("x"), 4096)), "tar"},
		{write("escape.tar", tarOf(t, "manifest.json", `[{"Config":"../../etc/passwd","Layers":[]}]`)), "does not exist"},
		{write("config.tar", tarOf(t, "manifest.json", `[{"Config":"c","Layers":["l"]}]`, "c", `{"rootfs":{"diff_ids":[]}}`, "l", "x")), "1 layers, the configuration 0"},
		{write("json.tar", tarOf(t, "manifest.json", `{`)), "manifest.json"},
		{write("many.tar", tarOf(t, "manifest.json", "["+strings.Repeat(`{"Config":"c"},`, 9)+`{"Config":"c"}]`, "c", `{"rootfs":{"diff_ids":[]}}`+strings.Repeat(" ", 3<<20))), "more than 16 MiB"},
		{write("layers.tar", tarOf(t, "manifest.json", `[{"Config":"c","Layers":["l"`+strings.Repeat(`,"l"`, 1000)+`]}]`, "c", `{"rootfs":{"diff_ids":[]}}`, "l", "x")), "1001 layers"},
		{write("names.tar", tarOf(t, names(20, 1<<20)...)), "16 MiB of names"},
		{write("index.tar", tarOf(t, "index.json", `[]`)), "index.json"},
		{write("hash.tar", tarOf(t, "index.json", `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:../../x","size":1}]}`)), "index.json"},
	} {
		_, err := container.Open(tt.path, nil)
		require.ErrorContains(t, err, tt.text, tt.path)
	}
}

// What is no image is told from an image of which something is missing.
func TestErrNoImage(t *testing.T) {
	const digest = "0000000000000000000000000000000000000000000000000000000000000000"
	config := `{"rootfs":{"diff_ids":["sha256:` + digest + `"]}}`
	index := `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + digest + `","size":1}]}`
	for name, tt := range map[string]struct {
		files   []string
		noImage bool
	}{
		"a root":                        {[]string{"etc/passwd", "x"}, true},
		"a web site":                    {[]string{"manifest.json", ` {"name":"x"}`, "index.json", "[]"}, true},
		"docker, no layer":              {[]string{"manifest.json", `[{"Config":"c","Layers":["l"]}]`, "c", config}, false},
		"docker, no configuration":      {[]string{"manifest.json", `[{"Config":"c","Layers":["l"]}]`, "l", "x"}, false},
		"docker, beside a site's index": {[]string{"manifest.json", `[{"Config":"c","Layers":["l"]}]`, "index.json", "{}", "l", "x"}, false},
		"docker, empty manifest":        {[]string{"manifest.json", ""}, false},
		"layout, no manifest":           {[]string{"index.json", index}, false},
		"layout, no index":              {[]string{"oci-layout", "{}"}, false},
		"layout, empty index":           {[]string{"oci-layout", "{}", "index.json", ""}, false},
	} {
		archive, dir := filepath.Join(t.TempDir(), "image.tar"), t.TempDir()
		require.NoError(t, os.WriteFile(archive, tarOf(t, tt.files...), 0o600))
		for i := 0; i < len(tt.files); i += 2 {
			file := filepath.Join(dir, tt.files[i])
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			require.NoError(t, os.WriteFile(file, []byte(tt.files[i+1]), 0o600))
		}
		for _, path := range []string{archive, dir} {
			_, err := container.Open(path, nil)
			require.Error(t, err, name)
			require.Equal(t, tt.noImage, errors.Is(err, container.ErrNoImage), "%s: %v", name, err)
		}
	}
}

// A configuration of "docker save" is named after its digest.
func TestDockerConfigurationIsChecked(t *testing.T) {
	layer := tarOf(t, "a", "x")
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:%x"]}}`, sha256.Sum256(layer))
	path := filepath.Join(t.TempDir(), "image.tar")
	open := func(content string) error {
		name := fmt.Sprintf("%x.json", sha256.Sum256([]byte(config)))
		require.NoError(t, os.WriteFile(path, tarOf(t, "manifest.json", `[{"Config":"`+name+`","Layers":["l"]}]`, name, content, "l", string(layer)), 0o600))
		image, err := container.Open(path, nil)
		if err == nil {
			require.NoError(t, image.Close())
		}
		return err
	}
	require.NoError(t, open(config))
	require.ErrorContains(t, open(strings.Replace(config, "amd64", "arm64", 1)), "has digest")
}

// names are empty files with long names.
func names(n, size int) (files []string) {
	for i := range n {
		files = append(files, strings.Repeat("n", size-2000)+fmt.Sprint(i), "")
	}
	return files
}

func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "image.tar")
	require.NoError(f, tarball.WriteToFile(path, name.MustParseReference("a"), sample(f, "amd64", "")))
	b, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(b)
	f.Add(tarOf(f, "index.json", `{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","size":1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "image.tar")
		require.NoError(t, os.WriteFile(path, b, 0o600))
		image, err := container.Open(path, nil)
		if err != nil {
			return
		}
		defer image.Close()
		_ = squash.Build(t.Context(), &memory{}, image, &squash.Options{BlockSize: 4096, Workers: 1, MaxFileSize: 1 << 20})
	})
}

func Example() {
	dir, err := os.MkdirTemp("", "container")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	// What "docker save -o node.tar" or "podman save" would have written.
	archive := filepath.Join(dir, "node.tar")
	if err := tarball.WriteToFile(archive, name.MustParseReference("example.org/node:1"), sample(&testing.T{}, "amd64", "")); err != nil {
		fmt.Println(err)
		return
	}

	image, err := container.Open(archive, &container.Options{Platform: "linux/amd64"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer image.Close()
	var out memory // or squash.BuildFile
	if err := squash.Build(context.Background(), &out, image, nil); err != nil {
		fmt.Println(err)
		return
	}
	root, err := squash.Open(bytes.NewReader(out.b))
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := root.ReadFile("etc/os-release")
	fmt.Println(image.Names, image.Platform, string(b), err)
	// Output:
	// [example.org/node:1] linux/amd64 base <nil>
}
