package dhcp

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp/internal/inorder"
)

// nobodyWaits reports whether a next request of macA would have its turn.
func nobodyWaits(w *workers) bool {
	d := new(datagram)
	copy(d.machine[:], macA)
	now, _ := w.lines.Enter(d.machine, d)
	return now
}

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
	require.True(t, nobodyWaits(w))
}

// A machine that floods the server while a handler takes its time for it keeps
// nobody else waiting.
func TestFloodOfOneMachine(t *testing.T) {
	goOn, other := make(chan struct{}), make(chan struct{})
	asked := 0
	s := &Server{Logger: slog.New(slog.DiscardHandler), Handler: HandlerFunc(func(_ context.Context, r *Request) (*dhcpv4.DHCPv4, error) {
		if r.ClientHWAddr.String() == macB.String() {
			close(other)
			return nil, nil
		}
		<-goOn
		asked++
		return nil, nil
	})}
	w := newWorkers(t.Context(), s, nil)
	give := func(m *dhcpv4.DHCPv4) {
		d := w.free.Get().(*datagram)
		d.n = copy(d.buf[:], m.ToBytes())
		w.give(d)
	}
	for range 2 * defaultInFlight {
		give(message(discover, macA, bareSystem))
	}
	give(message(discover, macB, bareSystem))
	<-other
	close(goOn)
	w.close()
	require.Equal(t, 1+inorder.MaxWaiting, asked)
	require.True(t, nobodyWaits(w))
}
