package dhcp_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// Somebody is told when a foreign server appears. This one is stopped before
// its first round.
func ExampleWatch() {
	watch := &dhcp.Watch{
		Interface: "eth1",
		Known:     []netip.Addr{netip.MustParseAddr("10.0.0.2")}, // our other server
		Found:     func(o dhcp.Offer) { fmt.Println("page somebody:", o.ServerID, o.HardwareAddr) },
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- watch.Run(ctx) }()
	stop()
	fmt.Println(<-done)
	// Output: <nil>
}
