package dhcp6

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp/internal/inorder"
)

// What a client sends is handled in its order, also when a handler takes its
// time; other clients do not wait for that.
func TestOrderOfOneClient(t *testing.T) {
	type seen struct {
		client string
		t      dhcpv6.MessageType
	}
	began := make(chan seen, 8)
	goOn := make(chan struct{})
	s := &Server{Handler: HandlerFunc(func(ctx context.Context, r *Request) (*dhcpv6.Message, error) {
		began <- seen{r.line(), r.MessageType}
		if r.MessageType == release {
			<-goOn
		}
		return nil, nil
	})}
	w := newWorkers(s, nil)
	a := message(release, macA, system)
	b := message(request, macB, system)
	// With an address that tells nothing it is its DUID, and without one where
	// it is, behind its relay or none.
	private := func(r *Request) *Request {
		r.Peer = netip.MustParseAddrPort("[fe80::1234:5678:9abc:def0]:546")
		return r
	}
	uuid := private(message(information, macA, uefi))
	bare := private(message(information, macA, system))
	bare.Options.Del(dhcpv6.OptionClientID)
	far := relayed(bare, "fd00:1::1")

	require.NotEqual(t, bare.line(), far.line())
	require.NotEqual(t, bare.line(), uuid.line())
	w.give(received{Request: a})
	require.Equal(t, seen{a.line(), release}, <-began)
	w.give(received{Request: message(solicit, macA, uefi)}) // by another DUID
	w.give(received{Request: message(request, macA, system)})
	for _, r := range []*Request{b, uuid, bare, far} {
		w.give(received{Request: r})
		require.Equal(t, seen{r.line(), r.MessageType}, <-began)
	}
	close(goOn)
	require.Equal(t, seen{a.line(), solicit}, <-began)
	require.Equal(t, seen{a.line(), request}, <-began)
	w.wg.Wait()
	now, _ := w.lines.Enter(a.line(), received{})
	require.True(t, now)
}

// A client that floods the server while a handler takes its time for it keeps
// nobody else waiting.
func TestFloodOfOneClient(t *testing.T) {
	goOn, other := make(chan struct{}), make(chan struct{})
	asked := 0
	s := &Server{Logger: slog.New(slog.DiscardHandler), Handler: HandlerFunc(func(_ context.Context, r *Request) (*dhcpv6.Message, error) {
		if r.line() == message(solicit, macB, system).line() {
			close(other)
			return nil, nil
		}
		<-goOn
		asked++
		panic("which ends no line")
	})}
	w := newWorkers(s, nil)
	for range 2 * defaultInFlight {
		w.give(received{Request: message(solicit, macA, system)})
	}
	w.give(received{Request: message(solicit, macB, system)})
	<-other
	close(goOn)
	w.wg.Wait()
	require.Equal(t, 1+inorder.MaxWaiting, asked)
	require.Empty(t, w.slots)
}
