package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Acquire waits until n more machines may run on this host, counting all
// processes that ask with the same directory: two at a time, or as many as
// DISKLESS_VMS says, since boots cost processor time and a host that is too
// busy makes them fail. Who needs two machines at once asks for both at once;
// more than there are places for count as all of them. The kernel gives the
// places back when the process ends without calling release.
func Acquire(ctx context.Context, dir string, n int) (release func(), err error) {
	total := 2
	if s := os.Getenv("DISKLESS_VMS"); s != "" {
		if total, err = strconv.Atoi(s); err != nil || total < 1 {
			return nil, fmt.Errorf("DISKLESS_VMS=%s: not a number of machines", s)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// One waits at a time, so that two who want several places do not each
	// hold what the other waits for.
	gate, err := flock(ctx, filepath.Join(dir, "machines.lock"))
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	var held []*os.File
	var once sync.Once
	release = func() {
		once.Do(func() {
			for _, f := range held {
				f.Close()
			}
		})
	}
	for len(held) < min(n, total) {
		for i := 0; i < total && len(held) < min(n, total); i++ {
			f, err := tryFlock(filepath.Join(dir, fmt.Sprintf("machine-%d.lock", i)))
			if err != nil {
				release()
				return nil, err
			}
			if f != nil {
				held = append(held, f)
			}
		}
		if len(held) < min(n, total) {
			if err := pause(ctx); err != nil {
				release()
				return nil, err
			}
		}
	}
	return release, nil
}

// flock waits for a lock on a file; closing it unlocks.
func flock(ctx context.Context, path string) (*os.File, error) {
	for {
		if f, err := tryFlock(path); f != nil || err != nil {
			return f, err
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// tryFlock returns nil, nil if another open file holds the lock.
func tryFlock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
	case nil:
		return f, nil
	case unix.EWOULDBLOCK, unix.EINTR:
		f.Close()
		return nil, nil
	default:
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
}

func pause(ctx context.Context) error {
	t := time.NewTimer(100 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("waiting for other virtual machines to end: %w", context.Cause(ctx))
	case <-t.C:
		return nil
	}
}
