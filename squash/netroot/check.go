package netroot

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/seed-3ec230fa/diskless/squash"
)

// Root is how machines get at their root: what a boot entry says.
type Root int

const (
	// NBD is a SquashFS image from an NBD server, under an overlay in memory:
	// root=/dev/nbd0. What a machine writes is its own.
	NBD Root = iota
	// NFS is a directory that all machines mount writable: root=/dev/nfs. What
	// one writes, all have; as no tree shows how it will be mounted, that is a
	// finding without rules for any.
	NFS
)

// Options says what the root is for. A nil *Options and the zero value are a
// SquashFS image over NBD.
type Options struct {
	Root Root
}

// Severity says how bad a finding is.
type Severity int

const (
	// Advice is what wastes space or time.
	Advice Severity = iota
	// Harmful is what machines do to each other, or to themselves later.
	Harmful
	// Missing is what the boot will fail for.
	Missing
)

func (s Severity) String() string { return [...]string{"advice", "harmful", "missing"}[s] }

// Finding is something about a tree that a machine without a disk will suffer
// from.
type Finding struct {
	// Name says which check it is: "machine-id". It stays the same.
	Name string
	// Path is the file concerned.
	Path string
	// Severity says how bad it is.
	Severity Severity
	// Message says what is wrong.
	Message string
	// Remedy says what to do about it.
	Remedy string
	// Rules do it; nil when a program of the tree must run, or somebody must
	// decide. Findings that one change of a file remedies have the same pointer.
	Rules *squash.Rules
}

// Remedies puts the rules of findings together, for [squash.Rules.Apply].
func Remedies(findings []Finding) *squash.Rules {
	all := &squash.Rules{}
	seen := make(map[*squash.Rules]bool)
	for _, f := range findings {
		if f.Rules == nil || seen[f.Rules] {
			continue
		}
		seen[f.Rules] = true
		all.Exclude = append(all.Exclude, f.Rules.Exclude...)
		all.Keep = append(all.Keep, f.Rules.Keep...)
		all.Modify = append(all.Modify, f.Rules.Modify...)
		all.Put = append(all.Put, f.Rules.Put...)
	}
	return all
}

// Check reads a source once and returns what is missing in it or harmful, the
// worst first. The content of configuration files and of initrds is looked at;
// an initrd in a compression other than gzip, zstd, xz, lz4 and bzip2 is a
// finding, too. The source is not changed, and nothing of it is run.
func Check(ctx context.Context, src squash.Source, opts *Options) ([]Finding, error) {
	c := &checker{initrds: make(map[string]*contents)}
	if opts != nil {
		c.opts = *opts
	}
	if c.opts.Root != NBD && c.opts.Root != NFS {
		return nil, fmt.Errorf("netroot: root %d: %w", c.opts.Root, fs.ErrInvalid)
	}
	var err error
	if c.tree, err = read(ctx, src, func(name string, r io.Reader) error {
		c.initrds[name] = readInitrd(r)
		return nil
	}); err != nil {
		return nil, err
	}
	for _, check := range []func(){
		c.init, c.kernel, c.directories, c.fstab, c.disks, c.swap, c.interfaces, c.networkManager, c.networkd, c.netplan,
		c.machineID, c.sharedEtc, c.hostKeys, c.hostname, c.resolvConf, c.jobs, c.timers, c.logs, c.leftovers,
	} {
		check()
	}
	slices.SortStableFunc(c.findings, func(a, b Finding) int { return cmp.Compare(b.Severity, a.Severity) })
	return c.findings, nil
}

type checker struct {
	opts Options
	*tree
	initrds map[string]*contents
	swaps   []string // the swap files that something names
	// What the newest kernel's initrd was made by.
	initramfsTools bool
	findings       []Finding
}

func (c *checker) found(name, path string, s Severity, rules *squash.Rules, remedy, message string, args ...any) {
	c.findings = append(c.findings, Finding{name, path, s, fmt.Sprintf(message, args...), remedy, rules})
}

func exclude(patterns ...string) *squash.Rules {
	r := &squash.Rules{}
	for _, p := range patterns {
		r.Exclude = append(r.Exclude, squash.Pattern(p))
	}
	return r
}

func put(e ...*squash.Entry) *squash.Rules { return &squash.Rules{Put: e} }

// rewritten is a file with other text and everything else as it was.
func rewritten(f *file, text string) *squash.Rules {
	e := squash.NewFile(f.Path, f.Mode, []byte(text))
	e.Uid, e.Gid, e.ModTime, e.Xattrs = f.Uid, f.Gid, f.ModTime, f.Xattrs
	return put(e)
}

func link(name, target string) *squash.Rules {
	return put(&squash.Entry{Path: name, Mode: fs.ModeSymlink | 0o777, Target: target})
}

