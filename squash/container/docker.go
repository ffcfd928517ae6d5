package container

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/seed-3ec230fa/diskless/squash"
)

// dockerImage is an entry of manifest.json as "docker save" writes it.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerCandidates lists the images of an archive by manifest.json.
func dockerCandidates(s store) ([]candidate, error) {
	b, err := document(s, "manifest.json")
	if err != nil {
		return nil, err
	}
	// A list, where the manifests of web sites and browsers are objects.
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		return nil, fmt.Errorf("manifest.json is no list of images: %w", ErrNoImage)
	}
	var images []dockerImage
	if err := json.Unmarshal(b, &images); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	if len(images) > maxManifests {
		return nil, fmt.Errorf("more than %d images: %w", maxManifests, fs.ErrInvalid)
	}
	var list []candidate
	for _, im := range images {
		b, err := document(s, im.Config)
		if err != nil {
			return nil, fmt.Errorf("the configuration of %v: %w", im.RepoTags, err)
		}
		// The file's name is its digest.
		got := sha256.Sum256(b)
		name := strings.TrimSuffix(path.Base(im.Config), ".json")
		if want, err := hex.DecodeString(name); err == nil && len(want) == len(got) && !bytes.Equal(want, got[:]) {
			return nil, fmt.Errorf("the configuration %s has digest %x: copy the image again", im.Config, got)
		}
		config, err := v1.ParseConfigFile(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("the configuration %s: %w", im.Config, err)
		}
		p := platformOf(config)
		list = append(list, candidate{im.RepoTags, p, func() (*Image, error) {
			var layers []squash.Layer
			for _, name := range im.Layers {
				if _, _, err := peek(s, name); err != nil {
					return nil, fmt.Errorf("layer %s: %w", name, err)
				}
				layers = append(layers, squash.Layer{Name: "layer " + name, Open: func() (io.ReadCloser, error) {
					f, _, err := s.open(name)
					return f, err
				}})
			}
			layers, err := layersOf(config, layers)
			if err != nil {
				return nil, err
			}
			return &Image{Digest: "sha256:" + hex.EncodeToString(got[:]), Platform: p.String(), layers: layers}, nil
		}})
	}
	return list, nil
}
