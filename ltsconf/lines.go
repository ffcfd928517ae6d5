package ltsconf

import (
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
)

// Mount is a line of /etc/fstab.
type Mount struct {
	Source  string // as in 10.0.0.1:/data, /dev/sda1, LABEL=cache
	Target  string // an absolute path; none or swap for a swap area
	Type    string
	Options []string

	// Required leaves out nofail: without it, a boot goes on when the source
	// cannot be mounted.
	Required bool

	Dump, Pass int
}

// Line returns the line. White space and backslashes in a field are written
// as fstab(5) has them. An error is [fs.ErrInvalid].
func (m Mount) Line() (string, error) {
	opts := m.Options
	if len(opts) == 0 {
		opts = []string{"defaults"}
	}
	has := false
	for _, o := range opts {
		if o == "" || strings.ContainsAny(o, " \t\n") {
			return "", fmt.Errorf("mount option %q: empty, or with white space: %w", clip(o), fs.ErrInvalid)
		}
		for part := range strings.SplitSeq(o, ",") {
			has = has || part == "nofail"
		}
	}
	if !m.Required && !has {
		opts = append(opts[:len(opts):len(opts)], "nofail")
	}
	switch {
	case m.Source == "" || strings.HasPrefix(m.Source, "#"):
		return "", fmt.Errorf("mount of %q has no source: %w", clip(m.Target), fs.ErrInvalid)
	case !strings.HasPrefix(m.Target, "/") && m.Target != "none" && m.Target != "swap":
		return "", fmt.Errorf("mount of %q: target %q is no absolute path: %w", clip(m.Source), clip(m.Target), fs.ErrInvalid)
	case m.Type == "":
		return "", fmt.Errorf("mount of %q has no type: %w", clip(m.Source), fs.ErrInvalid)
	case m.Dump < 0 || m.Pass < 0:
		return "", fmt.Errorf("mount of %q: dump and pass cannot be negative: %w", clip(m.Source), fs.ErrInvalid)
	}
	esc := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace
	return fmt.Sprintf("%s %s %s %s %d %d", esc(m.Source), esc(m.Target), esc(m.Type), esc(strings.Join(opts, ",")), m.Dump, m.Pass), nil
}

// Command returns a command as shell code in which each argument stays as it
// is: for the families of shell code.
func Command(args ...string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		plain := a != "" && strings.Trim(fold(a), "abcdefghijklmnopqrstuvwxyz0123456789-_./:,@%+=") == ""
		if plain && (i > 0 || !strings.Contains(a, "=")) {
			quoted[i] = a
		} else {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// CronJob is a line of a system crontab.
type CronJob struct {
	Schedule string // five fields, or @daily and the like
	User     string // empty means root
	Command  string // shell code; % is escaped
}

// Line returns the line. An error is [fs.ErrInvalid].
func (c CronJob) Line() (string, error) {
	n := len(strings.Fields(c.Schedule))
	if n != 5 && !(n == 1 && strings.HasPrefix(c.Schedule, "@")) {
		return "", fmt.Errorf("cron schedule %q: five fields, or @ and a word: %w", clip(c.Schedule), fs.ErrInvalid)
	}
	if c.User == "" {
		c.User = "root"
	}
	if strings.ContainsAny(c.User, " \t\n") || c.Command == "" || strings.Contains(c.Command, "\n") {
		return "", fmt.Errorf("cron job %q: a user is one word, a command one line: %w", clip(c.Command), fs.ErrInvalid)
	}
	return strings.Join(strings.Fields(c.Schedule), " ") + " " + c.User + " " + strings.ReplaceAll(c.Command, "%", `\%`), nil
}

// HostsLine returns a line of /etc/hosts. An error is [fs.ErrInvalid].
func HostsLine(addr netip.Addr, names ...string) (string, error) {
	if !addr.IsValid() || len(names) == 0 {
		return "", fmt.Errorf("a line of /etc/hosts needs an address and a name: %w", fs.ErrInvalid)
	}
	for _, n := range names {
		if n == "" || strings.ContainsAny(n, " \t\n#") {
			return "", fmt.Errorf("%q is no host name: %w", clip(n), fs.ErrInvalid)
		}
	}
	return addr.String() + " " + strings.Join(names, " "), nil
}
