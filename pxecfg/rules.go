package pxecfg

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"path"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/iana"
)

// Rules is a [Source] that goes by what is known of a machine: its identity,
// the vendor's part of its hardware address, its network, its host name, its
// architecture, platform and boot loader. What the rules have in common is in profiles, which they
// inherit from.
//
// The first rule in the list that matches decides, or with MostSpecific the
// one that says most. A rule that decides is final: when its source has nothing
// for the machine, no other rule is asked. The time that a decision takes
// hardly depends on the number of rules, or of values in one, except for host
// names with a wildcard at both ends, and for rules that have nothing but what
// they have in common with many others.
//
// Call Validate before use; rules that cannot be made sense of otherwise fail
// when they are first asked. The fields are read then and must not be changed
// afterwards. The methods may be called concurrently.
type Rules struct {
	// List holds the rules.
	List []Rule
	// Profiles are what rules and other profiles inherit from, by name.
	Profiles map[string]Profile
	// MostSpecific lets the rule decide that says most about the machine,
	// wherever it is in the list: first by hardware address (a whole one, then
	// the longest prefix), then by UUID, then by IP address (the smallest
	// network; a range counts as the network of its size), then by host name
	// (one without wildcards, then the one with most other characters), then
	// by architecture, platform and loader (the number of these). Between
	// equals the first in the list decides.
	MostSpecific bool
	// Unknown answers for machines that no rule matches, and what it answers
	// is a [Config.Fallback], see [Machines].
	Unknown Source
	// MaxSeen is how many unknown machines are remembered; the one that was
	// silent for longest is forgotten first. 0 means 1024, -1 none.
	MaxSeen int
	// Logger gets a warning when an unknown hardware address is seen for the
	// first time. nil means slog.Default().
	Logger *slog.Logger

	once  sync.Once
	index *ruleIndex
	err   error
	seen  sightings
}

// Rule says what the machines boot that it matches: Profile, with what it
// inherits, and over it what Source adds, which may differ from machine to
// machine.
type Rule struct {
	// Name is for [Explain]. Empty means the rule's number.
	Name string
	// Match is whom it is for.
	Match Match
	// Profile is what they boot. It is checked once, and shared.
	Profile Profile
	// Source is asked for each machine, and what it returns is laid over
	// Profile as another profile would be; without a Profile it is taken as
	// it is. A file of [Existing] is sent as it is as long as Profile says
	// nothing that it does not say too; otherwise PXELINUX gets the two put
	// together, and a file of which an entry or a password would be lost by
	// that is an error. nil adds nothing. [Deny] refuses the machines.
	Source Source
}

// Match says which machines are meant: all of the kinds that are not empty
// must fit, and within one kind any value is enough. The zero Match fits every
// machine. What is not known of a machine does not fit: beside a foreign DHCP
// server, PXELINUX shows one of UUID, hardware address and IP address at a
// time. A UUID and a host name are what the machine says of itself, and no
// reason to hand it a secret; a hardware address is, where [Tree.Lookup] has a
// lease for it.
//
// A rule that goes by architecture, platform and loader only, or fits all, is
// a [Config.Fallback].
type Match struct {
	// MAC are whole hardware addresses.
	MAC []net.HardwareAddr
	// MACPrefix are first bytes of hardware addresses, such as the three of a
	// vendor.
	MACPrefix []net.HardwareAddr
	// UUID are UUIDs in either byte order.
	UUID []string
	// Network are IP networks; 192.0.2.7/32 is a single address.
	Network []netip.Prefix
	// Range are ranges of IP addresses.
	Range []IPRange
	// Hostname are host names, in either case, or patterns with * ? [a-z] as
	// [path.Match] has them.
	Hostname []string
	// Arch are architectures.
	Arch []iana.Arch
	// Platform are "pcbios" and "efi": see [Client.Platform].
	Platform []string
	// Loader are the programs that ask: see [Client.Loader].
	Loader []Loader
}

