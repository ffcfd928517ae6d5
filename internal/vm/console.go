package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
)

var (
	// ErrStopped is in the error of an Expect whose machine has ended.
	ErrStopped = errors.New("machine has stopped")
	// ErrHopeless is in the error of an Expect that met a line after which
	// nothing more can come: a kernel panic, nothing to boot.
	ErrHopeless = errors.New("machine has given up")
)

// hopeless is what firmware, kernel and our guest say last.
var hopeless = regexp.MustCompile(`Kernel panic - not syncing|DISKLESS failed=|^No bootable device|No bootable option or device was found`)

// maxConsole bounds what is kept of a machine that writes without end.
const maxConsole = 16 << 20

// console is a machine's serial console: the lines so far, and how far Expect
// has read them.
type console struct {
	line  func(string)
	limit int // maxConsole

	mu      sync.Mutex
	lines   []string
	size    int
	next    int           // the first line that Expect has not passed
	changed chan struct{} // closed when there is more, and then replaced
	closed  bool
}

// read takes the console's bytes until their end. Escape sequences are left
// out; one that moves the cursor ends a line, as a carriage return does.
func (c *console) read(r io.Reader) {
	var (
		line  []byte
		state byte // 0: text; otherwise the escape sequence's kind
		buf   [4096]byte
	)
	for {
		n, err := r.Read(buf[:])
		for _, b := range buf[:n] {
			end := false
			switch {
			case state == '[':
				if b >= 0x40 && b <= 0x7e {
					state, end = 0, strings.IndexByte("ABEFHJdf", b) >= 0
				}
			case state == 0x1b:
				state = 0
				if b == '[' || b == '(' {
					state = b
				}
			case state == '(':
				state = 0
			case b == 0x1b:
				state = b
			case b == '\n' || b == '\r':
				end = true
			case b >= 0x20 || b == '\t':
				line = append(line, b)
			}
			if len(line) > 0 && (end || len(line) >= 64<<10) {
				c.add(string(line))
				line = line[:0]
			}
		}
		if err != nil {
			if len(line) > 0 {
				c.add(string(line))
			}
			c.mu.Lock()
			c.closed = true
			close(c.changed)
			c.mu.Unlock()
			return
		}
	}
}

func (c *console) add(line string) {
	line = strings.TrimRight(line, " \t")
	if line == "" {
		return
	}
	if c.line != nil {
		c.line(line)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size += len(line) + 1; c.size > c.limit {
		return
	}
	c.lines = append(c.lines, line)
	close(c.changed)
	c.changed = make(chan struct{})
}

// expect returns the next line that the pattern matches.
func (c *console) expect(ctx context.Context, pattern string) (string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return "", err
	}
	for {
		c.mu.Lock()
		for c.next < len(c.lines) {
			line := c.lines[c.next]
			c.next++
			matched := re.MatchString(line)
			if matched || hopeless.MatchString(line) {
				c.mu.Unlock()
				if matched {
					return line, nil
				}
				return "", c.failed(pattern, ErrHopeless)
			}
		}
		changed, closed, size := c.changed, c.closed, c.size
		c.mu.Unlock()
		switch {
		case closed:
			return "", c.failed(pattern, ErrStopped)
		case size > c.limit:
			return "", c.failed(pattern, fmt.Errorf("the console has said more than %d bytes", c.limit))
		}
		select {
		case <-ctx.Done():
			return "", c.failed(pattern, context.Cause(ctx))
		case <-changed:
		}
	}
}

// failed says what was waited for and how the console ended.
func (c *console) failed(pattern string, cause error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	const last = 15
	return fmt.Errorf("waiting for %q: %w; the console's last lines:\n%s",
		pattern, cause, strings.Join(c.lines[max(0, len(c.lines)-last):], "\n"))
}

// transcript returns every line so far.
func (c *console) transcript() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, line := range c.lines {
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.String()
}
