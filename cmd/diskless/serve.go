package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/seed-3ec230fa/diskless/internal/app"
	"github.com/seed-3ec230fa/diskless/internal/config"
)

func serveCommand() *cobra.Command {
	var file string
	var check bool
	var log logFlags
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the roles that a configuration switches on",
		Long: `serve runs DHCP, TFTP, HTTP and NBD as the configuration says, in the
foreground, until SIGTERM or SIGINT; it then lets what is in flight end.

It runs without root: DHCP and TFTP need the capabilities CAP_NET_BIND_SERVICE
(ports below 1024) and CAP_NET_RAW (to stay on one interface):

  setcap cap_net_bind_service,cap_net_raw=+ep diskless

Before it gives out addresses it asks whether another DHCP server answers on
the interface, and does not start when one does.`,
		Example: "  diskless serve --config /etc/diskless/diskless.yaml\n  diskless serve --config diskless.yaml --check",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err == nil && check {
				err = app.Check(cmd.Context(), cfg)
			}
			if err != nil {
				return fmt.Errorf("configuration:\n%w", err)
			}
			if check {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is fine\n", file)
				return err
			}
			logger, err := log.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			a, err := app.New(cmd.Context(), cfg, logger)
			if err != nil {
				return err
			}
			a.Ready = func() {
				logger.Info("serving", "dhcp", cfg.ServesDHCP(), "tftp", cfg.ServesTFTP(), "http", cfg.ServesHTTP(), "nbd", cfg.ServesNBD(),
					"machines", len(cfg.Machines), "version", version())
			}
			err = a.Run(cmd.Context(), app.Sockets{})
			if err == nil {
				logger.Info("stopped")
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "/etc/diskless/diskless.yaml", "the configuration `file`")
	cmd.Flags().BoolVar(&check, "check", false, "only check the configuration")
	log.add(cmd)
	return cmd
}

// logFlags choose how much is logged, and in which form.
type logFlags struct{ format, level string }

func (f *logFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.format, "log-format", "text", "`form` of the log: text or json")
	cmd.Flags().StringVar(&f.level, "log-level", "info", "least `level` logged: debug (each request), info (each stage of each boot), warn, error")
}

func (f *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return nil, fmt.Errorf("--log-level %s: choose debug, info, warn or error", f.level)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch f.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("--log-format %s: choose text or json", f.format)
}