// IPRange is a range of IP addresses, both ends included.
type IPRange struct{ First, Last netip.Addr }

// Contains tells whether an address is in the range.
func (r IPRange) Contains(a netip.Addr) bool {
	return a.BitLen() == r.First.BitLen() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// Deny returns a source that has nothing for anybody. Unlike a nil Source it
// can be that of a [Rule].
func Deny() Source {
	return SourceFunc(func(context.Context, Client) (*Config, error) { return nil, fs.ErrNotExist })
}

// Config implements [Source].
func (r *Rules) Config(ctx context.Context, c Client) (*Config, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	k := r.index.find(c, r.MostSpecific)
	if k == nil {
		return askUnknown(ctx, r.Unknown, c, &r.seen, r.MaxSeen, r.Logger)
	}
	if !isLook(ctx) {
		r.seen.forget(c)
	}
	lookOf(ctx).match(k.name)
	return k.config(ctx, c)
}

// Validate reports rules, profiles and entries that make no sense, by the
// rule's or profile's name.
func (r *Rules) Validate() error {
	r.once.Do(func() { r.index, r.err = r.compile() })
	return r.err
}

// Seen lists the machines that no rule matches, the latest first.
func (r *Rules) Seen() []Sighting { return r.seen.list() }

// compiledRule is a rule with its profiles put together.
type compiledRule struct {
	*Rule
	name     string
	by       kind // of the index; known to fit when the rule is found there
	index    matchIndex
	fallback bool
	base     *layered // nil: what Source says is all
	fixed    *Config  // if there is no Source
}

func (k *compiledRule) config(ctx context.Context, c Client) (*Config, error) {
	if k.base != nil {
		lookOf(ctx).from(k.base.origin)
	}
	if k.Source == nil {
		return k.fixed, nil
	}
	cfg, err := ask(ctx, k.Source, c)
	if err != nil {
		return nil, err
	}
	if k.base == nil {
		if k.fallback && !cfg.Fallback {
			cfg = cfg.asFallback()
		}
		return cfg, nil
	}
	if cfg.verbatim != nil && cfg.verbatim.err != nil {
		// Nothing can be laid over what PXELINUX alone understands.
		return nil, fmt.Errorf("%s has a profile, and its file cannot be put together with it: %w", k.name, cfg.verbatim.err)
	}
	l := k.base.clone(isLook(ctx))
	l.add(&Profile{Config: *cfg}, "the source of "+k.name)
	if l.err != nil {
		return nil, l.err
	}
	lookOf(ctx).from(l.origin)
	out := l.config()
	out.Fallback = k.fallback || cfg.Fallback
	if cfg.verbatim != nil {
		same := *out
		same.Fallback, same.verbatim = cfg.Fallback, cfg.verbatim
		switch {
		case reflect.DeepEqual(&same, cfg):
			out.verbatim = cfg.verbatim // the profile says nothing else
		case cfg.verbatim.lost != nil && c.Loader != LoaderIPXE && c.Loader != LoaderGRUB:
			return nil, fmt.Errorf("%s has a profile, and its file cannot be put together with it: %w", k.name, cfg.verbatim.lost)
		}
	}
	return out, nil
}

func (c *Config) asFallback() *Config {
	out := *c
	out.Fallback = true
	return &out
}

func (r *Rules) compile() (*ruleIndex, error) {
	p := profiles{all: r.Profiles}
	for _, name := range sortedKeys(r.Profiles) {
		if _, err := p.chain(name, nil); err != nil {
			return nil, err
		}
	}
	rules := make([]*compiledRule, 0, len(r.List))
	for i := range r.List {
		k := &compiledRule{Rule: &r.List[i], name: fmt.Sprintf("rule %d", i+1)}
		if k.Name != "" {
			k.name = fmt.Sprintf("rule %q", k.Name)
		}
		if err := k.Match.validate(); err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		m := &k.Match
		k.index = newMatchIndex(m)
		k.fallback = len(m.MAC) == 0 && len(m.MACPrefix) == 0 && len(m.UUID) == 0 &&
			len(m.Network) == 0 && len(m.Range) == 0 && len(m.Hostname) == 0
		if !k.Profile.empty() {
			var err error
			if k.base, err = p.layers(&k.Profile, k.name); err != nil {
				return nil, fmt.Errorf("%s: %w", k.name, err)
			}
		}
		switch {
		case k.Source != nil:
		case k.base == nil:
			return nil, fmt.Errorf("%s boots nothing: set Profile or Source, which may be Deny(): %w", k.name, fs.ErrInvalid)
		default:
			k.fixed = k.base.config()
			k.fixed.Fallback = k.fixed.Fallback || k.fallback
			if err := k.fixed.Validate(); err != nil {
				return nil, fmt.Errorf("%s: %w", k.name, err)
			}
		}
		rules = append(rules, k)
	}
	return newRuleIndex(rules), nil
}

func (m *Match) validate() error {
	for _, a := range m.MAC {
		if len(a) == 0 {
			return fmt.Errorf("an empty hardware address: %w", fs.ErrInvalid)
		}
	}
	for _, a := range m.MACPrefix {
		if len(a) == 0 {
			return fmt.Errorf("an empty prefix of hardware addresses: %w", fs.ErrInvalid)
		}
	}
	for _, u := range m.UUID {
		if _, ok := parseUUID(u); !ok {
			return fmt.Errorf("UUID %q: write it as 8-4-4-4-12 hexadecimal digits: %w", u, fs.ErrInvalid)
		}
	}
	for _, n := range m.Network {
		if !n.IsValid() || n.Addr().Is4In6() {
			return fmt.Errorf("network %s: write it as 192.0.2.0/24: %w", n, fs.ErrInvalid)
		}
		if n != n.Masked() {
			return fmt.Errorf("network %s has bits behind its mask: write %s, or /%d for the address alone: %w",
				n, n.Masked(), n.Addr().BitLen(), fs.ErrInvalid)
		}
	}
	for _, r := range m.Range {
		if !r.First.IsValid() || r.First.BitLen() != r.Last.BitLen() || r.Last.Less(r.First) ||
			r.First.Zone() != "" || r.Last.Zone() != "" || r.First.Is4In6() || r.Last.Is4In6() {
			return fmt.Errorf("range %s to %s: write the lower address first, both of one IP version: %w", r.First, r.Last, fs.ErrInvalid)
		}
	}
	for _, p := range m.Platform {
		if p != "pcbios" && p != "efi" {
			return fmt.Errorf("platform %q: it is pcbios or efi: %w", p, fs.ErrInvalid)
		}
	}
	for _, l := range m.Loader {
		switch l {
		case LoaderPXELINUX, LoaderIPXE, LoaderGRUB, LoaderUBoot, LoaderHTTP:
		default:
			return fmt.Errorf("boot loader %q: it is pxelinux, ipxe, grub, u-boot or http: %w", l, fs.ErrInvalid)
		}
	}
	for _, h := range m.Hostname {
		if _, err := path.Match(h, ""); err != nil || h == "" {
			return fmt.Errorf("host name pattern %q: %w", h, fs.ErrInvalid)
		}
	}
	return nil
}

// askUnknown answers for a machine that nobody configured, and remembers it.
func askUnknown(ctx context.Context, s Source, c Client, seen *sightings, limit int, log *slog.Logger) (*Config, error) {
	lookOf(ctx).match("unknown machines")
	if limit == 0 {
		limit = 1024
	}
	if !isLook(ctx) && seen.add(c, time.Now(), max(limit, 0)) {
		if log == nil {
			log = slog.Default()
		}
		log.Warn("unknown machine asks for its boot configuration", "client", c.String(),
			"mac", c.MAC.String(), "uuid", c.UUID, "arch", archText(c))
	}
	cfg, err := ask(ctx, s, c)
	if err != nil {
		return nil, err
	}
	return cfg.asFallback(), nil
}

func lower(s string) string { return strings.ToLower(s) }
