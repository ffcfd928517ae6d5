package container_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/container"
)

// Manifests, indexes and configurations that say anything, about a layer that
// is there.
func FuzzManifest(f *testing.F) {
	layer := tarOf(f, "etc/os-release", "base", "etc/.wh.old", "", "usr/b", "link:etc/os-release")
	sum := fmt.Sprintf("%x", sha256.Sum256(layer))
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}`, sum)
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%x","size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%d}]}`, sha256.Sum256([]byte(config)), len(config), sum, len(layer))
	const docker, oci, index = 0, 1, 2
	f.Add(uint8(docker), []byte(`[{"Config":"config.json","RepoTags":["a:1"],"Layers":["layer.tar"]}]`), []byte(config))
	f.Add(uint8(docker), []byte(`[{"Config":"../config.json","Layers":["/layer.tar","layer.tar"]},{"Config":"config.json"}]`), []byte(`{"rootfs":{}}`))
	f.Add(uint8(oci), []byte(manifest), []byte(config))
	f.Add(uint8(oci), []byte(`{"config":{"size":-1},"layers":[{"urls":["http://x"]}]}`), []byte(config))
	f.Add(uint8(index), []byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:`+sum+`","size":10,"platform":{"os":"linux"}}]}`), []byte(config))
	f.Fuzz(func(t *testing.T, kind uint8, document, config []byte) {
		dir := t.TempDir()
		put := func(name string, b []byte) {
			t.Helper()
			name = filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		blob := func(b []byte) string {
			sum := fmt.Sprintf("%x", sha256.Sum256(b))
			put("blobs/sha256/"+sum, b)
			return sum
		}
		blob(layer)
		blob(config)
		switch kind % 3 {
		case docker:
			put("manifest.json", document)
			put("config.json", config)
			put("layer.tar", layer)
		case oci:
			put("index.json", fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%d}]}`, blob(document), len(document)))
		case index:
			blob(document)
			put("index.json", document)
		}
		image, err := container.Open(dir, nil)
		if err != nil {
			return
		}
		defer image.Close()
		_ = squash.Build(t.Context(), &memory{}, image, &squash.Options{BlockSize: 4096, Workers: 1, MaxFileSize: 1 << 20})
	})
}

// The seeds of FuzzManifest that are whole are images.
func TestManifestSeeds(t *testing.T) {
	layer := tarOf(t, "etc/os-release", "base")
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"manifest.json": []byte(`[{"Config":"config.json","RepoTags":["a:1"],"Layers":["layer.tar"]}]`),
		"config.json":   fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, sha256.Sum256(layer)),
		"layer.tar":     layer,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	image, err := container.Open(dir, nil)
	require.NoError(t, err)
	defer image.Close()
	b, err := build(t, image).ReadFile("etc/os-release")
	require.NoError(t, err)
	require.Equal(t, "base", string(b))
}
