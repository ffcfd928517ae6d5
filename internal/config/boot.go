package config

import (
	"strings"

	"github.com/insomniacslk/dhcp/iana"

	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// MenuByName returns the menu with this name.
func (c *Config) MenuByName(name string) (Menu, bool) {
	for _, m := range c.Menus {
		if m.Name == name {
			return m, true
		}
	}
	return Menu{}, false
}

// choice checks a field that names an entry, a menu, or local. Only a machine
// that has a name can have a writable root.
func (c *checker) choice(field *string, what string, named bool) {
	if *field == UnknownLocal {
		return
	}
	entries := []string{*field}
	if m, ok := c.MenuByName(*field); ok {
		entries = m.Entries
	} else if !c.hasEntry(*field) {
		c.errorf(field, "%s: there is no entry %q", what, *field)
		return
	}
	for _, name := range entries {
		if e, ok := c.EntryByName(name); ok && e.Root != RootImage && !named {
			c.errorf(field, "%s: entry %s has root: %s, which needs a machine's name; use an entry with root: image", what, e.Name, e.Root)
		}
	}
}

func (c *checker) menus() {
	seen := map[string]bool{UnknownDeny: true, UnknownLocal: true}
	for _, e := range c.Entries {
		seen[e.Name] = true
	}
	for i := range c.Menus {
		m := &c.Menus[i]
		c.name(&m.Name, m, "menu", m.Name, seen)
		if len(m.Entries) == 0 {
			c.errorf(m, "menu %s: `entries` is missing: the names of entries, or local", m.Name)
		}
		offered, writable := map[string]bool{}, 0
		for j := range m.Entries {
			name := &m.Entries[j]
			e, ok := c.EntryByName(*name)
			switch {
			case offered[*name]:
				c.errorf(name, "menu %s: entry %q is given twice", m.Name, *name)
			case !ok && *name != UnknownLocal:
				c.errorf(name, "menu %s: there is no entry %q", m.Name, *name)
			case ok && e.Root != RootImage:
				if writable++; writable > 1 {
					c.errorf(name, "menu %s: a machine has one writable root, and there are two entries with one", m.Name)
				}
			}
			offered[*name] = true
		}
		if m.Default != "" && !offered[m.Default] {
			c.errorf(&m.Default, "menu %s: default %q is none of its entries", m.Name, m.Default)
		}
	}
}

func (c *checker) rules() {
	profiles := map[string]bool{}
	for i := range c.Profiles {
		p := &c.Profiles[i]
		c.name(&p.Name, p, "profile", p.Name, profiles)
	}
	known := func(what string, names []string) {
		for i := range names {
			if !profiles[names[i]] {
				c.errorf(&names[i], "%s: there is no profile %q", what, names[i])
			}
		}
	}
	for i := range c.Profiles {
		known("profile "+c.Profiles[i].Name, c.Profiles[i].Inherit)
	}
	names := map[string]bool{}
	for i := range c.Rules {
		r := &c.Rules[i]
		what := "rule " + r.Name
		c.name(&r.Name, r, "rule", r.Name, names)
		known(what, r.Inherit)
		if r.Entry == "" {
			c.errorf(r, "%s: `entry` is missing: the name of an entry or of a menu, or local", what)
		} else {
			c.choice(&r.Entry, what, false)
		}
		if r.Once != "" {
			c.choice(&r.Once, what, false)
		}
		if r.MACPrefix == nil && r.Network == nil && r.Range == nil && r.Hostname == nil && r.Arch == nil && r.Platform == nil && r.AskedBy == nil {
			c.errorf(r, "%s: it fits every machine; that is what `unknown` is for", what)
		}
	}
	if len(c.errs) > 0 || len(c.Rules) == 0 {
		return
	}
	// What one rule by itself has wrong is said where it stands.
	for i := range c.Rules {
		one := pxecfg.Rules{List: []pxecfg.Rule{c.Rules[i].Boot(nil)}, Profiles: c.BootProfiles()}
		one.List[0].Source = pxecfg.Deny()
		if err := one.Validate(); err != nil {
			c.errorf(&c.Rules[i], "%s", strings.TrimSuffix(err.Error(), ": invalid argument"))
		}
	}
}

// Boot returns the rule with what its machines boot.
func (r *Rule) Boot(source pxecfg.Source) pxecfg.Rule {
	m := pxecfg.Match{Hostname: r.Hostname, Platform: r.Platform}
	for _, p := range r.MACPrefix {
		m.MACPrefix = append(m.MACPrefix, p.HardwareAddr)
	}
	for _, n := range r.Network {
		m.Network = append(m.Network, n.Prefix)
	}
	for _, x := range r.Range {
		m.Range = append(m.Range, pxecfg.IPRange{First: x.From, Last: x.To})
	}
	for _, a := range r.Arch {
		m.Arch = append(m.Arch, iana.Arch(a))
	}
	for _, l := range r.AskedBy {
		m.Loader = append(m.Loader, pxecfg.Loader(l))
	}
	return pxecfg.Rule{Name: r.Name, Match: m, Profile: pxecfg.Profile{Inherit: r.Inherit}, Source: source}
}

// BootProfiles returns the profiles by name.
func (c *Config) BootProfiles() map[string]pxecfg.Profile {
	all := make(map[string]pxecfg.Profile, len(c.Profiles))
	for _, p := range c.Profiles {
		all[p.Name] = pxecfg.Profile{Inherit: p.Inherit, Args: p.Args, Drop: p.Drop}
	}
	return all
}
