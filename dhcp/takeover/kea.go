package takeover

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// Kea reads the Dhcp4 part of a Kea configuration: subnets and shared networks
// with pools, options, lifetimes, and what is to be booted, and the host
// reservations of subnets and of all of them, by hardware address, client
// identifier or circuit ID. Comments are understood, includes are not. file is
// its name, for messages. Client classes are taken over with the tests that
// boot files are chosen by, what they give, and the pools that are for them.
// The error is a [*SyntaxError]; what is not taken over is in [Config.Notes].
func Kea(_ context.Context, file string, data []byte, o *Options) (*Config, error) {
	root, err := parseJSON(file, data)
	if err != nil {
		return nil, err
	}
	if o == nil {
		o = new(Options)
	}
	k := &kea{o: o, config: new(Config), machines: make(map[string]bool)}
	d, ok := root.get("Dhcp4")
	if !ok || d.kind != '{' {
		return nil, &SyntaxError{root.pos, `there is no object "Dhcp4"`}
	}
	for _, m := range root.members {
		if m.name != "Dhcp4" {
			k.note(m.pos, "%s is not taken over", m.name)
		}
	}
	classes, _ := d.get("client-classes")
	k.readClasses(classes)
	top := k.level(d, keaLevel{valid: 7200, max: 7200}, "client-classes", "subnet4", "shared-networks", "reservations", "authoritative")
	v, _ := d.get("authoritative")
	k.authoritative = v.text == "true"
	global, _ := d.get("reservations")
	shared, _ := d.get("shared-networks")
	for _, n := range shared.list {
		name, _ := n.get("name")
		in := k.level(n, top, "name", "subnet4", "authoritative")
		subnets, _ := n.get("subnet4")
		k.network(name.text, subnets.list, in, global)
	}
	subnets, _ := d.get("subnet4")
	for _, s := range subnets.list {
		k.network("", []value{s}, top, global)
	}
	if k.config.Networks == nil {
		k.note(d.pos, "there is no subnet: nobody is served")
	}
	slices.SortStableFunc(k.config.Notes, func(a, b Note) int { return cmp.Or(a.Line-b.Line, a.Col-b.Col) })
	k.config.Notes = slices.Compact(k.config.Notes) // reservations of all subnets are read for each
	if err := k.config.Validate(); err != nil {
		return nil, &SyntaxError{d.pos, err.Error()}
	}
	return k.config, nil
}

type kea struct {
	o             *Options
	config        *Config
	authoritative bool
	classes       []keaClass
	machines      map[string]bool // that have a reservation, by keaKeys
}

// keaLevel is what an inner level inherits.
type keaLevel struct {
	options    dhcpv4.Options
	boot       dhcp.Boot
	valid, max int64
}

func (k *kea) note(at Pos, format string, args ...any) {
	k.config.Notes = append(k.config.Notes, Note{Pos: at, Msg: fmt.Sprintf(format, args...)})
}

// Settings that have nothing to do with what clients are told.
const keaHarmless = " id comment user-context interface interfaces-config lease-database control-socket loggers renew-timer rebind-timer " +
	"expired-leases-processing hooks-libraries hosts-database sanity-checks multi-threading dhcp-ddns calculate-tee-times t1-percent t2-percent " +
	"reservation-mode reservations-global reservations-in-subnet reservations-out-of-pool store-extended-info parked-packet-limit relay match-client-id " +
	"echo-client-id statistic-default-sample-count statistic-default-sample-age ip-reservations-unique cache-threshold cache-max-age dhcp-queue-control "

