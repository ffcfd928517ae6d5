package netroot

import (
	"path"
	"slices"
	"strings"

	"github.com/seed-3ec230fa/diskless/squash"
)

// fstab takes disks out, and for a shared root puts in what each machine must
// have for itself.
func (c *checker) fstab() {
	f := c.files["etc/fstab"]
	text, changed := "", false
	have := make(map[string]bool)
	if f != nil && f.Mode.IsRegular() {
		for line := range strings.Lines(f.text) {
			words := strings.Fields(line)
			if len(words) < 3 || strings.HasPrefix(words[0], "#") {
				text += line
				continue
			}
			device, dir, kind := words[0], words[1], words[2]
			have[dir] = true
			if !local(device, dir, kind) {
				text += line
				continue
			}
			changed = true
			text += "# no disk: " + line
			if strings.HasPrefix(device, "/") && !strings.HasPrefix(device, "/dev/") {
				c.swaps = append(c.swaps, device)
				continue // a swap file, which is a finding of its own
			}
			c.found("fstab", "etc/fstab", Harmful, nil, "take the line out of etc/fstab", "%s on %s is of a disk, which the boot would wait for", device, dir)
		}
	}
	if c.opts.Root == NFS {
		for _, dir := range []string{"/tmp", "/var/tmp", "/var/log", "/media"} {
			if have[dir] {
				continue
			}
			mode := "1777"
			if dir == "/var/log" || dir == "/media" {
				mode = "0755"
			}
			if text != "" && !strings.HasSuffix(text, "\n") {
				text += "\n"
			}
			text += "tmpfs " + dir + " tmpfs nosuid,nodev,mode=" + mode + " 0 0\n"
			changed = true
			c.found("shared", dir[1:], Harmful, nil, "mount a tmpfs there: a line in etc/fstab", "all machines would write to the same %s", dir)
		}
	}
	if !changed {
		return
	}
	rules := put(squash.NewFile("etc/fstab", 0o644, []byte(text)))
	if f != nil {
		rules = rewritten(f, text)
	}
	// One file, one rule for all of the findings.
	shared := false
	for i := range c.findings {
		if f := &c.findings[i]; f.Name == "fstab" || f.Name == "shared" {
			f.Rules, shared = rules, true
		}
	}
	if !shared {
		c.found("fstab", "etc/fstab", Harmful, rules, "take the lines out of etc/fstab", "there are lines for what is on no disk")
	}
}

// local says whether a line of fstab is of a disk.
func local(device, dir, kind string) bool {
	switch {
	case kind == "swap" || dir == "/":
		return !strings.HasPrefix(device, "/dev/nfs") && !strings.HasPrefix(device, "/dev/nbd") && !strings.HasPrefix(device, "/dev/zram")
	case strings.HasPrefix(device, "/dev/nbd"), strings.HasPrefix(device, "/dev/zram"):
		return false
	}
	for _, p := range []string{"/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "ID="} {
		if strings.HasPrefix(device, p) {
			return true
		}
	}
	return false
}

func (c *checker) swap() {
	list := []string{"swapfile", "swap.img", "swap"}
	for _, name := range c.swaps {
		// Blanks are octal in fstab.
		list = append(list, strings.TrimPrefix(path.Clean(strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(name)), "/"))
	}
	slices.Sort(list)
	for _, name := range slices.Compact(list) {
		if f := c.files[name]; f != nil && f.Mode.IsRegular() {
			c.found("swap", name, Harmful, exclude(literal(name)), "leave the file out; give machines that need swap some over NBD", "a swap file of %d bytes, which cannot be used from here", f.Size)
		}
	}
}