// literal is a pattern for one name.
func literal(name string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(name)
}

func (c *checker) init() {
	for _, name := range []string{"sbin/init", "usr/sbin/init", "lib/systemd/systemd", "usr/lib/systemd/systemd"} {
		if c.get(name) != nil {
			return
		}
	}
	c.found("init", "sbin/init", Missing, nil, "install systemd-sysv (or another init) in the tree: a container image has none by itself", "there is no program to start the system")
}

// kernel checks the newest kernel, which is what will be booted.
func (c *checker) kernel() {
	names := make(map[string]bool)
	for _, name := range c.below("boot", func(string) bool { return true }) {
		names[path.Base(name)] = c.files[name].Mode.IsRegular()
	}
	kernels := pair(names)
	if len(kernels) == 0 {
		c.found("kernel", "boot", Missing, nil, "install a kernel in the tree (Debian: linux-image-amd64), or boot one from elsewhere that has its modules in the tree", "there is no kernel in /boot")
		return
	}
	k := kernels[0]
	if k.Version != "" && c.get("lib/modules/"+k.Version) == nil {
		c.found("modules", "lib/modules/"+k.Version, Harmful, nil, "install the kernel's modules in the tree", "the newest kernel, %s, has no modules: devices that the initrd does not know will not work", k.Path)
	}
	if k.Initrd == "" {
		c.found("initrd", k.Path, Missing, nil, "make one in the tree: update-initramfs -c -k "+k.Version, "the newest kernel, %s, has no initrd to mount its root from", k.Path)
		return
	}
	c.initrd(k)
}

func (c *checker) initrd(k Kernel) {
	in := c.initrds[k.Initrd]
	if in == nil { // another name of a file whose content came before
		in = c.linked(c.files[k.Initrd])
	}
	if in == nil {
		c.found("initrd", k.Initrd, Advice, nil, "store it under this name first, or make it a file of its own", "the initrd is another name of a file elsewhere, under which nobody looks for one: it was not looked into")
		return
	}
	if in.err != nil {
		c.found("initrd", k.Initrd, Advice, nil, "look into it with lsinitramfs or lsinitrd", "the initrd cannot be looked into: %v", in.err)
		return
	}
	c.initramfsTools = in.names["functions"]
	if builtin := c.get("lib/modules/" + k.Version + "/modules.builtin"); builtin != nil {
		for line := range strings.Lines(builtin.text) {
			in.note(strings.TrimSpace(line))
		}
	}
	var lacks []string
	need := func(modules ...string) {
		for _, m := range modules {
			if !in.modules[m] {
				lacks = append(lacks, m)
			}
		}
	}
	program := "nbd-client"
	if c.opts.Root == NFS {
		need("nfs")
		program = "nfsmount"
		in.names[program] = in.names[program] || in.names["mount.nfs"]
	} else {
		need("nbd", "squashfs", "overlay")
	}
	if len(lacks) > 0 {
		c.found("initrd-modules", k.Initrd, Missing, nil, "write the names to etc/initramfs-tools/modules, one a line, and run update-initramfs -u in the tree (dracut: add_drivers+=)", "the initrd lacks the modules %s", strings.Join(lacks, ", "))
	}
	if !in.network {
		c.found("initrd-network", k.Initrd, Missing, nil, "MODULES=most (or netboot) in etc/initramfs-tools/initramfs.conf, and run update-initramfs -u in the tree", "the initrd has no driver of a network card")
	}
	if !in.names[program] {
		remedy := "install nbd-client in the tree, and run update-initramfs -u in it"
		if c.opts.Root == NFS {
			remedy = "BOOT=nfs in etc/initramfs-tools/initramfs.conf and klibc-utils or nfs-common in the tree, and run update-initramfs -u in it"
		}
		c.found("initrd-program", k.Initrd, Missing, nil, remedy, "the initrd has no %s to reach its root with", program)
	}
}

// linked is what an initrd has that has been read under another name.
func (c *checker) linked(f *file) *contents {
	for name, in := range c.initrds {
		if o := c.files[name]; f.Nlink > 1 && o.Nlink > 1 && o.Dev == f.Dev && o.Ino == f.Ino {
			return in
		}
	}
	return nil
}

// directories are what the kernel's file systems are mounted on.
func (c *checker) directories() {
	for _, name := range []string{"dev", "proc", "run", "sys", "tmp"} {
		if c.files[name] != nil {
			continue
		}
		mode := fs.ModeDir | 0o755
		if name == "tmp" {
			mode |= fs.ModeSticky | 0o777
		}
		c.found("directories", name, Missing, put(&squash.Entry{Path: name, Mode: mode}), "make the directory", "/%s is missing, on which something is mounted at each boot", name)
	}
}
