//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/nbd"
)

// boots builds two images of a small Debian with systemd, mksquashfs's (zstd 3,
// 128 KiB) and ours for a network root at the same level, and has a machine boot
// each over NBD, in turn: what it is sent until there is a login prompt,
// and when that is.
func (b *bench) boots(rounds int) error {
	var err error
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	cache := guest.CacheDir()
	kernel, err := guest.FetchKernel(b.ctx, cache)
	if err != nil {
		return err
	}
	initrd, err := guest.Initrd(b.ctx, cache, kernel)
	if err != nil {
		return err
	}
	debian, err := guest.MinimalDebian(b.ctx, cache)
	if err != nil {
		return err
	}
	b.tree = filepath.Join(b.dir, "debian")
	if err := os.MkdirAll(b.tree, 0o755); err != nil {
		return err
	}
	if err := debian.Unpack(b.ctx, b.tree); err != nil {
		return err
	}
	images := []struct{ kind, line string }{
		{mksquashfs, "mksquashfs $TREE $OUT.mk -noappend -no-progress -quiet -comp zstd -Xcompression-level 3; mv $OUT.mk $OUT"},
		{libzstd, "$SELF ours build libzstd 3 128K 32K $TREE $OUT"},
	}
	samples := map[string][][]float64{}
	for range rounds {
		for _, i := range images {
			out := filepath.Join(b.dir, "out")
			if err := b.shell(i.line).Run(); err != nil {
				return fmt.Errorf("%s: %w", i.kind, err)
			}
			v, err := boot(b.ctx, out, kernel, initrd)
			if err != nil {
				return fmt.Errorf("%s: %w", i.kind, err)
			}
			fmt.Fprintf(os.Stderr, "%s: %.1f MiB in %.0f requests, %.1f s after the root was opened, image of %.1f MB\n", i.kind, v[0], v[1], v[2], v[3])
			samples[i.kind] = append(samples[i.kind], v)
			if err := os.Remove(out); err != nil {
				return err
			}
		}
	}
	fmt.Printf("%s: a Debian over NBD to its login prompt, emulated CPU, medians of %d boots each\n\n", time.Now().UTC().Format("2006-01-02"), rounds)
	fmt.Printf("| | %s | %s | ratio | goal |\n|---|---|---|---|---|\n", libzstd, mksquashfs)
	for k, what := range []string{"MiB over NBD", "requests", "s", "MB image"} {
		of := func(kind string) float64 {
			var all []float64
			for _, v := range samples[kind] {
				all = append(all, v[k])
			}
			slices.Sort(all)
			return all[len(all)/2]
		}
		ours, theirs := of(libzstd), of(mksquashfs)
		fmt.Printf("| %s | %.1f | %.1f | %.2f | %s |\n", what, ours, theirs, ours/theirs, []string{"≤ 1.0", "", "≤ 1.0", "≤ 1.03"}[k])
	}
	return nil
}

// boot returns MiB, requests, seconds and the image's MB.
func boot(ctx context.Context, image string, kernel *guest.Kernel, initrd string) ([]float64, error) {
	c := &counter{}
	server := &nbd.Server{Handler: nbd.Filtered(nbd.Exports{"root": nbd.FileServer(image)}, c.count)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	defer func() {
		_ = server.Close()
		<-done
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	m, err := vm.Start(ctx, vm.Machine{Name: "bench", User: &vm.User{Hostname: "bench"}, Memory: 1024, Kernel: kernel.Image, Initrd: initrd,
		Cmdline: vm.KernelArgs + " root=/dev/nbd0 nbdroot=10.0.2.2:" + port + "/root ip=dhcp ro overlayroot=tmpfs systemd.show_status=yes"})
	if err != nil {
		return nil, err
	}
	defer m.Kill()
	if _, err := m.Expect(ctx, `Reached target .*(getty.target|Login Prompts)`); err != nil {
		return nil, err
	}
	took := time.Since(time.Unix(0, c.first.Load()))
	fi, err := os.Stat(image)
	if err != nil {
		return nil, err
	}
	return []float64{float64(c.bytes.Load()) / (1 << 20), float64(c.requests.Load()), took.Seconds(), float64(fi.Size()) / 1e6}, nil
}

// counter counts what devices are asked for.
type counter struct{ bytes, requests, first atomic.Int64 }

func (c *counter) count(d nbd.Device) nbd.Device { return &counted{nbd.Pass{Device: d}, c} }

type counted struct {
	nbd.Pass
	c *counter
}

// Features is without Map, so that every read comes by here.
func (d *counted) Features() nbd.Features {
	f := d.Pass.Features()
	f.Map = false
	return f
}

func (d *counted) ReadAt(p []byte, off int64) (int, error) {
	d.c.first.CompareAndSwap(0, time.Now().UnixNano())
	d.c.requests.Add(1)
	d.c.bytes.Add(int64(len(p)))
	return d.Pass.ReadAt(p, off)
}
