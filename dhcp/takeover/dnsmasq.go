package takeover

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// Dnsmasq reads the DHCP part of a dnsmasq.conf: dhcp-range, dhcp-host,
// dhcp-boot, pxe-service, pxe-prompt, dhcp-option, and the tags that dhcp-match,
// dhcp-vendorclass, dhcp-userclass, dhcp-mac, dhcp-circuitid and dhcp-remoteid
// set, with dhcp-ignore. file is its name, for messages. The error is a
// [*SyntaxError], also of a conf-file (see [Options.Open]); lines that are not taken over are in [Config.Notes], those
// of dnsmasq's other trades (DNS, TFTP) as Harmless.
//
// Of several values that fit a client, one with tags goes before one without,
// and among those the last in the file. A range without a netmask takes that
// of the subnet in [Options.Subnets] that has it.
//
// Several services of pxe-service are the menu that they are with dnsmasq, for
// PXE ROMs and UEFI (iPXE gets what dhcp-boot says); see [Config.BootServer].
func Dnsmasq(ctx context.Context, file string, data []byte, o *Options) (*Config, error) {
	if o == nil {
		o = new(Options)
	}
	d := &dnsmasq{ctx: ctx, file: file, o: o, config: new(Config)}
	if err := d.lines(file, data); err != nil {
		return nil, err
	}
	d.build()
	if err := d.config.Validate(); err != nil {
		return nil, &SyntaxError{Pos{file, 1, 1}, err.Error()}
	}
	return d.config, nil
}

// lines takes the lines of a file.
func (d *dnsmasq) lines(file string, data []byte) error {
	if len(data) > maxConfig {
		return &SyntaxError{Pos{file, 1, 1}, "too long"}
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		d.at = Pos{file, n, 1 + len(line) - len(strings.TrimLeft(line, " \t"))}
		if err := d.line(line); err != nil {
			return err
		}
	}
	return nil
}

// confFile takes the lines of another file.
func (d *dnsmasq) confFile(name string) error {
	if d.o.Open == nil || name == "" {
		d.note("conf-file %q is not read", name)
		return nil
	}
	if d.depth >= maxIncludes {
		return &SyntaxError{d.at, fmt.Sprintf("files are nested more than %d deep", maxIncludes)}
	}
	at := d.at
	data, err := d.o.Open(name)
	if err != nil {
		return &SyntaxError{at, fmt.Sprintf("conf-file %q: %v", name, err)}
	}
	d.depth++
	err = d.lines(name, data)
	d.depth--
	return err
}

type dnsmasq struct {
	depth  int // of conf-file
	ctx    context.Context
	file   string
	o      *Options
	config *Config
	at     Pos

	ranges      []dnsRange
	hosts       []dnsHost
	options     []dnsOption
	boots       []dnsBoot
	services    []dnsService
	files       uint16 // of services
	prompts     []dnsPrompt
	tags        []dnsTag
	ignore      [][]string
	domain      string
	authority   bool
	rapidCommit bool
	noPing      bool
	bootp       bool
}

type dnsRange struct {
	at     Pos
	set    []string
	tags   []string // of clients that may have its addresses
	first  netip.Addr
	last   netip.Addr
	prefix netip.Prefix
	static bool
	time   time.Duration
}

type dnsHost struct {
	at     Pos
	hw     []net.HardwareAddr
	id     []byte
	addr   netip.Addr
	name   string
	set    []string
	ignore bool
}

type dnsOption struct {
	tags []string
	code uint8
	data []byte
	self bool // 0.0.0.0: the server's own address
}

type dnsBoot struct {
	tags []string
	boot dhcp.Boot
}

type dnsTag struct {
	set   string
	match func(r *dhcp.Request) bool
}

func (d *dnsmasq) note(format string, args ...any) {
	d.config.Notes = append(d.config.Notes, Note{Pos: d.at, Msg: fmt.Sprintf(format, args...)})
}

