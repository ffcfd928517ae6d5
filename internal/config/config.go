// Package config reads the configuration of the diskless binary: one YAML
// file and a directory of files with machines. It is strict: whatever it does
// not understand is an error that names file, line and column, and all
// mistakes are reported at once.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Config is a whole configuration. A section that is nil is a role that is
// off. The commented reference, reference.yaml beside this file, is the
// description of every key.
type Config struct {
	Server Server `yaml:"server"`

	DHCP *DHCP `yaml:"dhcp"`
	TFTP *TFTP `yaml:"tftp"`
	HTTP *HTTP `yaml:"http"`
	NBD  *NBD  `yaml:"nbd"`

	Files   []Mount `yaml:"files"`
	Images  []Image `yaml:"images"`
	LTSConf string  `yaml:"lts.conf"`

	LTSPConf string `yaml:"ltsp.conf"`
	Addon    *Addon `yaml:"addon"`

	Entries  []Entry   `yaml:"entries"`
	Menus    []Menu    `yaml:"menus"`
	Profiles []Profile `yaml:"profiles"`
	Rules    []Rule    `yaml:"rules"`
	Loader   Loader    `yaml:"loader"`
	Unknown  string    `yaml:"unknown"`
	Machines []Machine `yaml:"machines"`
	ConfD    string    `yaml:"conf.d"`

	pos map[any]Position
}

// Server is what all roles share.
type Server struct {
	Address Addr   `yaml:"address"`
	State   string `yaml:"state"`
	Admin   string `yaml:"admin"`
}

// DHCP is the role that gives addresses and boot answers.
type DHCP struct {
	Enabled     *bool    `yaml:"enabled"`
	Interface   string   `yaml:"interface"`
	Subnet      Prefix   `yaml:"subnet"`
	Ranges      []Range  `yaml:"ranges"`
	Router      Addr     `yaml:"router"`
	DNS         []Addr   `yaml:"dns"`
	Domain      string   `yaml:"domain"`
	Lease       Duration `yaml:"lease"`
	OtherServer string   `yaml:"other-server"`
	// Probe asks on the link whether somebody uses an address already.
	Probe *bool `yaml:"probe"`
	// Proxy leaves the addresses to another server (ProxyDHCP).
	Proxy bool `yaml:"proxy"`
	// V6 answers DHCPv6 besides.
	V6 *DHCPv6 `yaml:"v6"`
	// Etcd has the leases of several servers.
	Etcd *Etcd `yaml:"etcd"`
}

// DHCPv6 is what the DHCP role does on the same interface over IPv6.
type DHCPv6 struct {
	Address   Addr6    `yaml:"address"`
	Subnet    Prefix6  `yaml:"subnet"`
	Ranges    []Range6 `yaml:"ranges"`
	DNS       []Addr6  `yaml:"dns"`
	Domain    string   `yaml:"domain"`
	Lease     Duration `yaml:"lease"`
	Stateless bool     `yaml:"stateless"`
}

// HTTP is the role that serves the boot tree over HTTP.
type HTTP struct {
	Enabled *bool  `yaml:"enabled"`
	Listen  string `yaml:"listen"`
	URL     string `yaml:"url"`
}

// NBD is the role that exports images and roots.
type NBD struct {
	Enabled *bool  `yaml:"enabled"`
	Listen  string `yaml:"listen"`
	Address Addr   `yaml:"address"`
	Port    int    `yaml:"port"`
	Quota   Size   `yaml:"quota"`
	// Swap is the size of each machine's swap area.
	Swap Size `yaml:"swap"`
	// Keep is how many former generations of each image stay on disk.
	Keep *int `yaml:"keep"`
}

// Mount is a directory in the boot tree.
type Mount struct {
	Path string `yaml:"path"`
	Dir  string `yaml:"dir"`
}

// Image is a root image that is exported under its name.
type Image struct {
	Name string `yaml:"name"`
	File string `yaml:"file"`
}

// Entry is one thing that a machine can boot.
type Entry struct {
	Name      string   `yaml:"name"`
	Title     string   `yaml:"title"`
	Kernel    string   `yaml:"kernel"`
	Initrd    []string `yaml:"initrd"`
	Args      []string `yaml:"args"`
	Image     string   `yaml:"image"`
	Root      RootKind `yaml:"root"`
	Initramfs string   `yaml:"initramfs"`
	// Addon says no where the add-on is not to be loaded.
	Addon *bool `yaml:"addon"`
}

// Machine is one machine that the configuration knows.
type Machine struct {
	Name     string       `yaml:"name"`
	MAC      HardwareAddr `yaml:"mac"`
	UUID     string       `yaml:"uuid"`
	Address  Addr         `yaml:"address"`
	Address6 Addr6        `yaml:"address6"`
	Entry    string       `yaml:"entry"`
	Once     string       `yaml:"once"`
	Root     string       `yaml:"root"`
	Loader   Loader       `yaml:"loader"`
}

