package nbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Commit writes what the overlay reads as to a new file and renames that to
// path when it is complete and on stable storage, in the place of any file
// there: path holds one or the other, whole, at every moment. Zeroes become
// holes. Writes to the overlay wait meanwhile, reads do not; the overlay stays
// as it is. It costs reading the whole device once. A process that is killed
// meanwhile leaves the new file behind, as .NAME.*.new beside path.
//
// A path that [Images] has registered gets a new generation by this.
func (o *Overlay) Commit(ctx context.Context, path string) (err error) {
	o.life.RLock()
	defer o.life.RUnlock()
	o.writes.Lock()
	defer o.writes.Unlock()
	if o.ended != nil {
		return o.ended
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.new")
	if err != nil {
		return fmt.Errorf("nbd: overlay: commit: %w", err)
	}
	renamed := false
	defer func() {
		if err != nil && !renamed {
			err = errors.Join(fmt.Errorf("nbd: overlay: commit to %s: %w", path, err), f.Close(), os.Remove(f.Name()))
		}
	}()
	buf := make([]byte, 4*chunkBytes)
	zeroes := make([]byte, overlayBlock)
	for off := int64(0); off < o.size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:min(int64(len(buf)), o.size-off)]
		for n := 0; n < len(p); {
			part := chunkPart(p[n:], off+int64(n))
			if err := o.readChunk(part, off+int64(n)); err != nil {
				return err
			}
			n += len(part)
		}
		for n := 0; n < len(p); {
			end := n // of the blocks that are not zeroes
			for end < len(p) {
				part := p[end:min(end+overlayBlock, len(p))]
				if bytes.Equal(part, zeroes[:len(part)]) {
					break
				}
				end += len(part)
			}
			if end == n {
				n += overlayBlock
				continue
			}
			if _, err := f.WriteAt(p[n:end], off+int64(n)); err != nil {
				return err
			}
			n = end
		}
		off += int64(len(p))
	}
	if err := errors.Join(f.Truncate(o.size), f.Chmod(0o644), o.disk.syncFile(f)); err != nil {
		return err
	}
	if err := o.disk.rename(f.Name(), path); err != nil {
		return err
	}
	renamed = true
	return errors.Join(f.Close(), o.disk.syncDir(filepath.Dir(path)))
}