// line takes one line of the file.
func (d *dnsmasq) line(line string) error {
	line = strings.TrimSpace(stripComment(line))
	line = strings.TrimPrefix(line, "--")
	if line == "" {
		return nil
	}
	key, value, _ := strings.Cut(line, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	fields, ok := splitFields(value)
	if !ok {
		return &SyntaxError{d.at, "a quote is not closed"}
	}
	switch key {
	case "dhcp-range":
		d.dhcpRange(fields)
	case "dhcp-host":
		d.dhcpHost(fields)
	case "dhcp-option", "dhcp-option-force":
		d.dhcpOption(fields)
	case "dhcp-boot":
		d.dhcpBoot(fields)
	case "pxe-service":
		d.pxeService(fields)
	case "pxe-prompt":
		d.pxePrompt(fields)
	case "dhcp-match", "dhcp-vendorclass", "dhcp-userclass", "dhcp-mac", "dhcp-circuitid", "dhcp-remoteid":
		d.dhcpMatch(key, fields)
	case "dhcp-ignore":
		if tags, rest := takeTags(fields, "tag:"); len(rest) == 0 && len(tags) > 0 {
			d.ignore = append(d.ignore, tags)
		} else {
			d.note("dhcp-ignore takes tags")
		}
	case "conf-file":
		return d.confFile(value)
	case "dhcp-authoritative":
		d.authority = true
	case "dhcp-rapid-commit":
		d.rapidCommit = true
	case "no-ping":
		d.noPing = true
	case "bootp-dynamic":
		d.bootp = true
	case "domain":
		if len(fields) == 1 && fields[0] != "#" {
			d.domain = fields[0]
		} else {
			d.note("only domain=NAME is taken over")
		}
	default:
		if strings.HasPrefix(key, "dhcp") && key != "dhcp-leasefile" && key != "dhcp-lease-max" && key != "dhcp-no-override" && key != "dhcp-sequential-ip" ||
			strings.HasPrefix(key, "pxe") || strings.HasPrefix(key, "conf-") || strings.HasPrefix(key, "tag-") || strings.HasPrefix(key, "bootp") {
			d.note("%s is not taken over", key)
			return nil
		}
		d.note("%s has no effect here", key)
		d.config.Notes[len(d.config.Notes)-1].Harmless = true
	}
	return nil
}

// stripComment cuts a # that begins the line or follows a blank.
func stripComment(line string) string {
	quoted := false
	for i, c := range line {
		switch {
		case c == '"':
			quoted = !quoted
		case c == '#' && !quoted && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t'):
			return line[:i]
		}
	}
	return line
}

// splitFields splits at commas outside of quotes, which it takes away.
func splitFields(s string) (fields []string, ok bool) {
	if s == "" {
		return nil, true
	}
	var b strings.Builder
	quoted := false
	for _, c := range []byte(s) {
		switch {
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			fields = append(fields, strings.TrimSpace(b.String()))
			b.Reset()
		default:
			b.WriteByte(c)
		}
	}
	return append(fields, strings.TrimSpace(b.String())), !quoted
}

// takeTags splits off the fields with the prefix, anywhere in the list.
func takeTags(fields []string, prefix string) (tags, rest []string) {
	for _, f := range fields {
		if t, ok := strings.CutPrefix(f, prefix); ok {
			tags = append(tags, t)
		} else if t, ok := strings.CutPrefix(f, "net:"); ok {
			tags = append(tags, t)
		} else {
			rest = append(rest, f)
		}
	}
	return tags, rest
}

func (d *dnsmasq) dhcpRange(fields []string) {
	set, fields := takeTags(fields, "set:")
	tags, fields := takeTags(fields, "tag:")
	r := dnsRange{at: d.at, set: set, tags: tags, time: time.Hour}
	var addrs []netip.Addr
	for _, f := range fields {
		a, err := netip.ParseAddr(f)
		switch {
		case err == nil && a.Is4():
			addrs = append(addrs, a)
		case err == nil || strings.Contains(f, ":") || strings.HasPrefix(f, "ra-") || f == "slaac":
			d.note("ranges for IPv6 are not taken over")
			return
		case f == "static":
			r.static = true
		case f == "proxy":
			d.note("a range for a proxy is not taken over: use dhcp.Proxy beside the other server")
			return
		default:
			t, ok := leaseDuration(f)
			if !ok {
				d.note("%q in a range is not understood", f)
				return
			}
			r.time = t
		}
	}
	if len(addrs) == 0 {
		d.note("a range without addresses")
		return
	}
	r.first, r.last = addrs[0], addrs[0]
	rest := addrs[1:]
	if !r.static && len(rest) > 0 {
		r.last, rest = rest[0], rest[1:]
	}
	if len(rest) > 0 {
		ones, bits := net.IPMask(rest[0].AsSlice()).Size()
		if bits == 0 {
			d.note("%v is no netmask", rest[0])
			return
		}
		r.prefix = netip.PrefixFrom(r.first, ones).Masked()
	}
	for _, s := range d.o.Subnets {
		if !r.prefix.IsValid() && s.Contains(r.first) {
			r.prefix = s.Masked()
		}
	}
	if !r.prefix.IsValid() {
		d.note("the range has no netmask, and no subnet is known that it is in: write the netmask behind it")
		return
	}
	if !r.prefix.Contains(r.last) || r.last.Less(r.first) {
		d.note("%v to %v is no range of the subnet %v", r.first, r.last, r.prefix)
		return
	}
	d.ranges = append(d.ranges, r)
}

// leaseDuration reads 3600, 45m, 12h, 2d, 1w and infinite, which is -1.
func leaseDuration(s string) (time.Duration, bool) {
	if s == "infinite" {
		return -1, true
	}
	unit := time.Second
	for suffix, u := range map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = rest, u
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 24)
	if err != nil || n == 0 || time.Duration(n)*unit > 136*365*24*time.Hour {
		return 0, false
	}
	return max(time.Duration(n)*unit, 2*time.Minute), true // as dnsmasq does
}