// level reads what can stand at every level; others are the names that the
// caller reads.
func (k *kea) level(v value, outer keaLevel, others ...string) keaLevel {
	l := outer
	l.options = make(dhcpv4.Options)
	for code, data := range outer.options {
		l.options[code] = data
	}
	for _, m := range v.members {
		switch m.name {
		case "option-data":
			for _, o := range m.list {
				k.option(o, l.options, &l.boot)
			}
		case "next-server":
			k.nextServer(m.value, &l.boot)
		case "server-hostname":
			l.boot.ServerName = cmp.Or(m.text, l.boot.ServerName)
		case "boot-file-name":
			l.boot.File = cmp.Or(m.text, l.boot.File)
		case "valid-lifetime":
			if n, ok := m.number(); ok {
				l.valid, l.max = n, n
			}
		default:
			switch {
			case slices.Contains(others, m.name) || m.name == "max-valid-lifetime":
			case strings.Contains(keaHarmless, " "+m.name+" "):
				k.note(m.pos, "%s has no effect here", m.name)
				k.config.Notes[len(k.config.Notes)-1].Harmless = true
			default:
				k.note(m.pos, "%s is not taken over", m.name)
			}
		}
	}
	if m, ok := v.get("max-valid-lifetime"); ok {
		if n, ok := m.number(); ok {
			l.max = n
		}
	}
	return l
}

func (k *kea) nextServer(v value, b *dhcp.Boot) {
	a, err := netip.ParseAddr(v.text)
	switch {
	case err != nil || !a.Is4():
		k.note(v.pos, "next-server %q is no IPv4 address", v.text)
	case !a.IsUnspecified():
		b.NextServer = a
	}
}

// option reads an element of option-data.
func (k *kea) option(o value, options dhcpv4.Options, boot *dhcp.Boot) {
	name, _ := o.get("name")
	code, _ := o.get("code")
	data, _ := o.get("data")
	space, hasSpace := o.get("space")
	csv, _ := o.get("csv-format")
	if hasSpace && space.text != "dhcp4" {
		k.note(o.pos, "option space %q is not taken over", space.text)
		return
	}
	asks, text := cmp.Or(name.text, code.text), data.text
	if n, ok := dhcp.OptionCode(asks); ok && csv.text == "false" {
		b, err := hex.DecodeString(strings.NewReplacer(" ", "", ":", "", "0x", "").Replace(text))
		if err != nil || n >= 50 && n <= 57 || n == 61 || n == 82 || n == 80 || n == 97 || n == 118 {
			k.note(data.pos, "option %s has no value in hexadecimal that can be set", asks)
			return
		}
		options[n] = b
		return
	}
	n, b, err := dhcp.ParseOption(asks, text)
	switch {
	case err != nil:
		k.note(o.pos, "%v", err)
	case n == 66:
		boot.ServerName = text
	case n == 67:
		boot.File = text
	case n == 60:
		k.note(o.pos, "option %s is sent to those that it is for", asks)
		k.config.Notes[len(k.config.Notes)-1].Harmless = true
	case n >= 50 && n <= 57 || n == 61 || n == 82 || n == 80 || n == 97 || n == 118:
		k.note(o.pos, "option %s is the protocol's own and is not taken over", asks)
	default:
		options[n] = b
	}
}

func (k *kea) network(name string, subnets []value, outer keaLevel, global value) {
	n := &Network{Name: name}
	var boots []func(r *dhcp.Request) dhcp.Boot
	var restricted [][]keaPool
	for _, s := range subnets {
		p, boot, pools := k.subnet(s, outer, global)
		if p != nil {
			n.Pools, boots, restricted = append(n.Pools, p), append(boots, boot), append(restricted, pools)
		}
	}
	if n.Pools == nil {
		return
	}
	for i, pools := range restricted {
		k.restrictKea(n, i, pools)
	}
	n.keepRest()
	own := make([]map[string]dhcpv4.Options, len(n.Pools)) // of machines
	for i, p := range n.Pools {
		own[i] = make(map[string]dhcpv4.Options)
		for j := range p.Reservations {
			own[i][keaKey(&p.Reservations[j])] = p.Reservations[j].Options
		}
	}
	n.finish(func(i int, r *dhcp.Request, reply *dhcpv4.DHCPv4) error {
		if reply.MessageType() == dhcpv4.MessageTypeNak {
			return nil
		}
		has := []dhcpv4.Options{n.Pools[i].Options}
		for _, key := range keaKeys(r) {
			has = append(has, own[i][key])
		}
		k.classOptions(has, r, reply)
		return nil
	},
		func(i int) func(context.Context, *dhcp.Request) (dhcp.Boot, error) {
			return func(_ context.Context, r *dhcp.Request) (dhcp.Boot, error) {
				b := boots[i](r)
				if b.File == "" && r.Platform().WantsFile() {
					return b, fmt.Errorf("no boot-file-name for %v: %w", r.ClientHWAddr, fs.ErrNotExist)
				}
				return b, nil
			}
		}, k.o)
	k.config.Networks = append(k.config.Networks, n)
}

