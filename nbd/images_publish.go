package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const imageSuffix = ".img"

// storePath and formerPath are where the store has an image's generations.
func (im *Images) storePath(name string) string { return filepath.Join(im.Dir, name+imageSuffix) }
func (im *Images) formerPath(name string) string {
	return filepath.Join(im.Dir, "former", name+imageSuffix)
}

// Load registers all images of the store Dir, as Add does, in order of their
// names. Files whose names are no image's are passed over. When one image
// cannot be read the others are there nevertheless, and the errors are joined.
func (im *Images) Load(ctx context.Context) error {
	if err := im.needDir(); err != nil {
		return err
	}
	entries, err := os.ReadDir(im.Dir)
	if err != nil {
		return fmt.Errorf("nbd: images: %w", err)
	}
	var errs []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), imageSuffix)
		if !ok || e.IsDir() || (Name{Image: name}).Valid() != nil {
			continue
		}
		errs = append(errs, im.settleFormer(name), im.Add(ctx, name, im.storePath(name)))
	}
	return errors.Join(errs...)
}

func (im *Images) needDir() error {
	if im.Dir == "" {
		return fmt.Errorf("nbd: images: Dir is not set, there is no store: %w", fs.ErrInvalid)
	}
	return nil
}

// Publish moves the file at path into the store Dir as the newest generation
// of an image, by one rename: whoever asks gets the former one or this one,
// whole. The file is flushed to stable storage first, must be in the file
// system of Dir, and must not be written to any more. The generation that was
// the newest until now is kept as Dir/former/NAME.img, in the place of the one
// there, for [Images.Revert]. Publishing what is the newest already only
// removes path.
//
// Errors: [fs.ErrInvalid] for a name that cannot be, an image that Add
// registered at a path outside the store (rename a new file over that path
// instead), and without Dir; what the file system says; ctx's.
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
	if err := (Name{Image: name}).Valid(); err != nil {
		return Generation{}, err
	}
	if err := im.inStore(name); err != nil {
		return Generation{}, err
	}
	if err := os.MkdirAll(filepath.Dir(im.formerPath(name)), 0o755); err != nil {
		return Generation{}, err
	}
	file, err := im.load(ctx, path)
	if err != nil {
		return Generation{}, err
	}
	defer file.release()
	gen := Generation{Image: name, Digest: file.digest, Size: file.size}
	if err := file.f.Sync(); err != nil {
		return Generation{}, err
	}
	target := im.storePath(name)
	newest, err := im.load(ctx, target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return Generation{}, err
	default:
		defer newest.release()
		if newest.digest == file.digest {
			return gen, errors.Join(im.Add(ctx, name, target), os.Remove(path))
		}
		if err := im.settleFormer(name); err != nil {
			return Generation{}, err
		}
		former := im.formerPath(name)
		if err := link(target, former+".new"); err != nil {
			return Generation{}, err
		}
		if err := errors.Join(os.Rename(former+".new", former), syncDir(filepath.Dir(former))); err != nil {
			return Generation{}, err
		}
	}
	if err := os.Rename(path, target); err != nil {
		return Generation{}, err
	}
	return gen, errors.Join(syncDir(im.Dir), im.Add(ctx, name, target))
}

// inStore refuses an image that is registered elsewhere.
func (im *Images) inStore(name string) error {
	if err := im.needDir(); err != nil {
		return err
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	if e := im.entries[name]; e != nil && e.path != "" && e.path != im.storePath(name) {
		return fmt.Errorf("it is not in the store but at %s: rename a new file over that: %w", e.path, fs.ErrInvalid)
	}
	return nil
}

// Revert makes the former generation of an image in the store the newest
// again, and the newest the former: twice is as never. It is as atomic as
// Publish. [fs.ErrNotExist] when there is no former one.
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
	if err := (Name{Image: name}).Valid(); err != nil {
		return Generation{}, err
	}
	if err := im.inStore(name); err != nil {
		return Generation{}, err
	}
	if err := im.settleFormer(name); err != nil {
		return Generation{}, err
	}
	target, former := im.storePath(name), im.formerPath(name)
	file, err := im.load(ctx, former)
	if err != nil {
		return Generation{}, err
	}
	defer file.release()
	// A crash after the first rename leaves former.new: settleFormer knows.
	err = link(target, former+".new")
	if err == nil {
		err = link(former, target+".new")
	}
	for _, step := range []func() error{
		func() error { return syncDir(filepath.Dir(former)) },
		func() error { return os.Rename(target+".new", target) },
		func() error { return syncDir(im.Dir) },
		func() error { return os.Rename(former+".new", former) },
		func() error { return syncDir(filepath.Dir(former)) },
	} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		return Generation{}, err
	}
	return Generation{Image: name, Digest: file.digest, Size: file.size}, im.Add(ctx, name, target)
}

// settleFormer finishes or takes back a Revert that was cut short: once the
// former generation has the newest one's place, former.new is the former one.
func (im *Images) settleFormer(name string) error {
	target, former := im.storePath(name), im.formerPath(name)
	if _, err := os.Stat(former + ".new"); err != nil {
		return nil // as nearly always
	}
	now, err := os.Stat(target)
	if err != nil {
		return err
	}
	if was, err := os.Stat(former); err == nil && os.SameFile(now, was) {
		return os.Rename(former+".new", former)
	}
	return os.Remove(former + ".new")
}

// link makes a hard link, in the place of one that is there.
func link(from, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Link(from, to)
}

// commit makes what an overlay holds the newest generation of an image.
func (im *Images) commit(ctx context.Context, name string, o *Overlay) (Generation, error) {
	if err := (Name{Image: name}).Valid(); err != nil {
		return Generation{}, err
	}
	im.mu.Lock()
	path := ""
	if e := im.entries[name]; e != nil {
		path = e.path
	}
	im.mu.Unlock()
	if path != "" && (im.Dir == "" || path != im.storePath(name)) {
		if err := o.Commit(ctx, path); err != nil {
			return Generation{}, err
		}
		return im.Current(ctx, name)
	}
	if err := im.needDir(); err != nil {
		return Generation{}, err
	}
	if err := os.MkdirAll(im.Dir, 0o755); err != nil {
		return Generation{}, err
	}
	temp, err := os.CreateTemp(im.Dir, "."+name+".*.commit")
	if err != nil {
		return Generation{}, err
	}
	defer os.Remove(temp.Name())
	if err := errors.Join(temp.Close(), o.Commit(ctx, temp.Name())); err != nil {
		return Generation{}, err
	}
	return im.Publish(ctx, name, temp.Name())
}