// Menu is a choice of entries. Its name stands where an entry's can.
type Menu struct {
	Name    string   `yaml:"name"`
	Title   string   `yaml:"title"`
	Entries []string `yaml:"entries"`
	Default string   `yaml:"default"`
	Timeout Duration `yaml:"timeout"`
}

// Profile is what rules have in common.
type Profile struct {
	Name    string   `yaml:"name"`
	Inherit []string `yaml:"inherit"`
	Args    []string `yaml:"args"`
	Drop    []string `yaml:"drop"`
}

// Rule says what machines boot that are not listed one by one.
type Rule struct {
	Name      string      `yaml:"name"`
	MACPrefix []MACPrefix `yaml:"mac-prefix"`
	Network   []Prefix    `yaml:"network"`
	Range     []Range     `yaml:"range"`
	Hostname  []string    `yaml:"hostname"`
	Arch      []uint16    `yaml:"arch"`
	Platform  []string    `yaml:"platform"`
	AskedBy   []string    `yaml:"asked-by"`
	Inherit   []string    `yaml:"inherit"`
	Entry     string      `yaml:"entry"`
	Once      string      `yaml:"once"`
}

// RootKind says who holds a machine's changes to its root.
type RootKind string

// The kinds of root.
const (
	RootImage     RootKind = "image"     // read-only; changes, if any, in the client's memory
	RootEphemeral RootKind = "ephemeral" // overlay on the server, clean at each boot
	RootKept      RootKind = "kept"      // overlay on the server, kept over boots
)

// Loader is the program that a machine's firmware is given first.
type Loader string

// The loaders.
const (
	LoaderIPXE     Loader = "ipxe"
	LoaderPXELINUX Loader = "pxelinux"
	LoaderGRUB     Loader = "grub"
	LoaderUBoot    Loader = "u-boot" // in the firmware; it reads PXELINUX's files
)

// The policies of `unknown` that are no names of entries.
const (
	UnknownDeny  = "deny"
	UnknownLocal = "local"
)

// Initramfs names the syntax of the kernel arguments that find the root.
const (
	InitramfsTools = "initramfs-tools"
	Dracut         = "dracut"
)

// On reports whether a role with this `enabled` key runs: a section that is
// written down does, unless it says no.
func on(enabled *bool) bool { return enabled == nil || *enabled }

// ServesDHCP, ServesTFTP, ServesHTTP and ServesNBD report which roles run.
func (c *Config) ServesDHCP() bool { return c.DHCP != nil && on(c.DHCP.Enabled) }

// GivesAddresses reports whether the DHCP role runs, and not as a proxy.
func (c *Config) GivesAddresses() bool { return c.ServesDHCP() && !c.DHCP.Proxy }

// ServesDHCPv6 reports whether the DHCP role answers over IPv6 too.
func (c *Config) ServesDHCPv6() bool { return c.ServesDHCP() && c.DHCP.V6 != nil }

// ServesTFTP reports whether the TFTP role runs.
func (c *Config) ServesTFTP() bool { return c.TFTP != nil && on(c.TFTP.Enabled) }

// ServesHTTP reports whether the HTTP role runs.
func (c *Config) ServesHTTP() bool { return c.HTTP != nil && on(c.HTTP.Enabled) }

// ServesNBD reports whether the NBD role runs.
func (c *Config) ServesNBD() bool { return c.NBD != nil && on(c.NBD.Enabled) }

// Load reads the configuration in file and the machines in its conf.d
// directory, fills in the defaults and checks everything. Paths in a file are
// relative to the directory of that file.
func Load(file string) (*Config, error) {
	c := &Config{pos: map[any]Position{}}
	d := &decoder{pos: c.pos}
	d.read(file, c)
	dir := filepath.Dir(file)
	c.resolvePaths(dir)
	if c.ConfD != "" {
		c.readConfD(d)
	}
	c.setDefaults()
	// With a key misread, a check would report consequences, not mistakes.
	if len(d.errs) == 0 {
		d.errs = c.check()
	}
	if len(d.errs) > 0 {
		return nil, errors.Join(d.errs...)
	}
	return c, nil
}

