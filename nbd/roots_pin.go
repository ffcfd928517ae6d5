package nbd

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// pin links a generation into Dir and counts who uses it: each root that is on
// it and each pending boot.
func (rs *Roots) pin(file *imageFile) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.pins[file.digest]++; !rs.stored() {
		return nil
	}
	path := rs.pinPath(file.digest)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return rs.Images.linkTo(rs.disk, file, path)
}

// unpin removes the link when nobody uses the generation any more.
func (rs *Roots) unpin(digest string) {
	if digest == "" {
		return
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.unpinLocked(digest)
}

func (rs *Roots) unpinLocked(digest string) {
	if rs.pins[digest]--; rs.pins[digest] > 0 {
		return
	}
	delete(rs.pins, digest)
	if rs.stored() && !rs.bad {
		if err := rs.disk.remove(rs.pinPath(digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			rs.logger().Warn("nbd: link to an image is left behind", "err", err)
		}
	}
}

// sweepPins removes links that a crash left behind.
func (rs *Roots) sweepPins() error {
	if rs.bad {
		return nil
	}
	dir := filepath.Join(rs.Dir, "images")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	used := make(map[string]bool)
	for digest := range rs.pins {
		used[rs.pinName(digest)] = true
	}
	for _, e := range entries {
		generation, isLink := strings.CutSuffix(e.Name(), ".img")
		if isLink && validGeneration(generation) && !used[e.Name()] {
			err = errors.Join(err, rs.disk.remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// acquireBase returns the exact generation with a reference.
func (rs *Roots) acquireBase(ctx context.Context, image, generation string) (*imageFile, error) {
	return rs.Images.acquire(ctx, image, generation, rs.pinPath(generation))
}