// interfaces makes cards manual that ifupdown would configure again.
func (c *checker) interfaces() {
	list := append([]string{"etc/network/interfaces"}, c.below("etc/network/interfaces.d", func(string) bool { return true })...)
	for _, name := range list {
		f := c.files[name]
		if f == nil || !f.Mode.IsRegular() {
			continue
		}
		var text strings.Builder
		var cards []string
		inside := false
		for line := range strings.Lines(f.text) {
			words := strings.Fields(line)
			switch {
			case len(words) >= 4 && words[0] == "iface":
				inside = words[1] != "lo" && (words[3] == "dhcp" || words[3] == "static" || words[3] == "auto")
				if inside {
					cards = append(cards, words[1])
					line = strings.Join(append([]string{"iface", words[1], words[2], "manual"}, words[4:]...), " ") + "\n"
				}
			case len(words) > 0 && slices.Contains([]string{"auto", "mapping", "source", "source-directory", "no-auto-down", "no-scripts", "rename"}, words[0]), len(words) > 0 && strings.HasPrefix(words[0], "allow-"):
				inside = false
			case inside && len(words) > 0 && slices.Contains([]string{"address", "netmask", "gateway", "broadcast", "network", "dns-nameservers", "dns-search", "hostname"}, words[0]):
				line = "# by the boot: " + line
			}
			text.WriteString(line)
		}
		if len(cards) > 0 {
			c.found("interfaces", name, Harmful, rewritten(f, text.String()), "make the card manual: iface NAME inet manual",
				"%s would be configured again, which cuts the machine off from its root", strings.Join(cards, ", "))
		}
	}
}

func (c *checker) networkManager() {
	if c.get("usr/sbin/NetworkManager") == nil {
		return
	}
	if c.files["etc/NetworkManager/conf.d/90-diskless.conf"] != nil {
		return
	}
	c.found("networkmanager", "etc/NetworkManager", Harmful,
		put(squash.NewFile("etc/NetworkManager/conf.d/90-diskless.conf", 0o644, []byte("[device-diskless]\nmatch-device=type:ethernet\nmanaged=0\n"))),
		"let it leave wired cards alone: a file in etc/NetworkManager/conf.d", "NetworkManager would take the card over that the root comes through")
}

func (c *checker) networkd() {
	for _, name := range c.below("etc/systemd/network", func(base string) bool { return strings.HasSuffix(base, ".network") }) {
		f := c.files[name]
		if !f.Mode.IsRegular() || c.files[name+".d/90-diskless.conf"] != nil || strings.Contains(f.text, "KeepConfiguration=") || !strings.Contains(f.text, "DHCP=") && !strings.Contains(f.text, "Address=") {
			continue
		}
		c.found("networkd", name, Harmful, put(squash.NewFile(name+".d/90-diskless.conf", 0o644, []byte("[Network]\nKeepConfiguration=yes\n"))),
			"KeepConfiguration=yes in its [Network] section", "systemd-networkd would take addresses away that the initrd has set")
	}
}

func (c *checker) netplan() {
	for _, name := range c.below("etc/netplan", func(base string) bool { return strings.HasSuffix(base, ".yaml") }) {
		c.found("netplan", name, Harmful, nil, "critical: true for the card, or leave the file out", "netplan would configure cards again, the root's among them")
	}
}

func (c *checker) machineID() {
	// Without the file, or with this word, systemd takes each boot for the first
	// one (machine-id(5)); where it cannot be made either, it does not boot.
	const remedy = "make it an empty file: over that systemd keeps the machine's own in memory"
	f := c.files["etc/machine-id"]
	switch {
	case f == nil:
		if c.systemd() {
			c.found("machine-id", "etc/machine-id", Harmful, put(squash.NewFile("etc/machine-id", 0o444, nil)), remedy, "it is missing: each boot would be a first boot, with its presets and questions")
		}
	case !f.Mode.IsRegular():
	case strings.TrimSpace(f.text) == "uninitialized":
		c.found("machine-id", f.Path, Harmful, rewritten(f, ""), remedy, "each boot would be a first boot, with its presets and questions")
	case strings.TrimSpace(f.text) != "":
		c.found("machine-id", f.Path, Harmful, rewritten(f, ""), remedy, "all machines would have the machine-id %s: the same DHCP client-id, the same journal", strings.TrimSpace(f.text))
	}
	if f := c.files["var/lib/dbus/machine-id"]; f != nil && f.Mode.IsRegular() && f.Size > 0 {
		c.found("machine-id", f.Path, Harmful, link(f.Path, "/etc/machine-id"), "make it a link to /etc/machine-id", "all machines would have one D-Bus machine-id")
	}
}

