package dhcp

import (
	"cmp"
	"encoding/binary"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// reply starts an answer with the parameters of the subnet, the client's
// classes and its reservation.
func (p *Pool) reply(c client, t dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	reply := NewReply(c.Request, t)
	// From the weakest to the strongest: what comes later replaces.
	for _, o := range p.optionList {
		reply.Options[o.code] = o.value
	}
	var classes []dhcpv4.Options
	for i := range p.Classes {
		if class := &p.Classes[i]; class.Matches(c.Request) {
			c.notef("class %q (%v)", class.Name, &class.Match)
			classes = append(classes, class.Options)
		}
	}
	for _, o := range slices.Backward(classes) {
		maps.Copy(reply.Options, o)
	}
	maps.Copy(reply.Options, c.res.Options)
	setOption(reply, dhcpv4.OptionServerIdentifier, c.self.AsSlice())
	if c.res.Hostname != "" {
		setDefault(reply, dhcpv4.OptionHostName.Code(), []byte(c.res.Hostname))
	}
	return reply
}

type optionValue struct {
	code  uint8
	value []byte
}

func (p *Pool) setLease(reply *dhcpv4.DHCPv4, c client, addr netip.Addr) {
	reply.YourIPAddr = toIP(addr)
	seconds := uint32(math.MaxUint32) // RFC 2131 section 3.3: infinity
	if t := p.leaseTime(c); t > 0 {
		seconds = uint32(t / time.Second)
	}
	setOption(reply, dhcpv4.OptionIPAddressLeaseTime, binary.BigEndian.AppendUint32(nil, seconds))
	// T1 and T2 that are of no use to a lease that is shorter, as clients may
	// choose (RFC 2131 section 4.4.5).
	for _, code := range [...]dhcpv4.OptionCode{dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue} {
		if v, ok := reply.Options[code.Code()]; ok && len(v) == 4 && binary.BigEndian.Uint32(v) >= seconds {
			delete(reply.Options, code.Code())
		}
	}
}

func setOption(m *dhcpv4.DHCPv4, code dhcpv4.OptionCode, value []byte) {
	m.Options[code.Code()] = value
}

func setDefault(m *dhcpv4.DHCPv4, code uint8, value []byte) {
	if _, ok := m.Options[code]; !ok {
		m.Options[code] = value
	}
}

// leaseTime is negative for a lease that does not end.
func (p *Pool) leaseTime(c client) time.Duration {
	if p.MaxLeaseTime != 0 {
		if v := c.Options.Get(dhcpv4.OptionIPAddressLeaseTime); len(v) == 4 {
			wish := time.Duration(binary.BigEndian.Uint32(v)) * time.Second
			if p.MaxLeaseTime < 0 {
				if wish == math.MaxUint32*time.Second {
					return -1
				}
				return max(wish, time.Minute)
			}
			return min(max(wish, time.Minute), p.MaxLeaseTime)
		}
	}
	return cmp.Or(p.LeaseTime, defaultLeaseTime)
}

func (p *Pool) expires(c client) time.Time {
	if t := p.leaseTime(c); t > 0 {
		return time.Now().Add(t)
	}
	return time.Time{}
}

func (p *Pool) offerTime() time.Duration { return cmp.Or(p.OfferTime, defaultOfferTime) }

func (p *Pool) declineTime() time.Duration { return cmp.Or(p.DeclineTime, defaultDeclineTime) }
