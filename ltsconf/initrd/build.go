package initrd

import (
	"bytes"
	_ "embed"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"strings"
)

// Setting is one setting of an lts.conf or ltsp.conf, as it applies to one
// machine.
type Setting struct {
	Name string
	// Value arrives on the machine byte by byte.
	Value string
	// Expand says that Value is text as it stands between double quotes of a
	// shell, with a $VAR or a $(command) in it that only the machine can
	// expand. It does so before init, with the other settings as variables.
	Expand bool
}

// Options is what a machine gets besides its settings. The zero value works.
type Options struct {
	// Hostname is the machine's name, unless there is a setting HOSTNAME that is
	// not empty.
	// Empty: the image's.
	Hostname string
	// MachineID is what /etc/machine-id has, 32 digits. Empty: a new one at
	// each boot, unless the root is the machine's own.
	MachineID string
	// HostKeys are private keys of the machine's SSH server in OpenSSH's
	// format, by the name of their file, such as ssh_host_ed25519_key. They take the
	// place of the image's. Without any the SSH server is not started,
	// since many machines would have one key, unless KEEP_SYSTEM_SERVICES says so.
	HostKeys map[string][]byte
	// AuthorizedKeys are lines for the authorized_keys of users, by their name.
	// For users without any, and for root in any case, those that earlier boots
	// have put into a root of the machine's own are taken away.
	AuthorizedKeys map[string][]string

	// OverlaySize limits the overlay in memory, as the size= of a tmpfs: "2G",
	// "50%". Empty is the tmpfs' own default, half of the memory.
	OverlaySize string
	// OverlayLabel is the label of a file system on a disk of the machine that
	// holds the overlay, where there is one. What it held is removed at each
	// boot.
	OverlayLabel string
	// OverlayKept keeps what it held for as long as the kernel's arguments name
	// the same root: changes that were made to one image do not fit another.
	OverlayKept bool
	// OwnNFS says that a root on NFS is this machine's alone.
	OwnNFS bool
	// Swap is an area for memory that does not fit, with an NBD server. The
	// settings can say otherwise. The zero value is none.
	Swap Swap
	// Break stops before the switch to the new root, with a shell.
	Break Break
	// Report is the http URL, without a query, that the machine asks for when
	// it is up. Empty: none. The query has began, ended and up, in seconds
	// since the kernel started: when the root was there, when it was ready
	// and when this was sent; and failed for each setting that failed.
	Report string
}

// Swap is a device of an NBD server that is this machine's alone. What it holds
// before does not matter. A server that lost it must refuse the connection then,
// not offer an empty one: the kernel would take that for its memory.
type Swap struct {
	Server netip.Addr
	Port   uint16 // 0 is 10809
	Export string
}

// Break says when there is a shell before the switch to the new root.
type Break string

// The breaks.
const (
	NoBreak      Break = ""
	BreakOnError Break = "error"
	BreakAlways  Break = "always"
)

//go:embed files/hook
var hook []byte

//go:embed files/machine
var machine []byte

//go:embed files/commands
var commandsScript []byte

//go:embed files/tell
var tell []byte

//go:embed files/initramfs-tools
var initramfsTools []byte

//go:embed files/dracut-early
var dracutEarly []byte

//go:embed files/dracut-root
var dracutRoot []byte

