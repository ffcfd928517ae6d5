package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/seed-3ec230fa/diskless/internal/app"
	"github.com/seed-3ec230fa/diskless/squash"
)

func squashCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "squash",
		Short: "Build SquashFS images, and look into them",
		Long: `squash works on image files, without a server: it builds root images from
directories, archives and container images, reads, checks and compares them,
and takes kernels out of them.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(squashBuildCommand(), squashCheckCommand(), squashKernelsCommand(), squashExtractCommand(), squashVerifyCommand(), squashDiffCommand(), squashListCommand(), squashCatCommand(), squashTarCommand())
	return cmd
}

func squashExtractCommand() *cobra.Command {
	var o squash.ExtractOptions
	cmd := &cobra.Command{
		Use:   "extract IMAGE DIR",
		Short: "Write the files of an image into a new directory",
		Long: `extract makes the directory DIR, or fills it when it is empty: with owners,
device nodes, hard links, extended attributes and times, which takes root. As
a user, --partial makes what a user may make and says what is missing. IMAGE
may also be a tar archive or a container image.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, c, err := app.OpenSource(args[0], cmd.InOrStdin(), nil)
			if err != nil {
				return err
			}
			defer c.Close()
			done, err := squash.Extract(cmd.Context(), args[1], src, &o)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d files, %d bytes\n", done.Entries, done.Bytes)
			return err
		},
	}
	cmd.Flags().BoolVar(&o.Partial, "partial", false, "leave out what only root may make")
	return cmd
}

func squashVerifyCommand() *cobra.Command {
	var most int
	cmd := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Look for everything that is wrong with an image",
		Long: `verify reads and decodes the whole of an image and prints a line for each
defect: what Linux or another reader would refuse or read wrongly, and what
none of them notices. The exit status is 1 when there are any. SquashFS has no
checksums, so content that was changed but still decodes is not found.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			n := 0
			for d, err := range squash.Verify(cmd.Context(), f, nil) {
				if err != nil {
					return err
				}
				if n++; most > 0 && n > most {
					fmt.Fprintln(cmd.OutOrStdout(), "and more; see --most")
					break
				}
				fmt.Fprintln(cmd.OutOrStdout(), d)
			}
			if n > 0 {
				return errSilent
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "no defects")
			return err
		},
	}
	cmd.Flags().IntVar(&most, "most", 100, "stop after so many defects; 0: never")
	return cmd
}

func squashDiffCommand() *cobra.Command {
	var ignoreTimes bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Print what is not the same in two images",
		Long: `diff prints a line for each name that is new (+), gone (-) or different (!),
with what differs: type, content, mode, owner, time, target (of a symbolic
link), device, xattrs, links. Compression does not matter. The exit status is 1
when there is a difference.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var images [2]*squash.FS
			for i, name := range args {
				image, f, err := app.OpenSquash(name)
				if err != nil {
					return err
				}
				defer f.Close()
				images[i] = image
			}
			differ := false
			for c, err := range squash.Diff(cmd.Context(), images[0], images[1]) {
				if err != nil {
					return err
				}
				if ignoreTimes {
					c.What &^= squash.DiffModTime
				}
				sign := "!"
				switch c.What {
				case 0:
					continue
				case squash.DiffAdded:
					sign = "+"
				case squash.DiffRemoved:
					sign = "-"
				}
				differ = true
				if sign == "!" {
					fmt.Fprintln(cmd.OutOrStdout(), sign, printable(c.Path), c.What)
				} else {
					fmt.Fprintln(cmd.OutOrStdout(), sign, printable(c.Path))
				}
			}
			if differ {
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&ignoreTimes, "ignore-times", false, "do not compare modification times")
	return cmd
}

// printable is a name as it is, or quoted if a terminal could not show it.
func printable(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return name
}

func squashListCommand() *cobra.Command {
	var long, recursive bool
	cmd := &cobra.Command{
		Use:   "ls IMAGE [PATH]",
		Short: "List a directory of an image",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			image, f, err := app.OpenSquash(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			dir := "."
			if len(args) == 2 {
				dir = inImage(args[1])
			}
			show := func(name string, fi fs.FileInfo, target string) {
				if !long {
					fmt.Fprintln(cmd.OutOrStdout(), printable(name))
					return
				}
				st := fi.Sys().(*squash.Stat)
				size := strconv.FormatInt(fi.Size(), 10)
				if fi.Mode()&fs.ModeDevice != 0 {
					size = fmt.Sprintf("%d,%d", st.Major, st.Minor)
				}
				if target != "" {
					target = " -> " + printable(target)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%v %3d %6d:%-6d %12s %s %s%s\n", fi.Mode(), st.Nlink, st.Uid, st.Gid, size,
					fi.ModTime().UTC().Format("2006-01-02 15:04:05"), printable(name), target)
			}
			var list func(dir, prefix string) error
			list = func(dir, prefix string) error {
				entries, err := image.ReadDir(dir)
				if err != nil {
					return err
				}
				for _, e := range entries {
					fi, err := e.Info()
					if err != nil {
						return err
					}
					full := path.Join(dir, e.Name())
					target := ""
					if e.Type()&fs.ModeSymlink != 0 && fs.ValidPath(full) {
						if target, err = image.ReadLink(full); err != nil {
							return err
						}
					}
					show(prefix+e.Name(), fi, target)
					// io/fs cannot open a name that is not UTF-8.
					if recursive && e.IsDir() && fs.ValidPath(full) {
						if err := list(full, prefix+e.Name()+"/"); err != nil {
							return err
						}
					}
				}
				return nil
			}
			return list(dir, "")
		},
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "with mode, links, owner, size, time (UTC) and target")
	cmd.Flags().BoolVarP(&recursive, "recursive", "R", false, "with all that is below")
	return cmd
}

// inImage makes a path that a person writes one of the image.
func inImage(name string) string {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name == "" {
		return "."
	}
	return name
}

func squashCatCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cat IMAGE PATH...",
		Short: "Print files of an image",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			image, f, err := app.OpenSquash(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			for _, name := range args[1:] {
				r, err := image.Open(inImage(name))
				if err != nil {
					return err
				}
				_, err = io.Copy(cmd.OutOrStdout(), r)
				_ = r.Close()
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func squashTarCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tar IMAGE",
		Short: "Write the files of an image to stdout as a tar archive",
		Long: `tar writes an archive in PAX format. Sockets, which the format does not know,
are left out. IMAGE may also be a container image, whose layers are merged.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, c, err := app.OpenSource(args[0], cmd.InOrStdin(), nil)
			if err != nil {
				return err
			}
			defer c.Close()
			sockets, err := squash.WriteTar(cmd.Context(), cmd.OutOrStdout(), src)
			if sockets > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "diskless: sockets left out:", sockets)
			}
			return err
		},
	}
}
