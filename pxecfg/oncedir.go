package pxecfg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// BootDir is a [BootState] in a directory, with a small file for each machine,
// so that it outlives the server and the loss of power: a file is written beside
// the old one, synced, renamed over it, and then the directory is synced. A file
// that cannot be read back is an error, since guessing could install a machine
// again.
//
// One BootDir at a time may use a directory. The fields must not be changed
// while it is in use. The methods may be called concurrently.
type BootDir struct {
	// Dir is the directory. It is made if it is not there.
	Dir string
	// Max is how many machines are remembered. One more is an error (ENOSPC),
	// since forgetting one would let it boot again. 0 means 65536, -1 no
	// limit.
	Max int

	mu    sync.Mutex
	ready bool
	count int
}

const (
	bootExt = ".boot"
	bootTmp = ".tmp"
	// bootDone is the content for a boot that is over.
	bootDone = "done"
)

// open makes the directory and counts its files; those of a write that was cut
// off are removed.
func (d *BootDir) open() error {
	if d.ready {
		return nil
	}
	if d.Dir == "" {
		return fmt.Errorf("boot state without a directory: set Dir: %w", fs.ErrInvalid)
	}
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return err
	}
	files, err := os.ReadDir(d.Dir)
	if err != nil {
		return err
	}
	d.count = 0
	for _, f := range files {
		switch filepath.Ext(f.Name()) {
		case bootExt:
			d.count++
		case bootTmp:
			if err := os.Remove(filepath.Join(d.Dir, f.Name())); err != nil {
				return err
			}
		}
	}
	d.ready = true
	return nil
}

// Begin implements [BootState].
func (d *BootDir) Begin(_ context.Context, machine string, now time.Time) (time.Time, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	began, begun, err := d.read(machine)
	if err != nil || begun {
		return began, err
	}
	return now, d.write(machine, now)
}

// Begun implements [BootState].
func (d *BootDir) Begun(_ context.Context, machine string) (time.Time, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.read(machine)
}

// Set implements [BootState].
func (d *BootDir) Set(_ context.Context, machine string, began time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.write(machine, began)
}

// Reset implements [BootState].
func (d *BootDir) Reset(_ context.Context, machine string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.open(); err != nil {
		return err
	}
	name, err := d.file(machine)
	if err != nil {
		return err
	}
	switch err := os.Remove(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	d.count--
	return syncDir(d.Dir)
}

func (d *BootDir) read(machine string) (began time.Time, begun bool, err error) {
	if err := d.open(); err != nil {
		return began, false, err
	}
	name, err := d.file(machine)
	if err != nil {
		return began, false, err
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return began, false, nil
	}
	if err != nil {
		return began, false, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 100))
	if err == nil {
		began, err = parseBoot(string(text))
	}
	if err != nil {
		return began, false, fmt.Errorf("%s: %w; remove it if the machine may boot once more", name, err)
	}
	return began, true, nil
}

// parseBoot reads a file's content.
func parseBoot(text string) (time.Time, error) {
	line, ok := strings.CutSuffix(text, "\n")
	if ok && line == bootDone {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, line)
	if !ok || err != nil {
		return t, fmt.Errorf("it holds neither a time nor %q: %w", bootDone, fs.ErrInvalid)
	}
	return t, nil
}

func formatBoot(began time.Time) string {
	if began.IsZero() {
		return bootDone + "\n"
	}
	return began.UTC().Format(time.RFC3339Nano) + "\n"
}

func (d *BootDir) write(machine string, began time.Time) error {
	if err := d.open(); err != nil {
		return err
	}
	name, err := d.file(machine)
	if err != nil {
		return err
	}
	isNew := false
	if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		limit := d.Max
		if limit == 0 {
			limit = 1 << 16
		}
		if isNew = true; limit > 0 && d.count >= limit {
			return fmt.Errorf("%d machines are remembered already: raise Max or reset some: %w", limit, syscall.ENOSPC)
		}
	}
	f, err := os.CreateTemp(d.Dir, "*"+bootTmp)
	if err != nil {
		return err
	}
	_, err = f.WriteString(formatBoot(began))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if isNew {
		d.count++
	}
	return syncDir(d.Dir)
}

// file is the file of a machine, whatever its name is made of.
func (d *BootDir) file(machine string) (string, error) {
	const hexDigits = "0123456789ABCDEF"
	name := make([]byte, 0, len(machine)+len(bootExt))
	for i := 0; i < len(machine); i++ {
		switch c := machine[i]; {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-':
			name = append(name, c)
		default:
			name = append(name, '_', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	if len(name) == 0 || len(name) > 200 {
		return "", fmt.Errorf("machine %q: its name makes no file name: %w", cutShort(machine), fs.ErrInvalid)
	}
	return filepath.Join(d.Dir, string(name)+bootExt), nil
}

// syncDir makes a rename last.
func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	err = dir.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		err = nil // a file system that has no such thing
	}
	return errors.Join(err, dir.Close())
}
