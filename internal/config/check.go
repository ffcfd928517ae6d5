package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/seed-3ec230fa/diskless/ltsconf"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// checker collects the mistakes of a configuration that was read without any.
type checker struct {
	*Config
	errs []error
}

func (c *checker) errorf(field any, format string, args ...any) {
	c.errs = append(c.errs, &Error{c.at(field), fmt.Sprintf(format, args...)})
}

func (c *Config) check() []error {
	k := &checker{Config: c}
	k.roles()
	k.tree()
	k.entries()
	k.menus()
	k.machines()
	k.rules()
	k.addon()
	return k.errs
}

func (c *checker) roles() {
	if c.DHCP == nil && c.TFTP == nil && c.HTTP == nil && c.NBD == nil {
		c.errorf(&c.Server, "no role is on; write at least one of the sections dhcp, tftp, http, nbd")
	}
	if !c.Server.Address.IsValid() && (c.ServesDHCP() || len(c.Entries) > 0) {
		c.errorf(&c.Server, "server.address is missing: the address at which clients reach this server")
	}
	if d := c.DHCP; c.ServesDHCP() {
		c.dhcp(d)
	}
	if c.ServesDHCPv6() {
		c.dhcp6(c.DHCP.V6)
	}
	if c.TFTP != nil {
		c.tftp(c.TFTP)
	}
	if c.HTTP != nil {
		c.listen(&c.HTTP.Listen)
		if u := c.HTTP.URL; u != "" {
			parsed, err := url.Parse(u)
			if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Host == "" {
				c.errorf(&c.HTTP.URL, "%q is not a URL; write it as http://192.168.67.1:8080", u)
			}
		}
	}
	if c.NBD != nil {
		c.listen(&c.NBD.Listen)
		if c.NBD.Port < 0 || c.NBD.Port > 65535 {
			c.errorf(&c.NBD.Port, "%d is not a port", c.NBD.Port)
		}
		c.keep(c.NBD.Keep)
	}
	oneOf(c, &c.Loader, LoaderIPXE, LoaderPXELINUX, LoaderGRUB, LoaderUBoot)
}

func (c *checker) keep(n *int) {
	switch {
	case n == nil:
	case *n < 0 || *n > maxKeep:
		c.errorf(n, "nbd.keep: %d is not a number of generations; write 0 to %d", *n, maxKeep)
	case c.Server.State == "":
		c.errorf(n, "nbd.keep needs a directory to keep generations in; set server.state")
	}
}

const maxKeep = 1000

// dhcp checks that addresses are served only where the configuration says so
// by name.
func (c *checker) dhcp(d *DHCP) {
	if d.Interface == "" {
		c.errorf(d, "dhcp.interface is missing: addresses are served on the interface that is named here, never on all")
	}
	if d.Proxy {
		c.proxy(d)
		return
	}
	if !d.Subnet.IsValid() {
		c.errorf(d, "dhcp.subnet is missing: the subnet whose addresses are served, such as 192.168.67.0/24")
		return
	}
	in := func(field any, what string, a netip.Addr) {
		if a.IsValid() && !d.Subnet.Contains(a) {
			c.errorf(field, "%s %s is not in dhcp.subnet %s", what, a, d.Subnet)
		}
	}
	in(&c.Server.Address, "server.address", c.Server.Address.Addr)
	in(&d.Router, "router", d.Router.Addr)
	if d.Lease.Duration < time.Minute {
		c.errorf(&d.Lease, "a lease of %s is too short to boot with; write at least 1m", d.Lease)
	}
	ranges(c, d.Ranges, in)
	for i := range c.Machines {
		m := &c.Machines[i]
		in(&m.Address, "machine "+m.Name+": address", m.Address.Addr)
	}
	oneOf(c, &d.OtherServer, "refuse", "ignore")
	if d.Etcd != nil {
		c.etcd(d.Etcd)
	}
}

// ranges checks that the ranges of a subnet, of either version, are in it and apart.
func ranges[R Range | Range6](c *checker, list []R, in func(field any, what string, a netip.Addr)) {
	for i := range list {
		r := Range(list[i])
		for j := range i {
			if o := Range(list[j]); !r.To.Less(o.From) && !o.To.Less(r.From) {
				c.errorf(&list[i], "range %s-%s overlaps with %s-%s", r.From, r.To, o.From, o.To)
			}
		}
		in(&list[i], "range start", r.From)
		in(&list[i], "range end", r.To)
	}
}