func (k *kea) subnet(s value, outer keaLevel, global value) (*dhcp.Pool, func(r *dhcp.Request) dhcp.Boot, []keaPool) {
	text, _ := s.get("subnet")
	prefix, err := netip.ParsePrefix(text.text)
	if err != nil || !prefix.Addr().Is4() {
		k.note(s.pos, "%q is no IPv4 subnet", text.text)
		return nil, nil, nil
	}
	l := k.level(s, outer, "client-class", "subnet", "pools", "reservations", "authoritative")
	p := &dhcp.Pool{
		Prefix: prefix.Masked(), ServerID: k.o.ServerID, Store: k.o.Store, Logger: k.o.Logger,
		Options: l.options, NotAuthoritative: !k.authoritative,
		LeaseTime: keaTime(l.valid), MaxLeaseTime: keaTime(l.max), InUse: new(dhcp.Prober).InUse,
	}
	if v, ok := s.get("authoritative"); ok {
		p.NotAuthoritative = v.text != "true"
	}
	delete(p.Options, 1)
	delete(p.Options, 28)
	for routers := p.Options[3]; len(routers) >= 4; routers = routers[4:] {
		a := netip.AddrFrom4([4]byte(routers))
		p.Exclude = append(p.Exclude, dhcp.Range{First: a, Last: a})
	}
	pools, _ := s.get("pools")
	var restricted []keaPool
	whole, hasClass := s.get("client-class")
	if hasClass && (own(s, "reservations") || len(global.list) > 0) {
		k.note(whole.pos, "client-class of a subnet: machines with a reservation are served whether they are in the class or not")
	}
	for _, e := range pools.list {
		class, ok := e.get("client-class")
		switch {
		case hasClass && ok && class.text != whole.text:
			k.note(class.pos, "client-class of a pool of a subnet with another client-class: nobody gets an address of this pool")
			continue
		case hasClass:
			class = whole
		}
		if r, ok := k.pool(e, p); ok && (hasClass || class.text != "") {
			restricted = append(restricted, keaPool{class, []dhcp.Range{r}})
		} else if ok {
			p.Ranges = append(p.Ranges, r)
		}
	}
	hosts := make(map[string]dhcp.Boot)
	own, _ := s.get("reservations")
	for _, e := range own.list {
		k.reservation(e, p, hosts)
	}
	for _, e := range global.list {
		k.reservation(e, p, hosts)
	}
	return p, func(r *dhcp.Request) dhcp.Boot {
		boot := k.classBoot(r, l.boot)
		for _, key := range keaKeys(r) {
			if b, ok := hosts[key]; ok {
				if b.File != "" || b.ServerName != "" || b.NextServer.IsValid() {
					r.Note("the reservation decides what it boots")
				}
				boot.File = cmp.Or(b.File, boot.File)
				boot.ServerName = cmp.Or(b.ServerName, boot.ServerName)
				if b.NextServer.IsValid() {
					boot.NextServer = b.NextServer
				}
				break
			}
		}
		return boot
	}, restricted
}

// keaKey is the one of keaKeys under which the reservation is found.
func keaKey(r *dhcp.Reservation) string {
	switch {
	case len(r.HardwareAddr) > 0:
		return "hw" + string(r.HardwareAddr)
	case len(r.ClientID) > 0:
		return "id" + string(r.ClientID)
	}
	return "ci" + string(r.CircuitID)
}

func own(v value, name string) bool {
	list, _ := v.get(name)
	return len(list.list) > 0
}

func keaTime(n int64) time.Duration {
	if n >= 1<<32-1 {
		return -1
	}
	return time.Duration(max(n, 60)) * time.Second
}

