package main

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-3ec230fa/diskless/internal/app"
	"github.com/seed-3ec230fa/diskless/internal/zstd"
	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/container"
	"github.com/seed-3ec230fa/diskless/squash/netroot"
)

func squashBuildCommand() *cobra.Command {
	var o squash.Options
	var c container.Options
	var compressor, purpose, rulesFile, prepare, base, baseTime string
	var excludeFiles []string
	var excludeDefaults bool
	var level int
	cmd := &cobra.Command{
		Use:   "build SOURCE IMAGE",
		Short: "Build an image from a directory, an archive or a container image",
		Long: `build makes the file IMAGE of SOURCE: a directory, a container image ("docker
save", "podman save", an OCI layout; not compressed), a tar archive ("-": from
stdin), another SquashFS image. Archives need no root, owners and devices come
from what they say. IMAGE appears complete or not at all, and the same source
gives the same bytes. SOURCE_DATE_EPOCH in the environment sets all times.

--rules changes the tree on the way, one rule a line:

  exclude PATTERN             keep PATTERN
  chmod MODE PATTERN          chown UID:GID PATTERN
  xattr NAME VALUE PATTERN    symlink PATH TARGET
  dir PATH MODE UID:GID       fifo PATH MODE UID:GID
  file PATH MODE UID:GID FILE (beside the rules file)
  text PATH MODE UID:GID "content\n"
  char PATH MODE UID:GID MAJOR MINOR (also block)

--base takes over what an image of the same source has already, which must
have been built with the same options; the result is the same without it, and
comes sooner. All files are read and compared, unless --base-time says when the
build of that image began: then those are not read whose size and modification
time it has and which were not changed since (their ctime).

--prepare applies the remedies that "squash check" names, before the rules.
--exclude-from takes the lists of LTSP and of mksquashfs -wildcards -ef.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if fi, err := os.Stat(args[1]); err == nil && fi.IsDir() {
				return fmt.Errorf("%s: %w: this is a directory; name the image's file", args[1], fs.ErrInvalid)
			}
			if err := applyPurpose(cmd, &o, purpose); err != nil {
				return err
			}
			if o.Compressor == nil || cmd.Flags().Changed("compressor") {
				if o.Compressor, err = compressorOf(compressor); err != nil {
					return err
				}
			}
			if cmd.Flags().Changed("level") {
				if o.Compressor, err = withLevel(o.Compressor, level); err != nil {
					return err
				}
			}
			if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
				sec, err := strconv.ParseInt(epoch, 10, 64)
				if err == nil && (sec < 0 || sec > math.MaxUint32) {
					err = fmt.Errorf("%d: %w: the format has times from 1970 to 2106-02-07, in seconds since 1970", sec, fs.ErrInvalid)
				}
				if err != nil {
					return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
				}
				o.ModTime = time.Unix(sec, 0)
			}
			src, closer, err := app.OpenSource(args[0], cmd.InOrStdin(), &c)
			if err != nil {
				return err
			}
			defer closer.Close()
			rules, err := readRules(rulesFile, excludeFiles)
			if err != nil {
				return err
			}
			if excludeDefaults {
				rules.Exclude = append(rules.Exclude, netroot.Excludes()...)
			}
			if prepare != "" {
				root, err := rootOf(prepare)
				if err != nil {
					return err
				}
				if args[0] == "-" {
					return fmt.Errorf("--prepare reads the source twice, stdin can be read once: %w", fs.ErrInvalid)
				}
				findings, err := netroot.Check(cmd.Context(), src, &netroot.Options{Root: root})
				if err != nil {
					return err
				}
				printFindings(cmd, findings, true)
				src = netroot.Remedies(findings).Apply(src)
			}
			src = rules.Apply(src)
			if base != "" {
				image, f, err := app.OpenSquash(base)
				if err != nil {
					return err
				}
				defer f.Close()
				o.Base = image
			}
			if baseTime != "" {
				o.Unchanged = squash.BySizeAndTime
				if o.BaseTime, err = time.Parse(time.RFC3339, baseTime); err != nil {
					return fmt.Errorf("--base-time: %w", err)
				}
			}
			var last squash.Progress
			o.Progress = func(p squash.Progress) { last = p }
			if err := squash.BuildFile(cmd.Context(), args[1], src, &o); err != nil {
				return err
			}
			reused := ""
			if base != "" {
				reused = fmt.Sprintf(", %d bytes taken over", last.Reused)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d names, %d bytes of files, %d bytes of image%s\n", last.Entries, last.Total, last.Written, reused)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&purpose, "for", "network", "network (small reads are cheap), memory (sent whole, small), speed (built often), old-kernels (before 4.14);\n--compressor, --level, --block-size and --fragment-size say otherwise")
	f.StringVar(&compressor, "compressor", "zstd", "zstd, gzip, lz4 or xz")
	f.IntVar(&level, "level", 0, "of the compressor, 1 (fast) to 9 (small); zstd: to "+strconv.Itoa(zstd.MaxLevel)+"; xz has none (default what --for wants)")
	f.IntVar(&o.BlockSize, "block-size", 0, "bytes, a power of two from 4096 to 1048576")
	f.IntVar(&o.FragmentSize, "fragment-size", 0, "bytes of small files that share a block, up to the block size; -1: none do")
	f.StringVar(&rulesFile, "rules", "", "a file of rules that change the tree")
	f.StringArrayVar(&excludeFiles, "exclude-from", nil, "a file of patterns to leave out (repeatable)")
	f.BoolVar(&excludeDefaults, "exclude-defaults", false, "leave out what LTSP does: homes, caches, logs, host keys ...")
	f.StringVar(&base, "base", "", "an image to take unchanged blocks over from")
	f.StringVar(&baseTime, "base-time", "", "when the build of the base began, such as 2026-01-31T12:00:00Z")
	f.StringVar(&prepare, "prepare", "", "make it a root for machines without disks that boot it over nbd or nfs")
	f.BoolVar(&o.OmitSockets, "omit-sockets", false, "leave sockets out")
	f.BoolVar(&o.OmitXattrs, "omit-xattrs", false, "leave extended attributes out")
	f.BoolVar(&o.Strict, "strict", false, "fail when something cannot be kept as it is, such as a POSIX ACL")
	f.IntVar(&o.Workers, "workers", 0, "blocks compressed at once (default one a processor)")
	f.StringVar(&c.Platform, "platform", "", "of a container image, such as linux/amd64")
	f.StringVar(&c.Name, "name", "", "of a container image, if the file holds several")
	return cmd
}

func readRules(rulesFile string, excludeFiles []string) (*squash.Rules, error) {
	rules := &squash.Rules{}
	if rulesFile != "" {
		f, err := os.Open(rulesFile)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if rules, err = squash.ParseRules(rulesFile, f, os.DirFS(filepath.Dir(rulesFile))); err != nil {
			return nil, err
		}
	}
	for _, name := range excludeFiles {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		list, err := squash.ParseExcludes(name, f)
		_ = f.Close()
		if err != nil {
			return nil, err
		}
		rules.Exclude = append(rules.Exclude, list...)
	}
	return rules, nil
}

// applyPurpose takes what a purpose wants and no flag says otherwise.
func applyPurpose(cmd *cobra.Command, o *squash.Options, purpose string) error {
	var p *squash.Options
	switch purpose {
	case "network":
		p = squash.ForNetwork()
	case "memory":
		p = squash.ForMemory()
		p.Compressor = zstd.Small()
	case "speed":
		p = squash.ForSpeed()
	case "old-kernels":
		p = squash.ForOldKernels()
	default:
		return fmt.Errorf("--for %q: %w: choose network, memory, speed or old-kernels", purpose, fs.ErrInvalid)
	}
	o.Compressor = p.Compressor
	if !cmd.Flags().Changed("block-size") {
		o.BlockSize = p.BlockSize
	}
	if !cmd.Flags().Changed("fragment-size") {
		o.FragmentSize = p.FragmentSize
		if o.BlockSize > 0 {
			o.FragmentSize = min(o.FragmentSize, o.BlockSize)
		}
	}
	return nil
}

func compressorOf(name string) (squash.Compressor, error) {
	switch name {
	case "zstd":
		return zstd.Compressor(), nil
	case "gzip":
		return squash.Gzip{}, nil
	case "lz4":
		return squash.LZ4{}, nil
	case "xz":
		return squash.XZ{}, nil
	}
	return nil, fmt.Errorf("the compressor %q: %w: choose zstd, gzip, lz4 or xz", name, fs.ErrInvalid)
}

// withLevel is a compressor at a level, which it must know.
func withLevel(c squash.Compressor, level int) (squash.Compressor, error) {
	most := 9
	switch c.(type) {
	case squash.Gzip:
		c = squash.Gzip{Level: level}
	case squash.LZ4:
		c = squash.LZ4{Level: level}
	case squash.XZ:
		return nil, fmt.Errorf("--level: %w: xz has no levels", fs.ErrInvalid)
	default:
		c, most = zstd.Level(level), zstd.MaxLevel
	}
	if level < 1 || level > most {
		return nil, fmt.Errorf("--level %d: %w: choose 1 to %d", level, fs.ErrInvalid, most)
	}
	return c, nil
}
