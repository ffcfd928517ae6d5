package pxecfg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Step is one name that a machine asks for.
type Step struct {
	// Name is the file, as [Client.Names] has it.
	Name string
	// Hit says that there is such a file for the machine.
	Hit bool
	// Why says what it boots, or why there is none.
	Why string
}

// Explain goes through [Client.Names] as PXELINUX does beside a foreign DHCP
// server, where a machine is only what the name says, and its IP address if the
// client has one: it looks each name up on its own and stops at the first hit.
// Where the machine has a lease, all its names give the same, so the first one
// that has an identity the source knows tells what it boots.
//
// A look changes nothing: [Machines] does not count it as a sighting.
func Explain(ctx context.Context, src Source, c Client) []Step {
	ctx = context.WithValue(ctx, lookKey{}, true)
	var steps []Step
	for _, name := range c.Names() {
		step := Step{Name: name}
		cfg, err := explainName(ctx, src, c, name)
		switch {
		case err == nil:
			step.Hit, step.Why = true, cfg.summary()
		case errors.Is(err, errShortened), errors.Is(err, errFallback):
			step.Why = err.Error()
		case errors.Is(err, fs.ErrNotExist):
			step.Why = "the source has nothing for it"
		default:
			step.Why = "the source failed: " + err.Error()
		}
		steps = append(steps, step)
		if step.Hit {
			break
		}
	}
	return steps
}

var (
	errShortened = errors.New("a shortened address names no machine, and the whole one was not configured")
	errFallback  = errors.New("only the fallback for unknown machines, which is kept for the last name")
)

func explainName(ctx context.Context, src Source, c Client, name string) (*Config, error) {
	r, ok := parseRequest(name)
	if !ok {
		return nil, fs.ErrNotExist // option 209: a file of the caller's
	}
	if r.ladder != "" {
		return nil, errShortened
	}
	cfg, err := ask(ctx, src, r.client(c.IP))
	if err == nil && cfg.Fallback && r.specific() {
		return nil, errFallback
	}
	return cfg, err
}

// summary says in one line what a Config boots.
func (c *Config) summary() string {
	if len(c.Entries) == 0 {
		return "a configuration without entries"
	}
	var b strings.Builder
	if c.Fallback {
		b.WriteString("fallback for unknown machines: ")
	}
	for i := range c.Entries {
		e := &c.Entries[i]
		if e.Label != c.first() {
			continue
		}
		switch {
		case e.LocalBoot:
			fmt.Fprintf(&b, "entry %q: the local disk", e.Label)
		case e.Chain != "":
			fmt.Fprintf(&b, "entry %q: chain %s", e.Label, e.Chain)
		default:
			fmt.Fprintf(&b, "entry %q: kernel %s", e.Label, e.Kernel)
		}
		break
	}
	if n := len(c.Entries); n > 1 {
		fmt.Fprintf(&b, " (menu of %d)", n)
	}
	return b.String()
}

type lookKey struct{}

func isLook(ctx context.Context) bool { look, _ := ctx.Value(lookKey{}).(bool); return look }
