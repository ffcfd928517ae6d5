package app

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/ltsconf/initrd"
	"github.com/seed-3ec230fa/diskless/nbd"
)

// openSwap registers an image with nothing in it, over which each machine's
// swap area is an ephemeral root. So an area begins empty at each boot, and a
// machine whose area was lost is refused: an empty one in its place would be
// taken for the machine's memory.
func (a *App) openSwap(ctx context.Context) error {
	size := a.cfg.NBD.Swap.Bytes
	if size == 0 {
		return nil
	}
	file := filepath.Join(a.cfg.Server.State, "swap.img")
	if info, err := os.Stat(file); err != nil || info.Size() != size {
		if err := makeSparse(file, size); err != nil {
			return fmt.Errorf("nbd.swap: %w", err)
		}
	}
	if err := a.images.Add(ctx, config.SwapImage, file); err != nil {
		return fmt.Errorf("nbd.swap: %w", err)
	}
	return nil
}

// makeSparse puts a file of zeroes in the place of file.
func makeSparse(file string, size int64) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = f.Truncate(size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	return err
}

// swap is the swap area for a machine's next boot.
func (a *App) swap(ctx context.Context, m *config.Machine) (initrd.Swap, error) {
	if a.Roots == nil || a.cfg.NBD.Swap.Bytes == 0 {
		return initrd.Swap{}, nil
	}
	name, err := a.Roots.Boot(ctx, config.SwapImage, config.SwapRoot(m.Name), nbd.Ephemeral)
	return initrd.Swap{Server: a.cfg.NBD.Address.Addr, Port: uint16(a.cfg.NBD.Port), Export: name.String()}, err
}
