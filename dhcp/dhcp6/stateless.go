package dhcp6

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"sync"

	"github.com/insomniacslk/dhcp/dhcpv6"
)

// Stateless is a [Handler] that answers INFORMATION-REQUEST with options, on
// every link, and nothing else (RFC 8415 section 18.3.6). Machines ask so when
// router advertisements have the flag O and not M:
// systems and iPXE do, the clients of EDK2 ask for addresses whatever they say.
type Stateless struct {
	// ServerID is as in [Pool.ServerID]; required.
	ServerID dhcpv6.DUID

	// DNS, Domains and Options are as in [Pool].
	DNS     []netip.Addr
	Domains []string
	Options dhcpv6.Options

	setup   sync.Once
	err     error
	options dhcpv6.Options
}

var _ Handler = (*Stateless)(nil)

// Validate reports, as an error that is [fs.ErrInvalid], what in the fields
// does not make sense. It looks at them once.
func (s *Stateless) Validate() error {
	s.setup.Do(func() {
		err := checkServerID(s.ServerID)
		if err == nil {
			s.options, err = commonOptions(s.DNS, s.Domains, s.Options)
		}
		if err != nil {
			s.err = fmt.Errorf("dhcp6: stateless: %w: %w", err, fs.ErrInvalid)
		}
	})
	return s.err
}

// ServeDHCP implements [Handler].
func (s *Stateless) ServeDHCP(_ context.Context, r *Request) (*dhcpv6.Message, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if r.MessageType != dhcpv6.MessageTypeInformationRequest || r.unicast() || valid(r, s.ServerID) != nil {
		r.Note("not a request for options that is for this server")
		return nil, nil
	}
	reply := NewReply(r, dhcpv6.MessageTypeReply, s.ServerID)
	addOptions(reply, s.options)
	return reply, nil
}
