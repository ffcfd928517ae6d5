package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/seed-3ec230fa/diskless/squash"
)

// Options says which image is meant when a file holds several. A nil *Options
// and the zero value are for a file that holds one.
type Options struct {
	// Platform is os/architecture[/variant], such as "linux/amd64" or
	// "linux/arm/v7". Empty takes the only one there is.
	Platform string
	// Name is a tag, such as "example.org/node:1.30". Empty takes the only
	// image there is.
	Name string
}

// Image is an open container image. It is a [squash.Source].
type Image struct {
	// Digest identifies the image's configuration, and with it the content of
	// its layers.
	Digest string
	// Platform is os/architecture[/variant].
	Platform string
	// Names are the tags that the file gives it.
	Names []string

	store  store
	layers []squash.Layer
}

// ErrNoImage says that a path is no container image, or an archive that is
// compressed, into which Open does not look. An image that is damaged or not
// whole gives other errors.
var ErrNoImage = errors.New("no container image")

// Open reads the manifests of the image at a path: an archive or a directory.
// The error lists what there is when the choice is not clear, and matches
// [ErrNoImage] when there is no image.
func Open(path string, opts *Options) (*Image, error) {
	if opts == nil {
		opts = &Options{}
	}
	s, err := openStore(path)
	if err != nil {
		return nil, fmt.Errorf("container: %w", err)
	}
	image, err := open(&limited{s, maxDocuments}, opts)
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("container: %s: %w", path, err)
	}
	return image, nil
}

// Close closes the file. A build from the image must have ended.
func (i *Image) Close() error { return i.store.Close() }

// Entries merges the layers, see [squash.Layers].
func (i *Image) Entries(ctx context.Context) iter.Seq2[*squash.Entry, error] {
	return squash.Layers(i.layers...).Entries(ctx)
}

// candidate is an image that a file holds.
type candidate struct {
	names    []string
	platform *v1.Platform
	load     func() (*Image, error)
}

func (c candidate) String() string {
	name := strings.Join(c.names, ", ")
	if name == "" {
		name = "an image without a name"
	}
	if c.platform != nil {
		name += " (" + c.platform.String() + ")"
	}
	return name
}

func open(s store, opts *Options) (*Image, error) {
	list, err := candidates(s)
	if err != nil {
		return nil, err
	}
	var want *v1.Platform
	if opts.Platform != "" {
		if want, err = v1.ParsePlatform(opts.Platform); err != nil {
			return nil, fmt.Errorf("the platform %q: %w: %w", opts.Platform, fs.ErrInvalid, err)
		}
		want = usual(want)
	}
	var fit []candidate
	for _, c := range list {
		if opts.Name != "" && !matches(c.names, opts.Name) || want != nil && (c.platform == nil || !usual(c.platform).Satisfies(*want)) {
			continue
		}
		fit = append(fit, c)
	}
	if len(fit) != 1 {
		var b strings.Builder
		for _, c := range list {
			fmt.Fprintf(&b, "\n\t%v", c)
		}
		if len(fit) == 0 {
			return nil, fmt.Errorf("no image %q for platform %q: %w; there are:%s", opts.Name, opts.Platform, fs.ErrNotExist, &b)
		}
		return nil, fmt.Errorf("%d images fit; choose by platform or name: %w; there are:%s", len(fit), fs.ErrInvalid, &b)
	}
	image, err := fit[0].load()
	if err != nil {
		return nil, err
	}
	image.store, image.Names = s, fit[0].names
	return image, nil
}

// candidates lists the images in either form; an archive may have both.
func candidates(s store) ([]candidate, error) {
	has := func(name string) bool {
		_, _, err := peek(s, name)
		return err == nil
	}
	layout, manifest := has("oci-layout"), has("manifest.json")
	if has("index.json") {
		list, err := ociCandidates(s, layout)
		if !manifest || !errors.Is(err, ErrNoImage) {
			return list, err
		}
	} else if layout && !manifest {
		return nil, fmt.Errorf("it has oci-layout, but no index.json: copy the image again: %w", fs.ErrNotExist)
	}
	if !manifest {
		return nil, fmt.Errorf("neither index.json nor manifest.json is in it: %w (for a tar archive of a root, use squash.Tar)", ErrNoImage)
	}
	return dockerCandidates(s)
}

// usual is a platform without the variant that goes without saying, which some
// images name and others do not.
func usual(p *v1.Platform) *v1.Platform {
	c := *p
	if v := c.Architecture + "/" + c.Variant; v == "arm64/v8" || v == "amd64/v1" {
		c.Variant = ""
	}
	return &c
}

// matches takes "node:1" for "docker.io/library/node:1", too.
func matches(names []string, want string) bool {
	for _, n := range names {
		if n == want || strings.HasSuffix(n, "/"+want) || n == want+":latest" || strings.HasSuffix(n, "/"+want+":latest") {
			return true
		}
	}
	return false
}

func peek(s store, name string) (size int64, ok bool, err error) {
	f, size, err := s.open(name)
	if err != nil {
		return 0, false, err
	}
	return size, true, f.Close()
}

// What is read of manifests, indexes and configurations, in bytes: of one and of
// all, for the same one can be named thousands of times.
const (
	maxDocument  = 4 << 20
	maxDocuments = 16 << 20
)

// maxLayers is how many layers an image may have, some of them the same; other
// programs allow some 127.
const maxLayers = 1000

// limited is a store of which so much may be read as documents.
type limited struct {
	store
	left int64
}

func document(s store, name string) ([]byte, error) {
	f, size, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxDocument {
		return nil, fmt.Errorf("%s has %d bytes, no manifest is that long: %w", name, size, fs.ErrInvalid)
	}
	if l, ok := s.(*limited); ok {
		if l.left -= size; l.left < 0 {
			return nil, fmt.Errorf("the manifests and configurations have more than %d MiB: %w", maxDocuments>>20, fs.ErrInvalid)
		}
	}
	return io.ReadAll(f)
}

// layersOf pairs the layers' names in errors and openers with the
// configuration's diff_ids.
func layersOf(config *v1.ConfigFile, layers []squash.Layer) ([]squash.Layer, error) {
	ids := config.RootFS.DiffIDs
	if len(layers) > maxLayers {
		return nil, fmt.Errorf("an image of %d layers, more than %d: %w", len(layers), maxLayers, fs.ErrInvalid)
	}
	if len(ids) != len(layers) {
		return nil, fmt.Errorf("the manifest has %d layers, the configuration %d: %w", len(layers), len(ids), fs.ErrInvalid)
	}
	for i := range layers {
		layers[i].DiffID = ids[i].String()
	}
	return layers, nil
}

func platformOf(c *v1.ConfigFile) *v1.Platform {
	return &v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant, OSVersion: c.OSVersion}
}