// proxy checks that nothing is said about addresses that others give.
func (c *checker) proxy(d *DHCP) {
	for _, f := range []struct {
		key   string
		field any
		set   bool
	}{
		{"subnet", &d.Subnet, d.Subnet.IsValid()}, {"ranges", &d.Ranges, len(d.Ranges) > 0}, {"router", &d.Router, d.Router.IsValid()},
		{"dns", &d.DNS, len(d.DNS) > 0}, {"domain", &d.Domain, d.Domain != ""}, {"lease", &d.Lease, d.Lease.Duration != 0},
		{"other-server", &d.OtherServer, d.OtherServer != ""}, {"probe", &d.Probe, d.Probe != nil},
		{"etcd", &d.Etcd, d.Etcd != nil},
	} {
		if f.set {
			c.errorf(f.field, "dhcp.%s: with proxy: true another server gives the addresses; remove one of the two", f.key)
		}
	}
}

func (c *checker) listen(field *string) {
	_, port, err := net.SplitHostPort(*field)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		c.errorf(field, "%q is not an address to listen on; write it as :10809 or 192.168.67.1:10809", *field)
	}
}

func oneOf[T ~string](c *checker, field *T, values ...T) {
	var all []string
	for _, v := range values {
		if *field == v {
			return
		}
		all = append(all, string(v))
	}
	c.errorf(field, "%q is not known; choose one of %s", *field, strings.Join(all, ", "))
}

func (c *checker) tree() {
	for i := range c.Files {
		m := &c.Files[i]
		info, err := os.Stat(m.Dir)
		switch {
		case m.Dir == "":
			c.errorf(m, "files: `dir` is missing")
		case err != nil:
			c.errorf(&m.Dir, "files: %v", err)
		case !info.IsDir():
			c.errorf(&m.Dir, "files: %s is not a directory", m.Dir)
		}
	}
	if c.LTSConf != "" {
		var syntax *ltsconf.SyntaxError
		if _, err := ltsconf.ParseFile(c.LTSConf); errors.As(err, &syntax) {
			c.errs = append(c.errs, err) // it has a position of its own
		} else if err != nil {
			c.errorf(&c.LTSConf, "lts.conf: %v", err)
		}
	}
	seen := map[string]bool{}
	for i := range c.Images {
		m := &c.Images[i]
		c.name(&m.Name, m, "image", m.Name, seen)
		if m.File == "" {
			c.errorf(m, "image %s: `file` is missing", m.Name)
		} else if info, err := os.Stat(m.File); err != nil {
			c.errorf(&m.File, "image %s: %v", m.Name, err)
		} else if !info.Mode().IsRegular() {
			c.errorf(&m.File, "image %s: %s is not a regular file", m.Name, m.File)
		}
	}
}

