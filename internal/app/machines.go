package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// machineSource is what a configured machine boots.
type machineSource struct {
	app *App
	*config.Machine
}

// Config implements pxecfg.Source. The machine is the same one however it was
// recognized this time.
func (s machineSource) Config(ctx context.Context, asks pxecfg.Client) (*pxecfg.Config, error) {
	c := pxecfg.Client{MAC: s.MAC.HardwareAddr, UUID: s.UUID, IP: s.Address.Addr, Loader: asks.Loader}
	return s.app.choice(s.Entry, s.Once, s.Machine).Config(ctx, c)
}

// openMachines makes the source of all boot configurations.
func (a *App) openMachines() error {
	if state := a.cfg.Server.State; state != "" {
		a.booted = &pxecfg.BootDir{Dir: filepath.Join(state, "once")}
	} else {
		a.booted = &pxecfg.BootMemory{}
	}
	a.machines = &pxecfg.Machines{Logger: a.log}
	for i := range a.cfg.Machines {
		m := &a.cfg.Machines[i]
		a.machines.List = append(a.machines.List, pxecfg.Machine{
			MAC: m.MAC.HardwareAddr, UUID: m.UUID, IP: m.Address.Addr, Source: machineSource{a, m},
		})
	}
	var unknown pxecfg.Source
	if a.cfg.Unknown != config.UnknownDeny {
		unknown = a.choice(a.cfg.Unknown, "", nil)
	}
	if len(a.cfg.Rules) == 0 {
		a.machines.Unknown = unknown
		return a.machines.Validate()
	}
	a.rules = &pxecfg.Rules{Profiles: a.cfg.BootProfiles(), Unknown: unknown, Logger: a.log}
	for i := range a.cfg.Rules {
		r := &a.cfg.Rules[i]
		a.rules.List = append(a.rules.List, r.Boot(a.choice(r.Entry, r.Once, nil)))
	}
	return errors.Join(a.machines.Validate(), a.rules.Validate())
}

// bootConfig is what a machine boots: its own, what a rule says, or what unknown
// machines do.
func (a *App) bootConfig(ctx context.Context, c pxecfg.Client) (*pxecfg.Config, error) {
	if a.rules != nil && a.machines.Find(c) == nil {
		return a.rules.Config(ctx, c)
	}
	return a.machines.Config(ctx, c)
}

// choice is the source of what the configuration names: an entry, a menu or
// the local disk, and before it something that boots one time. m is nil for
// machines that are not listed.
func (a *App) choice(name, once string, m *config.Machine) pxecfg.Source {
	source := func(name string) pxecfg.Source {
		return pxecfg.SourceFunc(func(ctx context.Context, c pxecfg.Client) (*pxecfg.Config, error) {
			return a.offer(ctx, name, m, c.Loader)
		})
	}
	if once == "" {
		return source(name)
	}
	return &pxecfg.Once{Source: source(once), Then: source(name), State: a.booted}
}

// offer makes the entries of what is named.
func (a *App) offer(ctx context.Context, name string, m *config.Machine, asks pxecfg.Loader) (*pxecfg.Config, error) {
	cfg, names := &pxecfg.Config{}, []string{name}
	if menu, ok := a.cfg.MenuByName(name); ok {
		cfg.Title, cfg.Default, cfg.Timeout, names = menu.Title, menu.Default, menu.Timeout.Duration, menu.Entries
	}
	for _, name := range names {
		if name == config.UnknownLocal {
			cfg.Entries = append(cfg.Entries, pxecfg.LocalDisk().Entries...)
			continue
		}
		e, err := a.entry(ctx, name, m, asks)
		if err != nil {
			return nil, err
		}
		cfg.Entries = append(cfg.Entries, e)
	}
	return cfg, nil
}

// machine returns the configured machine that c is, or nil.
func (a *App) machine(c pxecfg.Client) *config.Machine {
	if m := a.machines.Find(c); m != nil {
		return m.Source.(machineSource).Machine
	}
	return nil
}

// entry is what an entry of the configuration offers a machine; m is nil for a
// machine that nobody configured.
func (a *App) entry(ctx context.Context, name string, m *config.Machine, asks pxecfg.Loader) (pxecfg.Entry, error) {
	e, ok := a.cfg.EntryByName(name)
	if !ok {
		return pxecfg.Entry{}, fmt.Errorf("there is no entry %q", name) // checked when it was loaded
	}
	out := pxecfg.Entry{Label: e.Name, Title: e.Title, Kernel: e.Kernel, Args: e.Args}
	out.Initrd = a.addons.initrds(e, m, asks)
	if m != nil && m.MAC.HardwareAddr != nil {
		out.SysAppend = 2 // BOOTIF=: the initramfs uses the card that booted
	}
	if e.Image != "" {
		export, err := a.export(ctx, e, m)
		if err != nil {
			return pxecfg.Entry{}, fmt.Errorf("entry %s: %w", e.Name, err)
		}
		out.Root = a.root(e, export)
	}
	return out, nil
}

// export is the name under which a machine finds its root. Where the roots
// are ours it names the exact generation, and for a writable one the boot.
func (a *App) export(ctx context.Context, e config.Entry, m *config.Machine) (string, error) {
	if a.images == nil {
		return e.Image, nil
	}
	if e.Root == config.RootImage {
		g, err := a.images.Current(ctx, e.Image)
		return g.Name().String(), err
	}
	kind := nbd.Ephemeral
	if e.Root == config.RootKept {
		kind = nbd.Kept
	}
	name, err := a.Roots.Boot(ctx, e.Image, m.Root, kind)
	return name.String(), err
}

func (a *App) root(e config.Entry, export string) pxecfg.Root {
	server, port := a.cfg.NBD.Address.Addr, uint16(a.cfg.NBD.Port)
	readOnly := e.Root == config.RootImage
	if e.Initramfs == config.Dracut {
		return pxecfg.NBDDracut{Server: server, Port: port, Export: export, ReadOnly: readOnly}
	}
	return pxecfg.NBDInitramfsTools{Server: server, Port: port, Export: export, ReadOnly: readOnly}
}

// mayOpen says whether a client may open an export. Images are for everybody.
// Where leases are known a peer opens only its own root; elsewhere the token in
// the name is what protects, and without one nothing does. So roots are not
// listed either.
func (a *App) mayOpen(ctx context.Context, r *nbd.Request) error {
	name, err := nbd.ParseName(r.Export)
	if err != nil || name.Root == "" {
		return nil // what is no name is no export either
	}
	if name.Boot == "" {
		return fmt.Errorf("root %s asked for without a boot token; boot the machine through its boot configuration: %w", name.Root, fs.ErrPermission)
	}
	peer := r.Client.Addr()
	c, err := a.client(ctx, peer)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("whose address %s is: %w", peer, err)
	}
	m := a.machine(c)
	if m != nil && name.Image == config.SwapImage && name.Root == config.SwapRoot(m.Name) {
		return nil
	}
	if m == nil || m.Root != name.Root {
		return fmt.Errorf("%s has the lease of %s, whose root is not %s: %w", peer, c, name.Root, fs.ErrPermission)
	}
	return nil
}