func (d *dnsmasq) dhcpHost(fields []string) {
	set, fields := takeTags(fields, "set:")
	tags, fields := takeTags(fields, "tag:")
	if len(tags) > 0 {
		d.note("a host for clients with a tag is not taken over")
		return
	}
	h := dnsHost{at: d.at, set: set}
	for _, f := range fields {
		a, err := netip.ParseAddr(f)
		_, isTime := leaseDuration(f)
		switch {
		case err == nil && a.Is4():
			h.addr = a
		case strings.HasPrefix(f, "[") || err == nil:
			d.note("the host's IPv6 address is not taken over")
		case f == "ignore":
			h.ignore = true
		case strings.HasPrefix(f, "id:"):
			id := strings.TrimPrefix(f, "id:")
			if id == "*" { // only the hardware address counts, as it does here
				continue
			}
			if h.id = hexBytes(id); h.id == nil || !strings.Contains(id, ":") {
				h.id = []byte(id)
			}
		case strings.Contains(f, ":"):
			hw := hexBytes(strings.TrimPrefix(f, "1-"))
			if len(hw) == 0 || len(hw) > 16 {
				d.note("%q is no hardware address", f)
				return
			}
			h.hw = append(h.hw, hw)
		case isTime:
			d.note("a lease time of its own is not taken over for a host")
		case validName(f) && h.name == "":
			h.name = f
		default:
			d.note("%q in a host is not understood", f)
			return
		}
	}
	if h.hw == nil && h.id == nil {
		d.note("the host has neither hardware address nor client identifier: its name alone is not taken over")
		return
	}
	if len(h.hw) > 1 {
		d.note("only the first of several hardware addresses is taken over")
	}
	d.hosts = append(d.hosts, h)
}

func (d *dnsmasq) dhcpBoot(fields []string) {
	tags, fields := takeTags(fields, "tag:")
	b := dnsBoot{tags: tags}
	if len(fields) == 0 || fields[0] == "" {
		d.note("dhcp-boot names no file")
		return
	}
	b.boot.File = fields[0]
	if len(fields) > 1 {
		b.boot.ServerName = fields[1]
	}
	if len(fields) > 2 && fields[2] != "" {
		a, err := d.o.resolve(d.ctx, fields[2])
		if err != nil {
			d.note("the server %q cannot be found: %v; this server is named instead", fields[2], err)
		}
		b.boot.NextServer = a
	}
	d.boots = append(d.boots, b)
}

func (d *dnsmasq) dhcpOption(fields []string) {
	tags, fields := takeTags(fields, "tag:")
	if len(fields) == 0 {
		d.note("dhcp-option names no option")
		return
	}
	name := fields[0]
	for _, p := range []string{"vendor:", "encap:", "vi-encap:", "option6:"} {
		if strings.HasPrefix(name, p) {
			d.note("dhcp-option with %s is not taken over", strings.TrimSuffix(p, ":"))
			return
		}
	}
	name = strings.TrimPrefix(name, "option:")
	value := strings.Join(fields[1:], ",")
	if code, ok := dhcp.OptionCode(name); ok && value == "" {
		// dnsmasq then sends nothing where it would send something of its own.
		d.options = append(d.options, dnsOption{tags: tags, code: code})
		return
	}
	code, data, err := dhcp.ParseOption(name, value)
	if err != nil {
		d.note("%v", err)
		return
	}
	if code >= 50 && code <= 57 || code == 61 || code == 82 || code == 80 || code == 97 || code == 118 {
		d.note("option %s is the protocol's own and is not taken over", name)
		return
	}
	d.options = append(d.options, dnsOption{tags: tags, code: code, data: data, self: value == "0.0.0.0"})
}
