package nbd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// clockTick is longer than the steps in which kernels stamp files: a file that
// was changed longer ago than this gets another stamp when it changes again.
const clockTick = 20 * time.Millisecond

// maxDigests bounds the digests that are remembered.
const maxDigests = 4096

// digester computes each file's SHA-256 once, however many ask at a time.
type digester struct {
	mu     sync.Mutex
	jobs   map[fileID]*digestJob
	known  map[fileID]string
	loaded bool
	closed bool
	wg     sync.WaitGroup
}

type digestJob struct {
	done    chan struct{}
	digest  string
	err     error
	waiters int
	cancel  context.CancelFunc
}

// digest returns the SHA-256 of the file in the state id. The work stops when
// nobody waits for it any more. cache is a file to remember digests in, or "".
func (d *digester) digest(ctx context.Context, file *imageFile, id fileID, cache string) (string, error) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return "", fmt.Errorf("nbd: images: %w", fs.ErrClosed)
	}
	if !d.loaded {
		d.loaded = true
		d.known = loadDigests(cache)
	}
	if digest, ok := d.known[id]; ok {
		d.mu.Unlock()
		return digest, nil
	}
	job := d.jobs[id]
	if job == nil {
		jobCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		job = &digestJob{done: make(chan struct{}), cancel: cancel}
		if d.jobs == nil {
			d.jobs = make(map[fileID]*digestJob)
		}
		d.jobs[id] = job
		d.wg.Add(1)
		file.retain()
		go d.run(jobCtx, job, file, id, cache)
	}
	job.waiters++
	d.mu.Unlock()

	var digest string
	var err error
	select {
	case <-job.done:
		digest, err = job.digest, job.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if job.waiters--; job.waiters == 0 {
		job.cancel()
		if d.jobs[id] == job {
			delete(d.jobs, id) // the next one who asks starts anew
		}
	}
	return digest, err
}

func (d *digester) run(ctx context.Context, job *digestJob, file *imageFile, id fileID, cache string) {
	defer d.wg.Done()
	defer file.release()
	job.digest, job.err = hashFile(ctx, file, id)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.jobs[id] == job {
		delete(d.jobs, id)
	}
	if job.err == nil {
		if len(d.known) >= maxDigests {
			clear(d.known)
		}
		d.known[id] = job.digest
		saveDigests(cache, d.known)
	}
	close(job.done)
}

// hashFile reads the whole file and makes sure that it held still meanwhile.
func hashFile(ctx context.Context, file *imageFile, id fileID) (string, error) {
	if wait := clockTick - time.Since(time.Unix(0, max(id.Mtime, id.Ctime))); wait > 0 && wait <= clockTick {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	h := sha256.New()
	n, err := io.CopyBuffer(h, contextReader{ctx, io.NewSectionReader(file.f, 0, id.Size)}, make([]byte, 1<<20))
	if err != nil {
		return "", fmt.Errorf("nbd: reading %s for its digest: %w", file.f.Name(), err)
	}
	now, err := file.stat()
	if err != nil {
		return "", err
	}
	if n != id.Size || id.Size != now.Size || id.Mtime != now.Mtime {
		return "", fmt.Errorf("nbd: %s: %w", file.f.Name(), errImageWritten)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// move remembers a digest under the state that a file has now.
func (d *digester) move(from, to fileID, digest, cache string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.known, from)
	d.known[to] = digest
	saveDigests(cache, d.known)
}

// close ends the work in hand and waits for it.
func (d *digester) close() {
	d.mu.Lock()
	d.closed = true
	for _, job := range d.jobs {
		job.cancel()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

var errImageWritten = errors.New("it is being written to: write a new file beside it and rename that when it is complete")

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

type digestRow struct {
	fileID
	SHA256 string
}

// loadDigests and saveDigests treat the cache as what it is: without it, or
// with a damaged one, the images are read again.
func loadDigests(cache string) map[fileID]string {
	known := make(map[fileID]string)
	if cache == "" {
		return known
	}
	text, err := os.ReadFile(cache)
	var rows []digestRow
	if err != nil || json.Unmarshal(text, &rows) != nil || len(rows) > maxDigests {
		return known
	}
	for _, row := range rows {
		if len(row.SHA256) == maxGeneration && validGeneration(row.SHA256) {
			known[row.fileID] = row.SHA256
		}
	}
	return known
}

func saveDigests(cache string, known map[fileID]string) {
	if cache == "" {
		return
	}
	rows := make([]digestRow, 0, len(known))
	for id, digest := range known {
		rows = append(rows, digestRow{id, digest})
	}
	text, err := json.MarshalIndent(rows, "", " ")
	if err == nil {
		err = disk{}.writeFile(cache, append(text, '\n'), 0o600)
	}
	_ = err // the next start reads the images again
}
