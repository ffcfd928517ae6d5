package netroot

import "github.com/seed-3ec230fa/diskless/squash"

// Excludes are patterns for [squash.Rules] of what an image of an installed
// system should not hold, as LTSP has them for its images: the contents of
// directories that belong to one machine or its users, caches, logs, spools and
// secrets. The directories themselves stay.
func Excludes() []squash.Pattern {
	var list []squash.Pattern
	for _, dir := range []string{
		"cdrom", "home", "lost+found", "media", "mnt", "proc", "root", "run", "snap", "srv", "sys", "tmp",
		"var/cache/apt/archives", "var/crash", "var/lib/apt/lists", "var/lib/lightdm", "var/lib/mysql", "var/lib/sudo",
		"var/log/journal", "var/mail", "var/spool/cron/crontabs", "var/spool/mail", "var/spool/squid", "var/tmp",
		"etc/NetworkManager/system-connections",
	} {
		// A star does not match the dot that begins a name.
		list = append(list, squash.Pattern(dir+"/*"), squash.Pattern(dir+"/.*"))
	}
	return append(list,
		"opt/ltsp*", "swapfile", "swap.img", "etc/.git", "etc/.hg", "etc/.bzr", "etc/.svn", "etc/epoptes/server.key", "etc/mysql/debian.cnf",
		"etc/udev/rules.d/70-persistent-*", "etc/ssh/ssh_host_*", "var/cache/apt/*.bin", "var/log/*.gz", "var/log/*.[0-9]", "var/log/*/*.gz", "var/log/*/*.[0-9]")
}
