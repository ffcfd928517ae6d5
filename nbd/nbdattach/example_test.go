package nbdattach_test

import (
	"context"
	"log"

	"github.com/seed-3ec230fa/diskless/nbd/nbdattach"
)

// Four connections to one device, which outlive restarts of the server. It
// needs Linux, its module nbd, and root.
func ExampleAttach() {
	d, err := nbdattach.Attach(context.Background(), &nbdattach.Config{
		Addr: "192.0.2.1:10809", Export: "debian12", Connections: 4,
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Println(d.Path(), "has", d.Size(), "bytes")

	// ... mount d.Path(), use it, unmount it ...
	select {
	case <-d.Done():
		log.Fatal(d.Err()) // somebody else has detached it, or the export changed
	default:
	}
	if err := d.Detach(); err != nil {
		log.Fatal(err)
	}
}

// A device that nbd-client has attached, and left to the kernel, is kept from
// now on.
func ExampleAdopt() {
	d, err := nbdattach.Adopt(context.Background(), &nbdattach.Config{
		Addr: "192.0.2.1:10809", Export: "debian12", Device: "/dev/nbd0",
	}, 0)
	if err != nil {
		log.Fatal(err)
	}
	<-d.Done()
	log.Fatal(d.Err())
}
