package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/seed-3ec230fa/diskless/internal/timeline"
)

// printer writes the story of a boot: what the servers saw, what the client
// or the console said.
type printer struct {
	w     io.Writer
	start time.Time
	mu    sync.Mutex
}

func newPrinter(w io.Writer) *printer { return &printer{w: w, start: time.Now()} }

func (p *printer) line(side, stage, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "%8.3fs  %-7s %-6s %s\n", time.Since(p.start).Seconds(), side, stage, text)
}

// say writes a line of its own.
func (p *printer) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// client tells what the machine did.
func (p *printer) client(stage, format string, args ...any) {
	p.line("machine", stage, fmt.Sprintf(format, args...))
}

// event tells what a server saw.
func (p *printer) event(e timeline.Event) {
	who := e.Name
	if who == "" {
		who = e.MAC
	}
	if who == "" {
		who = e.Addr.String()
	}
	text := fmt.Sprintf("%s: %s", who, e.What)
	if e.Bytes > 0 {
		text += "  " + size(e.Bytes)
	}
	if e.Took > 0 {
		text += fmt.Sprintf(" in %s", e.Took.Round(100*time.Microsecond))
	}
	if e.Err != nil {
		text += "  FAILED: " + e.Err.Error()
	}
	p.line("server", e.Stage, text)
}

// console passes a line of the guest's serial console on, if it is for people.
func (p *printer) console(line string) {
	if line = strings.TrimRight(line, " \r"); line != "" && !strings.Contains(line, "DISKLESS #") {
		p.line("console", "", line)
	}
}

func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	default:
		return fmt.Sprintf("%d bytes", n)
	}
}
