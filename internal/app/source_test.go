package app

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/container"
)

// sourceTar makes an archive of names and contents.
func sourceTar(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}))
		_, err := io.WriteString(w, files[i+1])
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestOpenSource(t *testing.T) {
	hex := strings.Repeat("0a", 32)
	docker := sourceTar(t, "1/layer.tar", "x", "manifest.json", `[{"Config":"c.json","Layers":["1/layer.tar","2/layer.tar"]}]`)
	website := sourceTar(t, "manifest.json", "{}", "index.json", "{}", "blobs/x", "")
	names := func(name string, stdin []byte, opts *container.Options) (list []string, err error) {
		src, c, err := OpenSource(name, bytes.NewReader(stdin), opts)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		for e, err := range src.Entries(t.Context()) {
			if err != nil {
				return list, err
			}
			list = append(list, e.Path)
		}
		return list, nil
	}
	file := func(b []byte) string {
		p := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(p, b, 0o600))
		return p
	}
	packed := func(b []byte) []byte {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, err := w.Write(b)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return z.Bytes()
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(`[{"Config":"c.json","Layers":["1/layer.tar"]}]`), 0o600))

	for text, err := range map[string]error{
		"c.json: file does not exist": second(names(file(docker), nil, nil)),
		"c.json":                      second(names(dir, nil, nil)),
		"no source of an image":       second(names(file([]byte("text")), nil, nil)),
		"save the container image":    second(names("-", docker, &container.Options{Name: "a"})),
		"decompress":                  second(names(file(packed(docker)), nil, nil)),
		"cut short":                   second(names(file(website[:700]), nil, nil)),
	} {
		require.ErrorContains(t, err, text)
	}
	for _, b := range [][]byte{
		docker,
		sourceTar(t, "oci-layout", "{}"),
		sourceTar(t, "./manifest.json", "[]", "./"+hex+".tar.gz", ""),
		sourceTar(t, "blobs/sha256/"+hex, "", "index.json", ""),
	} {
		for _, b := range [][]byte{b, packed(b)} {
			_, err := names("-", b, nil)
			require.ErrorContains(t, err, "this is a container image")
		}
	}

	for _, b := range [][]byte{website, packed(website)} {
		for _, name := range []string{"-", file(b)} {
			list, err := names(name, b, nil)
			require.NoError(t, err)
			require.Equal(t, []string{"manifest.json", "index.json", "blobs/x"}, list)
		}
	}
	root := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(root, "manifest.json"), []byte("{}"), 0o600))
	list, err := names(root, nil, nil)
	require.NoError(t, err)
	require.Equal(t, []string{".", "manifest.json"}, list)
	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, squash.BuildFile(t.Context(), image, squash.Dir(root), nil))
	list, err = names(image, nil, nil)
	require.NoError(t, err)
	require.Equal(t, []string{".", "manifest.json"}, list)
}

func second(_ []string, err error) error { return err }
