package dhcp6

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/internal/limit"
)

// Boot is what a client is told about booting.
type Boot struct {
	// URL is the boot file (option 59, RFC 5970 section 3.1), with its server:
	// UEFI's PXE client takes tftp://[2001:db8::1]/file, UEFI HTTP Boot http
	// and https, iPXE all of them. Empty: the client is to boot in another
	// way, such as its local disk.
	URL string

	// Params are arguments for the boot file (option 60), a script's or a
	// kernel's.
	Params []string

	// Options are sent besides, and before all others.
	Options dhcpv6.Options
}

// BootRule says what to tell the clients that it matches.
type BootRule struct {
	// Name is for logs and [Explain]; it may be empty.
	Name string
	Match
	// Boot is what the client is told.
	Boot Boot
}

// BootRules are rules of which the first that matches decides. iPXE asks for
// a boot file once more after it was loaded, with the architecture that its
// loader had: put the rules for [dhcp.PlatformIPXE] before those that load it.
type BootRules []BootRule

// Boot returns the Boot of the first rule that matches, or an error that is
// [fs.ErrNotExist]. It is made for [BootPolicy.Boot].
func (rules BootRules) Boot(_ context.Context, r *Request) (Boot, error) {
	for i := range rules {
		if rules[i].Matches(r) {
			r.Note("boot rule %d %s (%v) gives %q", i+1, rules[i].Name, &rules[i].Match, rules[i].Boot.URL)
			return rules[i].Boot, nil
		}
	}
	return Boot{}, fmt.Errorf("dhcp6: no boot rule matches %s: %w", r.who(), fs.ErrNotExist)
}

// BootPolicy is a [Handler] that adds the boot part to what another one
// answers to clients that ask to boot ([dhcp.Platform.WantsFile]). UEFI HTTP
// Boot gets the vendor class that it looks for besides. Other clients get
// Next's reply unchanged; Boot is not asked.
type BootPolicy struct {
	// Next makes the reply, a [Pool] or [Stateless]. Required.
	Next Handler

	// Boot decides for one request; it is called once for each ADVERTISE and
	// REPLY, concurrently. [fs.ErrNotExist]: nothing is known for this client,
	// which is logged at Warn, once for each. Any other error: the client gets
	// no reply. Required; [BootRules.Boot] fits.
	Boot func(ctx context.Context, r *Request) (Boot, error)

	// Logger is for what an operator must see; nil is [slog.Default].
	Logger *slog.Logger

	warned limit.Once
}

var _ Handler = (*BootPolicy)(nil)

// ServeDHCP implements [Handler].
func (p *BootPolicy) ServeDHCP(ctx context.Context, r *Request) (*dhcpv6.Message, error) {
	if p.Next == nil || p.Boot == nil {
		return nil, fmt.Errorf("dhcp6: BootPolicy needs Next and Boot: %w", fs.ErrInvalid)
	}
	reply, err := p.Next.ServeDHCP(ctx, r)
	if err != nil || reply == nil {
		return reply, err
	}
	switch r.MessageType {
	case dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind,
		dhcpv6.MessageTypeInformationRequest:
	default:
		return reply, nil
	}
	platform := r.Platform()
	if !platform.WantsFile() {
		return reply, nil
	}
	boot, err := p.Boot(ctx, r)
	if errors.Is(err, fs.ErrNotExist) {
		p.warn(r, "dhcp6: no boot file for this client: add a rule for its architecture or platform, or an empty one to keep it from booting here", "err", err)
		return reply, nil
	}
	if err != nil {
		return nil, err
	}
	if boot.URL == "" {
		return reply, nil
	}
	if err := boot.check(platform); err != nil {
		p.warn(r, "dhcp6: a boot file that this client cannot load: "+err.Error(), "url", boot.URL)
		return reply, nil
	}
	boot.apply(platform, reply)
	return reply, nil
}

func (p *BootPolicy) warn(r *Request, msg string, args ...any) {
	r.Note("%s", msg)
	if r.dry() || !p.warned.First(r.who()) {
		return
	}
	args = append(args, "client", r.who(), "platform", r.Platform())
	if arch, ok := r.Arch(); ok {
		args = append(args, "arch", int(arch), "archname", arch.String())
	}
	orDefault(p.Logger).Warn(msg, args...)
}

// check tells what the platform could not make use of.
func (b *Boot) check(platform dhcp.Platform) error {
	u, err := url.Parse(b.URL)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return fmt.Errorf("give it a URL, such as tftp://[2001:db8::1]/file, DHCPv6 has no next-server")
	}
	takes := map[dhcp.Platform][]string{dhcp.PlatformPXE: {"tftp"}, dhcp.PlatformHTTP: {"http", "https"}}[platform]
	if takes != nil && !slices.Contains(takes, u.Scheme) {
		return fmt.Errorf("give platform %s a URL that begins with %s://", platform, takes[0])
	}
	for _, p := range b.Params {
		if len(p) > 1<<15 {
			return fmt.Errorf("give it parameters of less than 32 KiB")
		}
	}
	return nil
}

// enterpriseIntel is in the vendor class of UEFI HTTP Boot.
const enterpriseIntel = 343

func (b *Boot) apply(platform dhcp.Platform, reply *dhcpv6.Message) {
	reply.UpdateOption(dhcpv6.OptBootFileURL(b.URL))
	if len(b.Params) > 0 {
		reply.UpdateOption(dhcpv6.OptBootFileParam(b.Params...))
	}
	if platform == dhcp.PlatformHTTP {
		reply.UpdateOption(&dhcpv6.OptVendorClass{EnterpriseNumber: enterpriseIntel, Data: [][]byte{[]byte(classHTTP)}})
	}
	for _, o := range b.Options {
		reply.UpdateOption(o)
	}
}
