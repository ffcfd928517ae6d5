//go:build linux

// Command squash measures this module's SquashFS writer and reader beside
// mksquashfs, gensquashfs, tar2sqfs, unsquashfs, sqfs2tar and squashfuse: the
// same tree in turn, in one run on one machine, and prints tables of medians
// with the goals.
//
//	go run ./bench/squash -dir /dev/shm/bench                # everything
//	go run ./bench/squash -dir /dev/shm/bench -rows "lz4 read"
//	go run ./bench/squash -dir /dev/shm/bench -boot -rounds 1  # a machine boots from two images
//
// See bench/README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed-3ec230fa/diskless/bench/internal/measure"
)

type bench struct {
	ctx     context.Context
	dir     string // of everything that is made, the tree among it
	tree    string
	self    string // this program
	results measure.Results
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "ours" {
		child(os.Args[2:])
		return
	}
	rounds := flag.Int("rounds", 3, "how often each row is measured")
	only := flag.String("rows", "", "the `rows` to measure, by the beginnings of their names; none is all")
	limit := flag.Duration("limit", 30*time.Minute, "begin no further sample after this time")
	dir := flag.String("dir", "", "`directory` with 4 GiB of room, best in memory; the tree that is made there stays for the next run")
	tree := flag.String("tree", "", "`directory` to pack instead of a Debian root made in -dir")
	machine := flag.Bool("boot", false, "boot a machine from two images instead, over NBD (as much as -rounds says)")
	flag.Parse()
	if *dir == "" {
		fmt.Fprintln(os.Stderr, "which -dir may be used?")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	b := &bench{ctx: ctx, dir: *dir, tree: *tree}
	if *machine {
		if err := b.boots(*rounds); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if err := b.prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	wanted := strings.Fields(*only)
	start := time.Now()
	for range *rounds {
		for _, r := range rows {
			if len(wanted) > 0 && !slices.ContainsFunc(wanted, func(w string) bool { return strings.HasPrefix(r.id, w) }) {
				continue
			}
			for _, kind := range kinds {
				if r.run[kind] == nil || time.Since(start) > *limit || ctx.Err() != nil {
					continue
				}
				b.results.Sample(r.id, kind, 3, func(v []float64) string { return tableOf(r.reads).Show(r.lines, v) },
					func() ([]float64, float64, error) {
						others := measure.Others(func() time.Duration { return 0 })
						values, err := r.run[kind](b)
						return values, others(), err
					})
			}
		}
	}
	fmt.Printf("%s, %s; %s, medians of %d rounds.\n", time.Now().UTC().Format("2006-01-02"), measure.Machine(), b.describe(), *rounds)
	for _, reads := range []bool{false, true} {
		tableOf(reads).Print(os.Stdout, &b.results)
		fmt.Println()
	}
}

// tableOf shows the rows that write, or those that read.
func tableOf(reads bool) *measure.Table {
	t := &measure.Table{Kinds: []string{ours, libzstd, mksquashfs, gensquashfs, tar2sqfs}, Ours: 2}
	if reads {
		t = &measure.Table{Kinds: []string{ours, unsquashfs, sqfs2tar, squashfuse}, Ours: 1}
	}
	for _, r := range rows {
		if r.reads == reads {
			t.Rows = append(t.Rows, measure.Row{ID: r.id, Lines: r.lines})
		}
	}
	return t
}

// prepare makes the tree, once, and what the rows read.
func (b *bench) prepare() error {
	tools := map[string]string{"mksquashfs": "squashfs-tools", "gensquashfs": "squashfs-tools-ng", "squashfuse": "squashfuse", "mmdebstrap": "mmdebstrap", "fusermount": "fuse3"}
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err != nil && !(tool == "mmdebstrap" && b.tree != "") {
			return fmt.Errorf("%s is missing: apt-get install %s", tool, pkg)
		}
	}
	var err error
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	for _, f := range []struct {
		name, how string
	}{
		{"tree.tar", `mmdebstrap --quiet --variant=important --include=linux-image-cloud-amd64,openssh-server,nbd-client,python3 bookworm "$1"`},
		{"tree", `mkdir "$1" && tar -C "$1" --numeric-owner --xattrs --xattrs-include='security.*' -xpf "$2/tree.tar"`},
		{"archive.tar", `"$0" ours archive "$2/tree.tar" "$1"`},
		{"gzip.image", `mksquashfs "$3" "$1" -noappend -quiet -no-progress`},
		{"zstd.image", `mksquashfs "$3" "$1" -noappend -quiet -no-progress -comp zstd -Xcompression-level 3`},
		{"lz4.image", `mksquashfs "$3" "$1" -noappend -quiet -no-progress -comp lz4`},
		{"zstd1M.image", `mksquashfs "$3" "$1" -noappend -quiet -no-progress -comp zstd -Xcompression-level 9 -b 1M`},
		{"names.image", `"$0" ours names "$1"`},
		{"changed", `cp -a "$3" "$1"; "$0" ours change "$1"`},
		{"updated", `cp -a "$3" "$1"; "$0" ours update "$1"`},
		{"base.image", `"$0" ours build zstd 0 128K 0 "$3" "$1"`},
		{"base3.image", `"$0" ours build libzstd 3 128K 0 "$3" "$1"`},
		{"base15.image", `"$0" ours build libzstd 15 128K 0 "$3" "$1"`},
		{"net15.image", `"$0" ours build libzstd 15 128K 32K "$3" "$1"`},
		{"net.image", `"$0" ours build libzstd 3 128K 32K "$3" "$1"`},
	} {
		if b.tree != "" && (f.name == "tree" || strings.HasSuffix(f.name, ".tar")) {
			continue // the container row then fails
		}
		if strings.Contains(f.how, "libzstd") && libzstdLevel(1) == nil {
			continue // as their rows do
		}
		path := filepath.Join(b.dir, f.name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		fmt.Fprintln(os.Stderr, "making", path)
		tree := b.tree
		if tree == "" {
			tree = filepath.Join(b.dir, "tree")
		}
		// Under another name first: what is there is complete.
		cmd := exec.CommandContext(b.ctx, "sh", "-ec", f.how, b.self, path+".part.tar", b.dir, tree)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if err := os.Rename(path+".part.tar", path); err != nil {
			return err
		}
	}
	if b.tree == "" {
		b.tree = filepath.Join(b.dir, "tree")
	}
	return nil
}

// describe says what the tree is.
func (b *bench) describe() string {
	var files, entries, bytes int64
	_ = filepath.WalkDir(b.tree, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		entries++
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			files++
			bytes += fi.Size()
		}
		return nil
	})
	return fmt.Sprintf("a tree of %d entries, %d files with %d MB", entries, files, bytes/1e6)
}