// plainName is what survives every boot loader and initramfs inside an export
// name. Digits alone do not: dracut takes them for a port.
var plainName = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_-]*|[0-9]+[A-Za-z_-][A-Za-z0-9_-]*)$`)

const maxNameLength = 63

func isName(name string) bool { return plainName.MatchString(name) && len(name) <= maxNameLength }

func (c *checker) name(field *string, owner any, what, name string, seen map[string]bool) {
	switch {
	case name == "":
		c.errorf(owner, "%s: `name` is missing", what)
	case !isName(name):
		c.errorf(field, "%s name %q: use up to 63 letters, digits, - and _, a letter or a digit first, and not digits alone", what, name)
	case seen[name]:
		c.errorf(field, "%s %q is given twice", what, name)
	}
	seen[name] = true
}

func (c *checker) entries() {
	images := map[string]bool{}
	for _, i := range c.Images {
		images[i.Name] = true
	}
	seen := map[string]bool{UnknownDeny: true, UnknownLocal: true}
	for i := range c.Entries {
		e := &c.Entries[i]
		c.name(&e.Name, e, "entry", e.Name, seen)
		if e.Kernel == "" {
			c.errorf(e, "entry %s: `kernel` is missing: its path in the boot tree", e.Name)
		}
		if e.Image != "" && c.NBD == nil {
			c.errorf(&e.Image, "entry %s: has an image, but there is no nbd section to say who exports it", e.Name)
		}
		if e.Image != "" && c.ServesNBD() && !images[e.Image] {
			c.errorf(&e.Image, "entry %s: there is no image %q under images", e.Name, e.Image)
		}
		if e.Image == "" && e.Root != RootImage {
			c.errorf(&e.Root, "entry %s: root: %s needs an image", e.Name, e.Root)
		}
		if !c.ServesNBD() && e.Root != RootImage {
			// Boot tokens are minted where the roots live.
			c.errorf(&e.Root, "entry %s: root: %s works only where the nbd role runs too", e.Name, e.Root)
		}
		if e.Image != "" && e.Initramfs == Dracut && c.NBD != nil && c.NBD.Port != 10809 {
			c.errorf(&e.Initramfs, "entry %s: dracut finds a named export on port 10809 only, and nbd has port %d", e.Name, c.NBD.Port)
		}
		oneOf(c, &e.Root, RootImage, RootEphemeral, RootKept)
		oneOf(c, &e.Initramfs, InitramfsTools, Dracut)
	}
	if _, menu := c.MenuByName(c.Unknown); menu || c.hasEntry(c.Unknown) {
		c.choice(&c.Unknown, "unknown", false)
	} else if c.Unknown != UnknownDeny && c.Unknown != UnknownLocal {
		c.errorf(&c.Unknown, "unknown: %q is neither deny, nor local, nor the name of an entry or a menu", c.Unknown)
	}
}

// EntryByName returns the entry with this name.
func (c *Config) EntryByName(name string) (Entry, bool) {
	for _, e := range c.Entries {
		if e.Name == name {
			return e, true
		}
	}
	return Entry{}, false
}

func (c *checker) hasEntry(name string) bool {
	_, ok := c.EntryByName(name)
	return ok
}

var uuidText = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func (c *checker) machines() {
	names, taken := map[string]bool{}, map[string]string{}
	once := func(field any, m *Machine, what, value string) {
		if other, ok := taken[what+value]; ok && value != "" {
			c.errorf(field, "machine %s: %s %s is machine %s's already", m.Name, what, value, other)
		}
		taken[what+value] = m.Name
	}
	for i := range c.Machines {
		m := &c.Machines[i]
		c.name(&m.Name, m, "machine", m.Name, names)
		if m.MAC.HardwareAddr == nil && m.UUID == "" && !m.Address.IsValid() {
			c.errorf(m, "machine %s: say which machine it is: `mac`, `uuid` or `address`", m.Name)
		}
		if m.UUID != "" && !uuidText.MatchString(m.UUID) {
			c.errorf(&m.UUID, "machine %s: %q is not a UUID", m.Name, m.UUID)
		}
		if m.Entry == "" {
			c.errorf(m, "machine %s: `entry` is missing: the name of an entry or of a menu, or local", m.Name)
		} else {
			c.choice(&m.Entry, "machine "+m.Name, true)
		}
		if m.Once != "" {
			c.choice(&m.Once, "machine "+m.Name, true)
		}
		if m.Root != m.Name && !isName(m.Root) {
			c.errorf(&m.Root, "machine %s: root name %q: use up to 63 letters, digits, - and _, a letter or a digit first, and not digits alone", m.Name, m.Root)
		}
		if m.Address.IsValid() && m.MAC.HardwareAddr == nil && c.GivesAddresses() {
			// Whoever else got the address would be taken for this machine.
			c.errorf(&m.Address, "machine %s: an address is given to a hardware address; write its `mac` too", m.Name)
		}
		if m.Address.IsValid() && m.Address == c.Server.Address {
			c.errorf(&m.Address, "machine %s: %s is the server's own address", m.Name, m.Address)
		}
		oneOf(c, &m.Loader, LoaderIPXE, LoaderPXELINUX, LoaderGRUB, LoaderUBoot)
		once(&m.MAC, m, "mac", m.MAC.String())
		uuid := strings.ToLower(m.UUID)
		once(&m.UUID, m, "uuid", min(uuid, pxecfg.SwapUUID(uuid))) // one machine in two spellings
		if m.Address.IsValid() {
			once(&m.Address, m, "address", m.Address.String())
		}
		once(&m.Root, m, "root", m.Root)
	}
}
