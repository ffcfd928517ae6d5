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
	was, err := file.stat()
	if err != nil {
		return err
	}
	if err := os.Link(file.f.Name(), path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err == nil && !statID(info).sameFile(was) {
		err = fmt.Errorf("%s was replaced a moment ago", file.f.Name())
	}
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	// The link moved the ctime; the content need not be read again for that.
	if now := statID(info); was == file.seen() && was.Mtime == now.Mtime && was.Size == now.Size {
		file.setSeen(now)
		rs.Images.digester.move(was, now, file.digest, rs.Images.Cache)
	}
	return syncDir(filepath.Dir(path))
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
		if err := os.Remove(rs.pinPath(digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
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
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// acquireBase returns the exact generation with a reference.
func (rs *Roots) acquireBase(ctx context.Context, image, generation string) (*imageFile, error) {
	return rs.Images.acquire(ctx, image, generation, rs.pinPath(generation))
}
