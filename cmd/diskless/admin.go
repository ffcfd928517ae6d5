package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-3ec230fa/diskless/internal/app"
	"github.com/seed-3ec230fa/diskless/internal/config"
)

// admin talks to a running server over its Unix socket.
type admin struct{ file, socket string }

func (a *admin) add(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVarP(&a.file, "config", "c", "/etc/diskless/diskless.yaml", "the server's configuration `file`")
	cmd.PersistentFlags().StringVar(&a.socket, "socket", "", "the server's admin `socket` (default: as the configuration says)")
}

func (a *admin) call(ctx context.Context, method, path string, out any) error {
	socket := a.socket
	if socket == "" {
		cfg, err := config.Load(a.file)
		if err != nil {
			return fmt.Errorf("configuration:\n%w", err)
		}
		if socket = cfg.Server.Admin; socket == "" {
			return fmt.Errorf("%s sets neither server.state nor server.admin, so its server takes no commands", a.file)
		}
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, method, "http://diskless"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("no server answers on %s; is `diskless serve` running, and may you open its socket? (%w)", socket, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("%s", strings.TrimSpace(string(text)))
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

func machinesCommand() *cobra.Command {
	var a admin
	cmd := &cobra.Command{
		Use:   "machines",
		Short: "List the machines that asked to boot and that nobody configured",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []app.Stranger
			if err := a.call(cmd.Context(), http.MethodGet, "/machines", &list); err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "MAC\tUUID\tARCHITECTURE\tADDRESS\tLAST SEEN\tREQUESTS")
			for _, s := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", dash(s.MAC), dash(s.UUID), dash(s.Arch), dash(s.Addr), s.Last.Format(time.DateTime), s.Count)
			}
			return w.Flush()
		},
	}
	a.add(cmd)
	return cmd
}

func rootsCommand() *cobra.Command {
	var a admin
	list := func(cmd *cobra.Command, _ []string) error {
		var list []app.Root
		if err := a.call(cmd.Context(), http.MethodGet, "/roots", &list); err != nil {
			return err
		}
		return printRoots(cmd.OutOrStdout(), list)
	}
	cmd := &cobra.Command{
		Use:   "roots",
		Short: "List the writable roots; create, clone, reset, delete, expire, rename, rebase, commit, attach or fence them",
		Args:  cobra.NoArgs,
		RunE:  list,
	}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List the writable roots, as roots alone does", Args: cobra.NoArgs, RunE: list},
		&cobra.Command{
			Use:   "create ROOT IMAGE[~GENERATION]",
			Short: "Make a kept root before its machine has ever booted",
			Args:  cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.call(cmd.Context(), http.MethodPost, rootPath(args[0], "create", args[1]), nil)
			},
		},
		&cobra.Command{
			Use:   "rebase ROOT [GENERATION]",
			Short: "Put a root that nothing was written to onto another generation of its image, or the newest",
			Long: `rebase moves a root to another generation of its image. What a root holds
belongs to the generation it is on, so only one that nothing was written to can
be moved; commit or reset any other. Its machine must be off.`,
			Args: cobra.RangeArgs(1, 2),
			RunE: func(cmd *cobra.Command, args []string) error {
				query := ""
				if len(args) > 1 {
					query = "?generation=" + url.QueryEscape(args[1])
				}
				return a.call(cmd.Context(), http.MethodPost, rootPath(args[0], "rebase")+query, nil)
			},
		},
		a.expireCommand(),
		&cobra.Command{
			Use:   "reset ROOT",
			Short: "Throw a root's changes away: the next boot begins clean, on the newest image",
			Long: `reset throws away everything that was written to a root. A machine that has
it open is cut off at once; its next boot begins clean, on the newest image.`,
			Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.call(cmd.Context(), http.MethodPost, "/roots/"+url.PathEscape(args[0])+"/reset", nil)
			},
		},
		&cobra.Command{
			Use:   "delete ROOT",
			Short: "Remove a root with its changes",
			Args:  cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.call(cmd.Context(), http.MethodDelete, "/roots/"+url.PathEscape(args[0]), nil)
			},
		},
		&cobra.Command{
			Use:   "clone ROOT NEWROOT",
			Short: "Make another root that holds what this one holds now, at once",
			Long: `clone makes a kept root with the content that ROOT has at this moment. Nothing
is copied: both share it, and each stores what it writes from now on. A machine
that runs on ROOT goes on; shut it down first for clean file systems.`,
			Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.call(cmd.Context(), http.MethodPost, rootPath(args[0], "clone", args[1]), nil)
			},
		},
		&cobra.Command{
			Use:   "rename ROOT NEWNAME",
			Short: "Give a root another name, and so to another machine",
			Long: `rename moves a root with its content. A machine that has it open is cut off,
and refused under both names until it boots again.`,
			Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.call(cmd.Context(), http.MethodPost, rootPath(args[0], "rename", args[1]), nil)
			},
		},
		&cobra.Command{
			Use:   "commit ROOT IMAGE",
			Short: "Publish what a root holds as the newest generation of an image",
			Long: `commit writes a new image file from what ROOT holds and puts it in the place of
IMAGE's file; machines that run keep the one they have. ROOT's machine must be
off. A root over IMAGE goes on over the new generation, with nothing stored.`,
			Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.printCall(cmd, rootPath(args[0], "commit", args[1]))
			},
		},
		&cobra.Command{
			Use:   "attach ROOT",
			Short: "Take a root for maintenance while its machine is off, and print its export name",
			Long: `attach prints the NBD export name to open ROOT with, as in
nbd-client -N NAME SERVER /dev/nbd0. The machine's own connections are refused
from then on; its next boot ends the maintenance.`,
			Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.printCall(cmd, rootPath(args[0], "attach"))
			},
		},
		&cobra.Command{
			Use:   "fence ROOT",
			Short: "Cut off whoever has a root open; its data stays, its machine must boot again",
			Args:  cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.call(cmd.Context(), http.MethodPost, rootPath(args[0], "fence"), nil)
			},
		},
	)
	a.add(cmd)
	return cmd
}

func (a *admin) expireCommand() *cobra.Command {
	var kind string
	var unused time.Duration
	cmd := &cobra.Command{
		Use:   "expire",
		Short: "Delete the roots of a kind that were not used for some time, and print their names",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{"kind": {kind}, "unused": {unused.String()}}
			var gone []string
			if err := a.call(cmd.Context(), http.MethodPost, "/expire?"+query.Encode(), &gone); err != nil {
				return err
			}
			for _, name := range gone {
				fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "ephemeral", "which roots: ephemeral or kept")
	cmd.Flags().DurationVar(&unused, "unused", 0, "for how long nobody used them, such as 720h")
	_ = cmd.MarkFlagRequired("unused")
	return cmd
}

func rootPath(root string, rest ...string) string {
	path := "/roots/" + url.PathEscape(root)
	for _, part := range rest {
		path += "/" + url.PathEscape(part)
	}
	return path
}

// printCall prints the name that a command answers with.
func (a *admin) printCall(cmd *cobra.Command, path string) error {
	var name string
	if err := a.call(cmd.Context(), http.MethodPost, path, &name); err != nil {
		return err
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), name)
	return err
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// printRoots writes a table of roots.
func printRoots(out io.Writer, list []app.Root) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ROOT\tIMAGE\tGENERATION\tKIND\tBYTES STORED\tBYTES SHARED\tOPEN BY\tPROBLEM")
	for _, r := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", r.Name, r.Image, dash(r.Generation), r.Kind, r.Stored, r.Shared,
			dash(strings.Join(r.Clients, ", ")), dash(r.Error))
	}
	return w.Flush()
}
