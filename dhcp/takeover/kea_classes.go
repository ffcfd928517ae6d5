package takeover

import (
	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// keaClass is a client class with a test.
type keaClass struct {
	name    string
	match   boolExpr
	options dhcpv4.Options
	boot    dhcp.Boot
}

// class finds one that was defined, or is built in.
func (k *kea) class(name string) (boolExpr, bool) {
	switch name {
	case "ALL":
		return func(*dhcp.Request) bool { return true }, true
	case "KNOWN":
		return k.known, true
	case "UNKNOWN":
		return func(r *dhcp.Request) bool { return !k.known(r) }, true
	}
	for _, c := range k.classes {
		if c.name == name {
			return c.match, true
		}
	}
	return nil, false
}

// known reports whether the request is of a machine with a reservation.
func (k *kea) known(r *dhcp.Request) bool {
	for _, key := range keaKeys(r) {
		if k.machines[key] {
			return true
		}
	}
	return false
}

// readClasses reads "client-classes". A class may be of use to those behind it.
func (k *kea) readClasses(list value) {
	for _, v := range list.list {
		name, _ := v.get("name")
		test, ok := v.get("test")
		if !ok {
			k.note(v.pos, "class %q has no test: its members are not known, and what it gives is not taken over", name.text)
			continue
		}
		match, err := keaCondition(test.text, k.class)
		if err != nil {
			k.note(test.pos, "class %q is not taken over: %v", name.text, err)
			continue
		}
		if _, ok := v.get("only-if-required"); ok {
			k.note(v.pos, "class %q is not taken over: only-if-required", name.text)
			continue
		}
		c := keaClass{name: name.text, match: match, options: dhcpv4.Options{}}
		for _, m := range v.members {
			switch m.name {
			case "option-data":
				for _, o := range m.list {
					k.option(o, c.options, &c.boot)
				}
			case "next-server":
				k.nextServer(m.value, &c.boot)
			case "server-hostname":
				c.boot.ServerName = m.text
			case "boot-file-name":
				c.boot.File = m.text
			case "name", "test", "comment", "user-context":
			default:
				k.note(m.pos, "%s of a class is not taken over", m.name)
			}
		}
		k.classes = append(k.classes, c)
	}
}

// classOptions are those of the classes that the client is in, where neither
// the subnet nor the machine has its own; the first class goes first.
func (k *kea) classOptions(own []dhcpv4.Options, r *dhcp.Request, reply *dhcpv4.DHCPv4) {
	set := make(map[uint8]bool)
	for _, o := range own {
		for code := range o {
			set[code] = true
		}
	}
	for _, c := range k.classes {
		if len(c.options) == 0 || !c.match(r) {
			continue
		}
		r.Note("class %q", c.name)
		for code, v := range c.options {
			if !set[code] {
				reply.Options[code] = v
				set[code] = true
			}
		}
	}
}

// classBoot puts what the client's classes say about booting before what its
// subnet does.
func (k *kea) classBoot(r *dhcp.Request, b dhcp.Boot) dhcp.Boot {
	var file, name, next bool
	for _, c := range k.classes {
		if c.boot.File == "" && c.boot.ServerName == "" && !c.boot.NextServer.IsValid() || !c.match(r) {
			continue
		}
		r.Note("class %q decides what it boots", c.name)
		if c.boot.File != "" && !file {
			b.File, file = c.boot.File, true
		}
		if c.boot.ServerName != "" && !name {
			b.ServerName, name = c.boot.ServerName, true
		}
		if c.boot.NextServer.IsValid() && !next {
			b.NextServer, next = c.boot.NextServer, true
		}
	}
	return b
}

// keaPool is a pool that is for the members of a class.
type keaPool struct {
	class  value
	ranges []dhcp.Range
}

// restrictKea adds the ranges of pools with a class. Where the class is not
// known nobody gets an address of them.
func (k *kea) restrictKea(n *Network, subnet int, pools []keaPool) {
	for _, p := range pools {
		match, ok := k.class(p.class.text)
		if !ok {
			k.note(p.class.pos, "there is no class %q that was taken over: nobody gets an address of this pool", p.class.text)
			continue
		}
		n.restrict("class "+p.class.text, subnet, p.ranges, false, match)
	}
}

// keaKeys are the names under which a machine's reservation is found.
func keaKeys(r *dhcp.Request) []string {
	return []string{"hw" + string(r.ClientHWAddr), "id" + string(r.Options.Get(dhcpv4.OptionClientIdentifier)), "ci" + string(r.RelayInfo(1))}
}
