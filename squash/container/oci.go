package container

import (
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/seed-3ec230fa/diskless/squash"
)

// Bounds for indexes within indexes.
const (
	maxIndexDepth = 8
	maxManifests  = 10_000
)

// ociCandidates lists the images of a layout by index.json, which without the
// file oci-layout may be anything.
func ociCandidates(s store, layout bool) ([]candidate, error) {
	b, err := document(s, "index.json")
	if err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(b))
	if !layout && (err != nil || index.Manifests == nil) {
		return nil, fmt.Errorf("index.json is no list of manifests, and there is no oci-layout: %w", ErrNoImage)
	}
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	l := &lister{s: s}
	err = l.index(index, nil, nil, 0)
	return l.list, err
}

type lister struct {
	s    store
	list []candidate
	n    int
}

func (l *lister) index(index *v1.IndexManifest, names []string, platform *v1.Platform, depth int) error {
	if depth > maxIndexDepth {
		return fmt.Errorf("more than %d indexes within each other: %w", maxIndexDepth, fs.ErrInvalid)
	}
	for _, d := range index.Manifests {
		if l.n++; l.n > maxManifests {
			return fmt.Errorf("more than %d manifests: %w", maxManifests, fs.ErrInvalid)
		}
		names := names
		if depth == 0 {
			names = tags(d.Annotations)
		}
		p := d.Platform
		if p == nil {
			p = platform
		}
		if p != nil && p.OS == "unknown" && p.Architecture == "unknown" || d.Annotations["vnd.docker.reference.type"] != "" {
			continue // what somebody says about an image
		}
		switch {
		case d.MediaType.IsIndex():
			b, err := blob(l.s, d)
			if errors.Is(err, fs.ErrNotExist) && depth > 0 {
				continue // an archive of one platform keeps the whole index
			}
			if err != nil {
				return err
			}
			sub, err := v1.ParseIndexManifest(bytes.NewReader(b))
			if err != nil {
				return fmt.Errorf("index %s: %w", d.Digest, err)
			}
			if err := l.index(sub, names, p, depth+1); err != nil {
				return err
			}
		case d.MediaType.IsImage():
			b, err := blob(l.s, d)
			if errors.Is(err, fs.ErrNotExist) && depth > 0 {
				continue
			}
			if err != nil {
				return err
			}
			if err := l.manifest(b, d, names, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *lister) manifest(b []byte, d v1.Descriptor, names []string, p *v1.Platform) error {
	m, err := v1.ParseManifest(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if !m.Config.MediaType.IsConfig() {
		return nil // an artifact that is no image
	}
	b, err = blob(l.s, m.Config)
	if err != nil {
		return err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("configuration %s: %w", m.Config.Digest, err)
	}
	if p == nil || p.Architecture == "" {
		p = platformOf(config)
	}
	l.list = append(l.list, candidate{names, p, func() (*Image, error) {
		layers := make([]squash.Layer, 0, len(m.Layers))
		for _, d := range m.Layers {
			layer, err := ociLayer(l.s, d)
			if err != nil {
				return nil, err
			}
			layers = append(layers, layer)
		}
		layers, err := layersOf(config, layers)
		if err != nil {
			return nil, err
		}
		for i, d := range m.Layers {
			if layers[i].DiffID == d.Digest.String() { // not compressed: one check will do
				layers[i].Open = func() (io.ReadCloser, error) {
					f, _, err := l.s.open(blobPath(d.Digest))
					return f, err
				}
			}
		}
		return &Image{Digest: m.Config.Digest.String(), Platform: p.String(), layers: layers}, nil
	}})
	return nil
}

func tags(a map[string]string) []string {
	var names []string
	for _, key := range []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"} {
		if a[key] != "" {
			names = append(names, a[key])
		}
	}
	return names
}

func blobPath(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// blob reads a document by its descriptor and checks it.
func blob(s store, d v1.Descriptor) ([]byte, error) {
	b, err := document(s, blobPath(d.Digest))
	if err != nil {
		return nil, fmt.Errorf("the blob %s: %w", d.Digest, err)
	}
	h, err := v1.Hasher(d.Digest.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("the blob %s: %w: %w", d.Digest, errors.ErrUnsupported, err)
	}
	_, _ = h.Write(b)
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != d.Digest.Hex || int64(len(b)) != d.Size {
		return nil, fmt.Errorf("the blob %s has %d bytes with digest %s, not %d: copy the image again", d.Digest, len(b), got, d.Size)
	}
	return b, nil
}

func ociLayer(s store, d v1.Descriptor) (squash.Layer, error) {
	l := squash.Layer{Name: "layer " + d.Digest.String()}
	if !d.MediaType.IsLayer() && d.MediaType != types.OCIUncompressedRestrictedLayer && !strings.Contains(string(d.MediaType), "tar") {
		return l, fmt.Errorf("%s is of type %q: %w", l.Name, d.MediaType, errors.ErrUnsupported)
	}
	size, _, err := peek(s, blobPath(d.Digest))
	if errors.Is(err, fs.ErrNotExist) && len(d.URLs) > 0 {
		return l, fmt.Errorf("%s is not in the image, for it may not be distributed; fetch it from %s: %w", l.Name, strings.Join(d.URLs, " or "), err)
	}
	if err == nil && size != d.Size {
		err = fmt.Errorf("it has %d bytes, not %d: copy the image again", size, d.Size)
	}
	if err != nil {
		return l, fmt.Errorf("%s: %w", l.Name, err)
	}
	if _, err := v1.Hasher(d.Digest.Algorithm); err != nil {
		return l, fmt.Errorf("%s: %w: %w", l.Name, errors.ErrUnsupported, err)
	}
	l.Open = func() (io.ReadCloser, error) {
		f, _, err := s.open(blobPath(d.Digest))
		if err != nil {
			return nil, err
		}
		h, err := v1.Hasher(d.Digest.Algorithm)
		if err != nil {
			return nil, err
		}
		return &checked{ReadCloser: f, h: h, want: d.Digest}, nil
	}
	return l, nil
}

// checked fails at the end of a blob that is not what its digest says.
type checked struct {
	io.ReadCloser
	h    hash.Hash
	want v1.Hash
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	_, _ = c.h.Write(p[:n])
	if err == io.EOF {
		if got := fmt.Sprintf("%x", c.h.Sum(nil)); got != c.want.Hex {
			return n, fmt.Errorf("the blob's digest is %s, not %s: copy the image again", got, c.want)
		}
	}
	return n, err
}
