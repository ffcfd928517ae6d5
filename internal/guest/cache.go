package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// CacheDir returns the directory where what was fetched and built is kept
// between runs: DISKLESS_CACHE if it is set, or "diskless" in the user's
// cache directory. Removing it makes everything anew, with a newer kernel.
func CacheDir() string {
	if dir := os.Getenv("DISKLESS_CACHE"); dir != "" {
		if abs, err := filepath.Abs(dir); err == nil {
			return abs
		}
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return filepath.Join(os.TempDir(), fmt.Sprintf("diskless-cache-%d", os.Getuid()))
	}
	return filepath.Join(dir, "diskless")
}

// once returns cacheDir/name, calling build to make it when it is not there.
// build is given a directory that nobody else uses, and leaves its result (a
// file or a directory) in it under the base of name; that is moved into place
// in one step, so that a build cut short leaves nothing half made. Of several
// processes one builds and the others wait.
func once(ctx context.Context, cacheDir, name string, build func(dir string) error) (string, error) {
	target := filepath.Join(cacheDir, name)
	if _, err := os.Lstat(target); err == nil {
		return target, nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, target+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Lstat(target); err == nil {
		return target, nil
	}
	dir, err := os.MkdirTemp(filepath.Dir(target), ".build-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(dir, filepath.Base(name)), target); err != nil {
		return "", err
	}
	return target, nil
}

// lock waits for an advisory lock on a file, which the kernel drops when its
// holder is gone.
func lock(ctx context.Context, file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", file, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("waiting for another process to finish with %s: %w", file, ctx.Err())
		case <-tick.C:
		}
	}
}