// Build returns the archive for a machine; modules may be nil. The same
// arguments make the same bytes. It may be called concurrently.
//
// These settings have a meaning, and all of them are in the environment of
// commands. Those of a family take effect in the order in which they are given.
//
//	HOSTNAME, HOSTS_*             names
//	DNS_SERVER, SEARCH_DOMAIN     resolvers; what is not set is what DHCP said
//	TIMEZONE, LANG, LC_*          time zone and locale
//	CONSOLE_KEYMAP, XKB*          keyboard
//	FSTAB_*                       lines of fstab, made to let the boot go on (nofail)
//	CRONTAB_*                     lines of a system crontab, for the image's cron
//	MODULE_*                      arguments of modprobe
//	KEEP_SYSTEM_SERVICES          services that start although [Services] has them
//	RM_, DISABLE_, MASK_SYSTEM_SERVICES   further services that do not start
//	INIT_COMMAND_*, PRE_INIT_*    shell commands, when the files are written
//	PREINIT_*, POST_INIT_*        shell commands, right before init
//	RCFILE_*                      shell commands, at the end of the boot
//	LTSP_NBD_TO_RAM, IMAGE_TO_RAM the image is copied to memory
//	NBD_SWAP                      whether there is swap over NBD; without it, where
//	                              there are less than NBD_SWAP_THRESHOLD MiB
//	                              of memory, 2100 if that is not set
//	NBD_SWAP_HOST, NBD_SWAP_PORT  another server, with an export swap
//	DEBUG_SHELL                   as [BreakOnError]
//
// The commands before init share one shell, and so do those at the end: what
// one of them sets, those behind it see. One that ends the shell, such as an
// exit, ends no other command; they run in a new shell.
//
// On a root of the machine's own, what a setting no longer says is taken back:
// lines of hosts, fstab, crontabs and keys go, and files of the time zone, locale
// and keyboard are again those that were there (until then NAME.diskless).
//
// A setting that cannot be carried out, such as one whose name is none of a
// shell's, is no error here: the machine tells of it. So it does of one that has
// more than 100,000 bytes, and of those before the last MiB: Linux gives no
// command a much larger environment. An error is an
// [fs.ErrInvalid] and says which of the options is wrong.
func Build(settings []Setting, modules Modules, o *Options) ([]byte, error) {
	if o == nil {
		o = &Options{}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	settings, no := usable(settings)
	var a archive
	// All of it goes to /run at once, and so do directories for units.
	a.dir("diskless", 0o700)
	a.dir("diskless/output", 0o700)
	a.dir("diskless/ro", 0o755)
	a.dir("diskless/rw", 0o755)
	a.file("diskless/hook", 0o644, hook)
	a.file("diskless/machine", 0o644, machine)
	a.file("diskless/commands", 0o644, commandsScript)
	a.file("diskless/tell", 0o644, tell)
	a.file("diskless/env", 0o600, environment(settings, o))
	a.file("diskless/settings", 0o600, before(settings, no, o))
	a.file("diskless/preinit", 0o600, commandsOf(settings, preinit[:]...))
	a.file("diskless/rcfiles", 0o600, commandsOf(settings, "RCFILE_"))
	a.file("diskless/report", 0o600, report(o))
	a.file("diskless/options", 0o600, options(settings, o))
	for _, dir := range []string{"", "/systemd", "/systemd/network", "/systemd/system", "/systemd/system/multi-user.target.d"} {
		a.dir("diskless-systemd"+dir, 0o755)
	}
	modules.add(&a)
	// The kernel makes no directory for a file. A generator has made those of
	// its own, perhaps behind a link, and what has no directory is left out.
	a.file("conf/conf.d/diskless", 0o644, initramfsTools)
	for _, dir := range []string{"lib/dracut/hooks/", "var/lib/dracut/hooks/"} {
		a.file(dir+"pre-udev/00-diskless.sh", 0o644, dracutEarly)
		a.file(dir+"pre-pivot/90-diskless.sh", 0o644, dracutRoot)
	}
	return a.bytes()
}

func (o *Options) check() error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("initrd: "+format+": %w", append(args, fs.ErrInvalid)...)
	}
	if o.MachineID != "" && (len(o.MachineID) != 32 || strings.Trim(o.MachineID, "0123456789abcdef") != "") {
		return invalid("machine id %q: it has 32 digits 0 to 9 and a to f", o.MachineID)
	}
	if strings.ContainsAny(o.Hostname, "\n\x00/ ") {
		return invalid("host name %q: it is none", o.Hostname)
	}
	for user, keys := range o.AuthorizedKeys {
		if strings.ContainsRune(user+strings.Join(keys, ""), 0) {
			return invalid("authorized keys of %q: there is a zero in them", user)
		}
	}
	for name, key := range o.HostKeys {
		if !strings.HasPrefix(name, "ssh_host_") || strings.ContainsAny(name, "\n\x00/") {
			return invalid("host key %q: name it as sshd does, ssh_host_..._key", name)
		}
		if bytes.IndexByte(key, 0) >= 0 {
			return invalid("host key %q: it is not in OpenSSH's format", name)
		}
	}
	if strings.Trim(o.OverlaySize, "0123456789%kmgKMG") != "" {
		return invalid("overlay size %q: write it as for a tmpfs: 2G or 50%%", o.OverlaySize)
	}
	if strings.ContainsAny(o.OverlayLabel, "\n\x00/") {
		return invalid("overlay label %q: it is none", o.OverlayLabel)
	}
	if o.Report != "" {
		u, err := url.Parse(o.Report)
		if err != nil || u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return invalid("report %q: it must be an http URL without a query", o.Report)
		}
	}
	if swap := o.Swap; swap != (Swap{}) && (!swap.Server.IsValid() || swap.Export == "" || strings.ContainsAny(swap.Export, "\n\x00")) {
		return invalid("swap on export %q of server %s: both must be there", swap.Export, swap.Server)
	}
	switch o.Break {
	case NoBreak, BreakOnError, BreakAlways:
		return nil
	}
	return invalid("break %q: it is neither error nor always", o.Break)
}
