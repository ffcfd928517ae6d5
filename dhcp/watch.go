package dhcp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"time"
)

const defaultWatch = 10 * time.Minute

// Watch asks again and again whether a foreign DHCP server has appeared on a
// network where this program gives addresses: a router that somebody plugged
// in, a virtual machine with a server of its own. It complements [Probe], which
// is for before the start. Its fields are set before Run and not changed
// afterwards.
type Watch struct {
	// Interface is the network's; required, as for Probe.
	Interface string

	// Every is the time between two rounds; 0 is 10 minutes. A round takes up
	// to five seconds; the first is after this time.
	Every time.Duration

	// Known are servers (option 54) that may answer, such as [Pool.Peers].
	Known []netip.Addr

	// Found, when it is set, is called for each foreign server that has
	// appeared, and once more for one that went away and came back.
	Found func(Offer)

	// Logger gets, at Warn, each server that has appeared, and what to do, and
	// at Info each that is gone; nil is [slog.Default].
	Logger *slog.Logger

	probe func(ctx context.Context, iface string) ([]Offer, error) // of tests
}

// Run watches until ctx ends, and returns nil then. A round that fails is
// logged once, and the next may succeed: an interface can be down. It returns
// at once, with an error, where there can be no probe: without the capability
// CAP_NET_RAW ([fs.ErrPermission]), or on another system than Linux or another
// network than Ethernet ([errors.ErrUnsupported]).
func (w *Watch) Run(ctx context.Context) error {
	if w.Interface == "" {
		return fmt.Errorf("dhcp: Watch needs Interface: %w", fs.ErrInvalid)
	}
	probe := w.probe
	if probe == nil {
		probe = Probe
	}
	log := orDefault(w.Logger)
	tick := time.NewTicker(cmp.Or(w.Every, defaultWatch))
	defer tick.Stop()
	var present []Offer
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		offers, err := probe(ctx, w.Interface)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, fs.ErrPermission), errors.Is(err, errors.ErrUnsupported):
			return err
		case err != nil:
			if !failing {
				log.Warn("dhcp: cannot look for foreign servers, trying again", "interface", w.Interface, "err", err)
			}
			failing = true
			continue
		}
		failing = false
		offers = slices.DeleteFunc(offers, func(o Offer) bool { return slices.Contains(w.Known, o.ServerID) })
		for _, o := range offers {
			if !slices.ContainsFunc(present, o.same) {
				w.appeared(log, o)
			}
		}
		for _, o := range present {
			if !slices.ContainsFunc(offers, o.same) {
				log.Info("dhcp: the foreign server does not answer any more", "interface", w.Interface, "server", o.ServerID)
			}
		}
		present = offers
	}
}

func (w *Watch) appeared(log *slog.Logger, o Offer) {
	what := "dhcp: a foreign server gives addresses on this network, machines may get theirs from it: " +
		"find its hardware address in the switches' tables and unplug it; or say that it belongs here (Watch.Known, dhcp.other-server: ignore)"
	if !o.Addr.IsValid() {
		what = "dhcp: a foreign ProxyDHCP server tells machines of this network what to boot: " +
			"find its hardware address in the switches' tables and unplug it; or say that it belongs here (Watch.Known, dhcp.other-server: ignore)"
	}
	log.Warn(what, "interface", w.Interface, "server", o.ServerID, "source", o.Source, "mac", o.HardwareAddr.String(), "offers", o.Addr)
	if w.Found != nil {
		w.Found(o)
	}
}