// New completes and checks a configuration made in Go, for tests and demos.
func New(c Config) (*Config, error) {
	c.pos = map[any]Position{}
	c.setDefaults()
	if errs := c.check(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &c, nil
}

const maxFile = 16 << 20 // 100,000 machines take about 12 MB

func (d *decoder) read(file string, v any) {
	d.file = file
	info, err := os.Stat(file)
	if err == nil && info.Size() > maxFile {
		err = fmt.Errorf("larger than %d MiB; split the machines over files in conf.d", maxFile>>20)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		d.errs = append(d.errs, &Error{Position{File: file}, err.Error()})
		return
	}
	d.decode(bytes.NewReader(text), v)
}

// readConfD adds the machines of every *.yaml file in the directory, in the
// order of their names. A file holds `machines:` and nothing else.
func (c *Config) readConfD(d *decoder) {
	entries, err := os.ReadDir(c.ConfD)
	if err != nil {
		d.errs = append(d.errs, &Error{c.at(&c.ConfD), fmt.Sprintf("conf.d: %v; create the directory or remove the key", err)})
		return
	}
	parts := []*[]Machine{&c.Machines}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || filepath.Ext(e.Name()) != ".yaml" {
			continue
		}
		part := &struct {
			Machines []Machine `yaml:"machines"`
		}{}
		d.read(filepath.Join(c.ConfD, e.Name()), part)
		parts = append(parts, &part.Machines)
	}
	// Positions are kept by address, so they move with the machines.
	var all []Machine
	for _, p := range parts {
		all = append(all, *p...)
	}
	i := 0
	for _, p := range parts {
		for j := range *p {
			c.movePositions(&(*p)[j], &all[i])
			i++
		}
	}
	c.Machines = all
}

func (c *Config) movePositions(from, to *Machine) {
	for _, f := range [][2]any{
		{from, to}, {&from.Name, &to.Name}, {&from.MAC, &to.MAC}, {&from.UUID, &to.UUID}, {&from.Address, &to.Address},
		{&from.Address6, &to.Address6},
		{&from.Entry, &to.Entry}, {&from.Once, &to.Once}, {&from.Root, &to.Root}, {&from.Loader, &to.Loader},
	} {
		if p, ok := c.pos[f[0]]; ok {
			c.pos[f[1]] = p
		}
	}
}

func (c *Config) resolvePaths(dir string) {
	paths := []*string{&c.Server.State, &c.Server.Admin, &c.LTSConf, &c.LTSPConf, &c.ConfD}
	for i := range c.Files {
		paths = append(paths, &c.Files[i].Dir)
	}
	for i := range c.Images {
		paths = append(paths, &c.Images[i].File)
	}
	if c.TFTP != nil && c.TFTP.Uploads != nil {
		paths = append(paths, &c.TFTP.Uploads.Dir)
	}
	if c.DHCP != nil && c.DHCP.Etcd != nil {
		paths = append(paths, c.DHCP.Etcd.paths()...)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) setDefaults() {
	setDefault(&c.Loader, LoaderIPXE)
	setDefault(&c.Unknown, UnknownDeny)
	if c.Server.State != "" {
		setDefault(&c.Server.Admin, filepath.Join(c.Server.State, "admin.sock"))
	}
	if c.DHCP != nil && !c.DHCP.Proxy {
		setDefault(&c.DHCP.Lease.Duration, 12*time.Hour)
		setDefault(&c.DHCP.OtherServer, "refuse")
	}
	if c.DHCP != nil && c.DHCP.V6 != nil && !c.DHCP.V6.Stateless {
		setDefault(&c.DHCP.V6.Lease.Duration, 12*time.Hour)
	}
	if c.TFTP != nil {
		setDefault(&c.TFTP.Listen, ":69")
		setDefault(&c.TFTP.Address, c.Server.Address)
	}
	if c.HTTP != nil {
		setDefault(&c.HTTP.Listen, ":8080")
		if c.Server.Address.IsValid() {
			setDefault(&c.HTTP.URL, fmt.Sprintf("http://%s:%d", c.Server.Address, port(c.HTTP.Listen)))
		}
	}
	if c.NBD != nil {
		setDefault(&c.NBD.Listen, ":10809")
		setDefault(&c.NBD.Address, c.Server.Address)
		setDefault(&c.NBD.Port, port(c.NBD.Listen))
	}
	for i := range c.Entries {
		e := &c.Entries[i]
		defaultIn(c, e, &e.Root, RootImage)
		defaultIn(c, e, &e.Initramfs, InitramfsTools)
		defaultIn(c, e, &e.Title, e.Name)
	}
	for i := range c.Machines {
		m := &c.Machines[i]
		defaultIn(c, m, &m.Root, m.Name)
		defaultIn(c, m, &m.Loader, c.Loader)
	}
}

// defaultIn is setDefault for a field of a section; a mistake that concerns the
// default is reported where the section stands.
func defaultIn[T comparable](c *Config, section any, field *T, value T) {
	setDefault(field, value)
	if _, ok := c.pos[field]; !ok {
		c.pos[field] = c.pos[section]
	}
}

// port is the port of an address to listen on, 0 if it has none (which the
// checks report).
func port(listen string) int {
	_, text, _ := net.SplitHostPort(listen)
	n, _ := strconv.Atoi(text)
	return n
}

// Mistake is an error about fields, given by their addresses; it points at the
// first of them that a file sets.
func (c *Config) Mistake(msg string, fields ...any) error {
	for _, f := range fields {
		if p := c.at(f); p.File != "" {
			return &Error{p, msg}
		}
	}
	return &Error{Msg: msg}
}

// at is the position of a field, given by its address.
func (c *Config) at(field any) Position { return c.pos[field] }
