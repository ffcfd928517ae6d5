//go:build noetcd

package app

import (
	"context"
	"log/slog"

	"github.com/seed-3ec230fa/diskless/internal/config"
)

func openEtcd(_ context.Context, cfg *config.Config, _ *slog.Logger) (leaseStore, error) {
	return nil, cfg.Mistake("dhcp.etcd: this binary was built without etcd (-tags noetcd)", cfg.DHCP.Etcd)
}
