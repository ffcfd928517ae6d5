package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const imageSuffix = ".img"

// storePath is where the store has an image.
func (im *Images) storePath(name string) string { return filepath.Join(im.Dir, name+imageSuffix) }

// Load registers all images of the store Dir, as Add does, in order of their
// names. Files whose names are no image's are passed over; a Dir that is not
// there yet is empty. When one image cannot be read the others are there
// nevertheless, and the errors are joined.
func (im *Images) Load(ctx context.Context) error {
	if err := im.needDir(); err != nil {
		return err
	}
	entries, err := os.ReadDir(im.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("nbd: images: %w", err)
	}
	var errs []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), imageSuffix)
		if !ok || e.IsDir() || (Name{Image: name}).Valid() != nil {
			continue
		}
		errs = append(errs, im.Add(ctx, name, im.storePath(name)))
	}
	return errors.Join(errs...)
}

func (im *Images) needDir() error {
	if im.Dir == "" {
		return fmt.Errorf("nbd: images: Dir is not set, there is no store: %w", fs.ErrInvalid)
	}
	return nil
}

// Publish makes the file at path the newest generation of an image, by one
// rename over the image's own file: whoever asks gets the former one or this
// one, whole. An image that is not registered yet is made in the store, as
// Dir/NAME.img. The file at path is flushed to stable storage first, must be in
// the file system of the image's, and must not be written to any more; it is
// gone from path then. The generation that was the newest until now stays, as
// Keep says, for [Images.Revert] and for the machines that run on it.
// Publishing what is the newest already only removes path.
//
// Errors: [fs.ErrInvalid] for a name that cannot be, and without Dir; what the
// file system says, [syscall.EXDEV] from another one than Dir's included (Keep
// -1 does without links); ctx's.
func (im *Images) Publish(ctx context.Context, name, path string) (Generation, error) {
	im.publishMu.Lock()
	defer im.publishMu.Unlock()
	gen, err := im.publish(ctx, name, path)
	if err != nil {
		return Generation{}, fmt.Errorf("nbd: image %s: publish: %w", name, err)
	}
	return gen, nil
}

func (im *Images) publish(ctx context.Context, name, path string) (Generation, error) {
	target, err := im.target(name)
	if err != nil {
		return Generation{}, err
	}
	file, err := im.load(ctx, path)
	if err != nil {
		return Generation{}, err
	}
	defer file.release()
	gen := Generation{Image: name, Digest: file.digest, Size: file.size}
	if err := im.disk.syncFile(file.f); err != nil {
		return Generation{}, err
	}
	newest, err := im.load(ctx, target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := im.disk.mkdirAll(filepath.Dir(target), 0o755); err != nil {
			return Generation{}, err
		}
	case err != nil:
		return Generation{}, err
	default:
		defer newest.release()
		if newest.digest == file.digest {
			return gen, errors.Join(im.Add(ctx, name, target), im.disk.remove(path))
		}
		if err := im.keep(name, newest); err != nil {
			return Generation{}, err
		}
	}
	if err := im.disk.rename(path, target); err != nil {
		return Generation{}, err
	}
	return gen, errors.Join(im.disk.syncDir(filepath.Dir(target)), im.Add(ctx, name, target))
}

// target is where an image's file is, or will be.
func (im *Images) target(name string) (string, error) {
	if err := (Name{Image: name}).Valid(); err != nil {
		return "", err
	}
	if err := im.needDir(); err != nil {
		return "", err
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	if e := im.entries[name]; e != nil && e.path != "" {
		return e.path, nil
	}
	return im.storePath(name), nil
}

// Revert makes the former generation of an image the newest again, and the
// newest the former: twice is as never. It is as atomic as Publish.
// [fs.ErrNotExist] when there is no former one; the other errors are Publish's.
func (im *Images) Revert(ctx context.Context, name string) (Generation, error) {
	im.publishMu.Lock()
	defer im.publishMu.Unlock()
	gen, err := im.revert(ctx, name)
	if err != nil {
		return Generation{}, fmt.Errorf("nbd: image %s: revert: %w", name, err)
	}
	return gen, nil
}

func (im *Images) revert(ctx context.Context, name string) (Generation, error) {
	target, err := im.target(name)
	if err != nil {
		return Generation{}, err
	}
	newest, err := im.load(ctx, target)
	if err != nil {
		return Generation{}, err
	}
	defer newest.release()
	// It has to stay, and may have come by a rename a moment ago.
	if err := im.keep(name, newest); err != nil {
		return Generation{}, err
	}
	links, err := im.kept(name)
	if err != nil {
		return Generation{}, err
	}
	links = slices.DeleteFunc(links, func(l keptLink) bool { return l.generation == newest.generation() })
	if len(links) == 0 {
		return Generation{}, fmt.Errorf("no former generation of it is kept: %w", fs.ErrNotExist)
	}
	former := links[len(links)-1]
	file, err := im.acquirePinned(ctx, name, former.generation, former.path)
	if err != nil {
		return Generation{}, err
	}
	defer file.release()
	err = im.link(former.path, target+".new")
	if err == nil {
		err = im.disk.rename(target+".new", target)
	}
	if err == nil {
		err = im.disk.syncDir(filepath.Dir(target))
	}
	if err != nil {
		return Generation{}, err
	}
	return Generation{Image: name, Digest: file.digest, Size: file.size}, im.Add(ctx, name, target)
}

// link makes a hard link, in the place of one that a crash left behind.
func (im *Images) link(from, to string) error {
	if err := im.disk.remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return im.disk.link(from, to)
}

// commit makes what an overlay holds the newest generation of an image.
func (im *Images) commit(ctx context.Context, name string, o *Overlay) (Generation, error) {
	im.mu.Lock()
	path := ""
	if e := im.entries[name]; e != nil {
		path = e.path
	}
	im.mu.Unlock()
	if path != "" && im.Dir == "" {
		if err := o.Commit(ctx, path); err != nil {
			return Generation{}, err
		}
		return im.Current(ctx, name)
	}
	target, err := im.target(name)
	if err != nil {
		return Generation{}, err
	}
	dir := filepath.Dir(target)
	if err := im.disk.mkdirAll(dir, 0o755); err != nil {
		return Generation{}, err
	}
	temp, err := os.CreateTemp(dir, "."+name+".*.commit")
	if err != nil {
		return Generation{}, err
	}
	defer os.Remove(temp.Name())
	if err := errors.Join(temp.Close(), o.Commit(ctx, temp.Name())); err != nil {
		return Generation{}, err
	}
	return im.Publish(ctx, name, temp.Name())
}
