package main

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/seed-3ec230fa/diskless/internal/app"
)

func imagesCommand() *cobra.Command {
	var a admin
	list := func(cmd *cobra.Command, _ []string) error {
		var list []app.Image
		if err := a.call(cmd.Context(), http.MethodGet, "/images", &list); err != nil {
			return err
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "IMAGE\tGENERATION\tBYTES\tFORMER\tFILE")
		for _, i := range list {
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", i.Name, i.Generation, i.Size, dash(strings.Join(i.Former, ", ")), i.File)
		}
		return w.Flush()
	}
	cmd := &cobra.Command{
		Use:   "images",
		Short: "List the images and their generations; publish a new one or go back to the former",
		Args:  cobra.NoArgs,
		RunE:  list,
	}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List the images, as images alone does", Args: cobra.NoArgs, RunE: list},
		&cobra.Command{
			Use:   "publish IMAGE FILE",
			Short: "Make a file the newest generation of an image",
			Long: `publish moves FILE over the image's own file, at once: machines that run keep
the generation they have, the next boot gets the new one. FILE must be on the
same file system and complete; it is gone afterwards. An image that is not in
the configuration is made in the server's state directory.`,
			Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				file, err := filepath.Abs(args[1])
				if err != nil {
					return err
				}
				return a.printCall(cmd, "/images/"+url.PathEscape(args[0])+"/publish?file="+url.QueryEscape(file))
			},
		},
		&cobra.Command{
			Use:   "revert IMAGE",
			Short: "Make the former generation of an image the newest again",
			Args:  cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.printCall(cmd, "/images/"+url.PathEscape(args[0])+"/revert")
			},
		},
	)
	a.add(cmd)
	return cmd
}