func (c *checker) systemd() bool {
	return c.get("lib/systemd/systemd") != nil || c.get("usr/lib/systemd/systemd") != nil
}

// sharedEtc says what an empty machine-id is not enough for: systemd writes the
// first machine's to it, and so does systemd-machine-id-commit after a boot
// that began read-only. systemd.machine_id= is no remedy by itself, for that is
// written, too. No file of the tree says how it will be mounted.
func (c *checker) sharedEtc() {
	if c.opts.Root != NFS {
		return
	}
	c.found("shared-etc", "etc", Harmful, nil,
		"mount the root read-only (export it ro, boot with ro, no line for / in etc/fstab), or give each machine an /etc of its own: overlayroot=tmpfs, or the initrd add-on of diskless",
		"machines that mount the root writable have one /etc: the first one to boot writes its machine-id there for all, and host keys made at boot are everybody's")
}

func (c *checker) hostKeys() {
	keys := c.below("etc/ssh", func(base string) bool { return strings.HasPrefix(base, "ssh_host_") })
	if len(keys) == 0 {
		return
	}
	remedy := "leave them out, and give each machine its own at boot"
	if c.opts.Root == NFS {
		remedy = "leave them out, and give each machine its own at boot where the others do not see them: HostKey /run/... in etc/ssh/sshd_config, or an /etc of its own"
	}
	c.found("host-keys", keys[0], Harmful, exclude("etc/ssh/ssh_host_*"), remedy,
		"all machines would have these %d host keys, which whoever can read the image has, too", len(keys))
}

func (c *checker) hostname() {
	if f := c.files["etc/hostname"]; f != nil && f.Mode.IsRegular() && strings.TrimSpace(f.text) != "" {
		c.found("hostname", f.Path, Advice, exclude("etc/hostname"), "leave it out: the name comes by DHCP", "all machines would be called %q", strings.TrimSpace(f.text))
	}
}

// logs are what the builder has logged.
func (c *checker) logs() {
	var names []string
	size := int64(0)
	for name, f := range c.files {
		if strings.HasPrefix(name, "var/log/") && f.Mode.IsRegular() && f.Size > 0 {
			names = append(names, literal(name))
			size += f.Size
		}
	}
	slices.Sort(names)
	if n := len(names); n > 0 {
		if n > 1000 { // whatever they are called
			names = []string{"var/log/*", "var/log/.*"}
		}
		c.found("logs", "var/log", Advice, exclude(names...), "leave the logs out", "%d logs of the machine that built the tree, %d bytes", n, size)
	}
}

func (c *checker) leftovers() {
	if c.files[".dockerenv"] != nil {
		c.found("container", ".dockerenv", Harmful, exclude(".dockerenv"), "leave it out", "systemd would take the machine for a container and start less")
	}
	for _, dir := range []string{"tmp", "var/tmp", "media"} {
		if names := c.below(dir, func(string) bool { return true }); len(names) > 0 {
			c.found("leftovers", dir, Advice, exclude(dir+"/*", dir+"/.*"), "leave them out", "%d files that nobody will miss", len(names))
		}
	}
	if f := c.files["var/lib/systemd/random-seed"]; f != nil {
		c.found("random-seed", f.Path, Harmful, exclude(f.Path), "leave it out", "all machines would begin with the same random numbers")
	}
	for _, name := range c.below("etc/udev/rules.d", func(string) bool { return true }) {
		c.found("udev-names", name, Harmful, exclude(literal(name)), "leave it out", "it names the cards of one machine")
	}
	for _, dir := range []string{"var/lib/dhcp", "var/lib/NetworkManager"} {
		if names := c.below(dir, func(string) bool { return true }); len(names) > 0 {
			c.found("leases", names[0], Harmful, exclude(dir+"/*.leases", dir+"/*.lease"), "leave them out", "all machines would ask for the addresses of one")
		}
	}
}