func (k *kea) pool(e value, p *dhcp.Pool) (r dhcp.Range, ok bool) {
	text, _ := e.get("pool")
	for _, m := range e.members {
		if m.name != "pool" && m.name != "client-class" && m.name != "user-context" && m.name != "comment" {
			k.note(m.pos, "%s of a pool is not taken over: it is as the subnet", m.name)
		}
	}
	if a, b, ok := strings.Cut(text.text, "-"); ok {
		r.First, _ = netip.ParseAddr(strings.TrimSpace(a))
		r.Last, _ = netip.ParseAddr(strings.TrimSpace(b))
	} else if sub, err := netip.ParsePrefix(strings.TrimSpace(text.text)); err == nil && sub.Addr().Is4() {
		r.First = sub.Masked().Addr()
		b := r.First.As4()
		for i := sub.Bits(); i < 32; i++ {
			b[i/8] |= 0x80 >> (i % 8)
		}
		r.Last = netip.AddrFrom4(b)
	}
	if !r.First.Is4() || !p.Prefix.Contains(r.First) || !p.Prefix.Contains(r.Last) || r.Last.Less(r.First) {
		k.note(e.pos, "%q is no range of the subnet %v", text.text, p.Prefix)
		return r, false
	}
	return r, true
}

func (k *kea) reservation(e value, p *dhcp.Pool, hosts map[string]dhcp.Boot) {
	r := dhcp.Reservation{Options: make(dhcpv4.Options)}
	var boot dhcp.Boot
	key := ""
	bytesOf := func(m member) []byte {
		text := strings.Trim(m.text, "'")
		if b := hexBytes(text); b != nil && strings.Contains(text, ":") {
			return b
		}
		if b, err := hex.DecodeString(strings.TrimPrefix(text, "0x")); err == nil && text == m.text {
			return b
		}
		return []byte(text)
	}
	for _, m := range e.members {
		switch m.name {
		case "hw-address":
			r.HardwareAddr = hexBytes(m.text)
			if len(r.HardwareAddr) == 0 || len(r.HardwareAddr) > 16 {
				k.note(m.pos, "%q is no hardware address", m.text)
				return
			}
			key = "hw" + string(r.HardwareAddr)
		case "client-id":
			r.ClientID = bytesOf(m)
			key = cmp.Or(key, "id"+string(r.ClientID))
		case "circuit-id":
			r.CircuitID = bytesOf(m)
			key = cmp.Or(key, "ci"+string(r.CircuitID))
		case "ip-address":
			a, err := netip.ParseAddr(m.text)
			switch {
			case err != nil || !a.Is4():
				k.note(m.pos, "%q is no IPv4 address", m.text)
				return
			case a.IsUnspecified():
			case !p.Prefix.Contains(a):
				return // another subnet's
			default:
				r.Addr = a
			}
		case "hostname":
			if !validName(m.text) {
				k.note(m.pos, "%q is no host name and is not sent", m.text)
				continue
			}
			r.Hostname = m.text
		case "option-data":
			for _, o := range m.list {
				k.option(o, r.Options, &boot)
			}
		case "next-server":
			k.nextServer(m.value, &boot)
		case "server-hostname":
			boot.ServerName = cmp.Or(m.text, boot.ServerName)
		case "boot-file-name":
			boot.File = cmp.Or(m.text, boot.File)
		case "user-context", "comment":
		default:
			k.note(m.pos, "%s of a reservation is not taken over", m.name)
		}
	}
	switch {
	case key == "":
		k.note(e.pos, "the reservation has no hw-address, client-id or circuit-id and is not taken over")
		return
	case slices.ContainsFunc(p.Reservations, func(o dhcp.Reservation) bool { return r.Addr.IsValid() && o.Addr == r.Addr }):
		k.note(e.pos, "%v is reserved twice", r.Addr)
		return
	}
	if _, ok := hosts[key]; ok {
		return // the subnet's own goes before that of all subnets
	}
	hosts[key] = boot
	k.machines[key] = true
	p.Reservations = append(p.Reservations, r)
}
