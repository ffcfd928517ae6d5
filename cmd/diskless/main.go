// Command diskless boots machines from the network: DHCP, TFTP, HTTP and NBD
// in one binary, each role switched on or off by itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends at once
	if err := command().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errSilent) {
			fmt.Fprintln(os.Stderr, "diskless:", err)
		}
		os.Exit(1)
	}
}

// errSilent is a failure that was reported already.
var errSilent = errors.New("failed")

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "diskless",
		Short: "Boot machines from the network",
		Long: `diskless boots machines that have no disk: it gives them addresses (DHCP),
boot loaders, kernels and configurations (TFTP, HTTP) and their root file
system (NBD), read-only or with an overlay for each machine.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(serveCommand(), demoCommand(), machinesCommand(), explainCommand(), rootsCommand(), imagesCommand(), squashCommand(), versionCommand())
	return root
}
