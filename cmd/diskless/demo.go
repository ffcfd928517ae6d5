package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/seed-3ec230fa/diskless/internal/demo"
	"github.com/seed-3ec230fa/diskless/internal/vm"
)

func demoCommand() *cobra.Command {
	var way string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole way of a boot, on this machine alone",
		Long: `demo serves DHCP, TFTP, HTTP and NBD and sends a machine the whole way.

Without a flag the machine is simulated, on loopback, in a few seconds and
without root; no kernel runs in it.

--vm=user boots a real kernel in QEMU, without root, over QEMU's own network:
QEMU answers DHCP there, iPXE gets its script, kernel and initrd over our HTTP,
and the root is on our NBD export.

--vm=pxe boots it from real firmware on all our services, in a network
namespace of its own with a bridge and a tap. It needs root, or a system where
users may make namespaces. Nothing leaves this machine, and nothing stays
behind.`,
		Example: "  diskless demo\n  diskless demo --vm\n  sudo diskless demo --vm=pxe",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			switch way {
			case "":
				return demo.Simulate(cmd.Context(), cmd.OutOrStdout(), log)
			case "user":
				return demo.BootUser(cmd.Context(), cmd.OutOrStdout(), log)
			case "pxe":
				// The namespace has no way out, so this comes before it.
				if err := demo.Fetch(cmd.Context(), cmd.OutOrStdout()); err != nil {
					return err
				}
				var err error
				code := vm.Isolated(func(reason error) int {
					if reason != nil {
						err = reason
						return 1
					}
					if err = demo.BootPXE(cmd.Context(), cmd.OutOrStdout(), log); err != nil {
						return 1
					}
					return 0
				})
				if err == nil && code != 0 {
					err = errSilent // said already, by the process inside
				}
				return err
			}
			return fmt.Errorf("--vm=%s: choose user or pxe", way)
		},
	}
	cmd.Flags().StringVar(&way, "vm", "", "boot a real kernel in QEMU: `user` (QEMU's network) or pxe (from firmware, in a namespace)")
	cmd.Flags().Lookup("vm").NoOptDefVal = "user"
	return cmd
}
