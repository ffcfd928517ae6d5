package main

import (
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/seed-3ec230fa/diskless/internal/app"
	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/container"
	"github.com/seed-3ec230fa/diskless/squash/netroot"
)

func squashCheckCommand() *cobra.Command {
	var c container.Options
	var root string
	cmd := &cobra.Command{
		Use:   "check SOURCE",
		Short: "Say what keeps a root from serving machines without disks",
		Long: `check looks at a directory, an image, an archive or a container image as the
root of machines without disks, and prints what is missing (the boot will
fail), harmful (machines will disturb each other or themselves) or could be
better, each with its remedy. What "squash build --prepare" does by itself has
a "*". The exit status is 1 when something is missing.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := rootOf(root)
			if err != nil {
				return err
			}
			src, closer, err := app.OpenSource(args[0], cmd.InOrStdin(), &c)
			if err != nil {
				return err
			}
			defer closer.Close()
			findings, err := netroot.Check(cmd.Context(), src, &netroot.Options{Root: r})
			if err != nil {
				return err
			}
			printFindings(cmd, findings, false)
			if len(findings) > 0 && findings[0].Severity == netroot.Missing {
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", "nbd", "how the machines get at it: nbd (an image) or nfs (a shared directory)")
	cmd.Flags().StringVar(&c.Platform, "platform", "", "of a container image, such as linux/amd64")
	cmd.Flags().StringVar(&c.Name, "name", "", "of a container image, if the file holds several")
	return cmd
}

func rootOf(name string) (netroot.Root, error) {
	switch name {
	case "nbd":
		return netroot.NBD, nil
	case "nfs":
		return netroot.NFS, nil
	}
	return 0, fmt.Errorf("the root %q: %w: choose nbd or nfs", name, fs.ErrInvalid)
}

// printFindings prints what is left to somebody, or all.
func printFindings(cmd *cobra.Command, findings []netroot.Finding, left bool) {
	for _, f := range findings {
		mark := " "
		if f.Rules != nil {
			mark = "*"
		}
		if left && f.Rules != nil {
			continue
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s %v %s: %s\n    %s\n", mark, f.Severity, printable(f.Path), f.Message, f.Remedy)
	}
}

func squashKernelsCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "kernels IMAGE",
		Short: "List the kernels of an image, and take the newest out",
		Long: `kernels prints the version, the kernel and the initrd of each kernel in the
image's /boot, the newest first, with the SHA-256 digests of the two. --to
writes the newest kernel and its initrd into a directory, for a boot server.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			image, f, err := app.OpenSquash(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			kernels, err := netroot.Kernels(cmd.Context(), image)
			if err != nil {
				return err
			}
			for _, k := range kernels {
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n  %s %x %d\n", dash(k.Version), k.Path, k.Digest, k.Size)
				if k.Initrd != "" {
					fmt.Fprintf(cmd.OutOrStdout(), "  %s %x %d\n", k.Initrd, k.InitrdDigest, k.InitrdSize)
				}
			}
			if to == "" {
				return nil
			}
			return takeKernel(cmd, image, kernels[0], to)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "a directory for the newest kernel and its initrd; made if need be")
	return cmd
}

func takeKernel(cmd *cobra.Command, image *squash.FS, k netroot.Kernel, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	return netroot.CopyKernel(cmd.Context(), image, k, to)
}
