package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/seed-3ec230fa/diskless/pxecfg"
)

func explainCommand() *cobra.Command {
	var a admin
	flags := []struct{ name, help string }{
		{"mac", "hardware `address`"}, {"uuid", "UUID as PXELINUX spells it"}, {"ip", "IP `address`"}, {"hostname", "host `name`"},
		{"arch", "architecture's `number` (RFC 4578)"}, {"platform", "pcbios or efi"}, {"loader", "pxelinux, ipxe or grub"},
	}
	values := make([]string, len(flags))
	cmd := &cobra.Command{
		Use:   "explain [MACHINE]",
		Short: "Say what a machine boots, by which rule, and where each value came from",
		Long: `explain asks the running server what a machine would boot: one that the
configuration names, or one described by its hardware address and so on. It is
a look only: nothing boots once because of it, and nobody is listed as seen.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			for i, f := range flags {
				if values[i] != "" {
					q.Set(f.name, values[i])
				}
			}
			if len(args) > 0 {
				q.Set("machine", args[0])
			}
			var steps []pxecfg.Step
			if err := a.call(cmd.Context(), http.MethodGet, "/explain?"+q.Encode(), &steps); err != nil {
				return err
			}
			return printSteps(cmd.OutOrStdout(), steps)
		},
	}
	for i, f := range flags {
		cmd.Flags().StringVar(&values[i], f.name, "", f.help)
	}
	a.add(cmd)
	return cmd
}

func printSteps(out io.Writer, steps []pxecfg.Step) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, s := range steps {
		answer := "no"
		if s.Hit {
			answer = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Name, answer, s.Why, s.Rule)
		for _, v := range s.Values {
			fmt.Fprintf(w, "  %s %s\t%s\t\t%s\n", v.Entry, v.Field, v.Value, v.From)
		}
	}
	return w.Flush()
}
