package netroot

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/seed-3ec230fa/diskless/squash"
)

// heavy are the names of jobs and timers that read or fetch a lot.
var heavy = []string{
	"locate", "mlocate", "plocate", "updatedb", "plocate-updatedb", "mlocate-updatedb", "man-db", "man-db-cache-update", "apt-compat", "apt", "apt-daily", "apt-daily-upgrade", "unattended-upgrades",
	"aptitude", "apt-show-versions", "apticron", "debsums", "dnf-makecache", "dnf-automatic", "packagekit", "fwupd-refresh", "motd-news", "update-notifier-download", "ua-timer", "popularity-contest",
	"e2scrub_all", "xfs_scrub_all", "btrfs-scrub", "btrfs-balance", "btrfs-defrag", "fstrim", "mdadm", "mdcheck_start", "mdcheck_continue", "raid-check", "aide", "dailyaidecheck", "tripwire", "chkrootkit", "rkhunter",
}

var (
	jobDirs  = []string{"etc/cron.hourly", "etc/cron.daily", "etc/cron.weekly", "etc/cron.monthly", "etc/cron.yearly"}
	unitDirs = []string{"etc/systemd/system", "lib/systemd/system", "usr/lib/systemd/system"} // those of the administrator come first
)

// isCrontab says whether a file has a job a line.
func isCrontab(name string) bool {
	return name == "etc/crontab" || name == "etc/anacrontab" || slices.Contains([]string{"etc/cron.d", "var/spool/cron", "var/spool/cron/crontabs"}, path.Dir(name))
}

// runsUpdatedb says whether a line of a script, a crontab or a unit does, which
// walks through all files.
func runsUpdatedb(line string) bool {
	return !strings.HasPrefix(strings.TrimSpace(line), "#") && strings.Contains(strings.ReplaceAll(line, "updatedb.conf", ""), "updatedb")
}

func anyLine(text string, is func(line string) bool) bool {
	for line := range strings.Lines(text) {
		if is(line) {
			return true
		}
	}
	return false
}

// byName says whether a file of jobs has a name that says enough.
func byName(name string) bool {
	dir := path.Dir(name)
	return (dir == "etc/cron.d" || slices.Contains(jobDirs, dir)) && slices.Contains(heavy, strings.TrimSuffix(path.Base(name), ".cron"))
}

const atOnce = "all machines would run it at once, through the network, over the same files"

// jobs are what all machines would do at the same time.
func (c *checker) jobs() {
	var names []string
	for name, f := range c.files {
		script := slices.Contains(jobDirs, path.Dir(name))
		if byName(name) || (script || isCrontab(name)) && anyLine(f.text, runsUpdatedb) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		f := c.files[name]
		if byName(name) || !isCrontab(name) {
			c.found("jobs", name, Harmful, exclude(literal(name)), "leave the job out", atOnce)
			continue
		}
		var text strings.Builder
		for line := range strings.Lines(f.text) {
			if runsUpdatedb(line) {
				line = "# by all at once: " + line
			}
			text.WriteString(line)
		}
		c.found("jobs", name, Harmful, rewritten(f, text.String()), "take the lines with updatedb out", atOnce)
	}
}

// timers are those that something starts, of which the name or the service says
// what they are.
func (c *checker) timers() {
	seen := make(map[string]bool)
	var names []string
	for name := range c.files {
		if strings.HasSuffix(name, ".timer") && strings.HasSuffix(path.Dir(name), ".wants") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		base := path.Base(name)
		job := strings.TrimSuffix(base, ".timer")
		timer, masked := c.unit(base)
		if seen[base] || masked {
			continue
		}
		seen[base] = true
		service := job + ".service"
		if s := setting(timer, "Unit"); s != "" {
			service = s
		}
		unit, _ := c.unit(service)
		if slices.Contains(heavy, job) || anyLine(unit, runsUpdatedb) {
			c.found("jobs", name, Harmful, mask(base), "mask the timer: a link to /dev/null in etc/systemd/system", atOnce)
		}
	}
}

// disks are units of what is on a disk.
func (c *checker) disks() {
	seen := make(map[string]bool)
	for _, dir := range unitDirs {
		for _, name := range c.below(dir, func(base string) bool {
			return (strings.HasSuffix(base, ".mount") || strings.HasSuffix(base, ".swap")) && base != "-.mount"
		}) {
			base := path.Base(name)
			text, masked := c.unit(base)
			what, where, kind := setting(text, "What"), setting(text, "Where"), setting(text, "Type")
			if strings.HasSuffix(base, ".swap") {
				where, kind = "none", "swap"
			}
			if seen[base] || masked || what == "" || !local(what, where, kind) {
				continue
			}
			seen[base] = true
			if strings.HasPrefix(what, "/") && !strings.HasPrefix(what, "/dev/") {
				c.swaps = append(c.swaps, what)
			}
			c.found("units", name, Harmful, mask(base), "mask the unit: a link to /dev/null in etc/systemd/system", "%s is of a disk, which the boot would wait for", what)
		}
	}
}

// unit returns the text of a unit of systemd, and whether it is masked.
func (c *checker) unit(base string) (text string, masked bool) {
	for _, dir := range unitDirs {
		f := c.get(path.Join(dir, base))
		switch {
		case f == nil:
		case f.Mode&fs.ModeSymlink == 0:
			return f.text, f.Size == 0 // which is as good as the link
		case f.Target == "/dev/null":
			return "", true
		case path.Base(f.Target) != base: // another name
			for _, dir := range unitDirs {
				if f := c.get(path.Join(dir, path.Base(f.Target))); f != nil {
					return f.text, false
				}
			}
		}
	}
	return "", false
}

// setting is the last value of a name in a unit.
func setting(text, name string) (value string) {
	for line := range strings.Lines(text) {
		if key, v, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == name {
			value = strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return value
}

// mask has systemd not start a unit, and nothing fail that wants it.
func mask(base string) *squash.Rules {
	r := exclude("etc/systemd/system/*.wants/"+literal(base), "etc/systemd/system/*.requires/"+literal(base))
	r.Put = link("etc/systemd/system/"+base, "/dev/null").Put
	return r
}
