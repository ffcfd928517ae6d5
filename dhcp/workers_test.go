package dhcp

import (
	"context"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"
)

// What a machine sends is handled in its order, also when a handler takes its
// time; other machines do not wait for that.
func TestOrderOfOneMachine(t *testing.T) {
	type seen struct {
		mac string
		t   dhcpv4.MessageType
	}
	began := make(chan seen, 8)
	goOn := make(chan struct{})
	s := &Server{Handler: HandlerFunc(func(ctx context.Context, r *Request) (*dhcpv4.DHCPv4, error) {
		began <- seen{r.ClientHWAddr.String(), r.MessageType()}
		if r.MessageType() == dhcpv4.MessageTypeRelease {
			<-goOn
		}
		return nil, nil
	})}
	w := newWorkers(t.Context(), s, nil)
	give := func(m *dhcpv4.DHCPv4) {
		d := w.free.Get().(*datagram)
		d.n = copy(d.buf[:], m.ToBytes())
		d.from.peer = netip.MustParseAddrPort("0.0.0.0:68")
		w.give(d)
	}
	a, b := macA.String(), macB.String()
	give(message(dhcpv4.MessageTypeRelease, macA, Firmware{}))
	require.Equal(t, seen{a, dhcpv4.MessageTypeRelease}, <-began)
	give(message(dhcpv4.MessageTypeDiscover, macA, Firmware{}))
	give(message(dhcpv4.MessageTypeRequest, macA, Firmware{}))
	give(message(dhcpv4.MessageTypeRequest, macB, Firmware{}))
	require.Equal(t, seen{b, dhcpv4.MessageTypeRequest}, <-began)
	close(goOn)
	require.Equal(t, seen{a, dhcpv4.MessageTypeDiscover}, <-began)
	require.Equal(t, seen{a, dhcpv4.MessageTypeRequest}, <-began)
	give(message(dhcpv4.MessageTypeInform, macA, Firmware{}))
	w.close()
	require.Equal(t, seen{a, dhcpv4.MessageTypeInform}, <-began)
	require.Empty(t, w.last)
}
