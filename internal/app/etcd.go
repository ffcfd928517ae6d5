//go:build !noetcd

package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/seed-3ec230fa/diskless/dhcp/etcdstore"
	"github.com/seed-3ec230fa/diskless/internal/config"
)

// etcdLeases closes the client with the store.
type etcdLeases struct {
	*etcdstore.Store
	client *clientv3.Client
}

func (l etcdLeases) Close() error { return errors.Join(l.Store.Close(), l.client.Close()) }

// openEtcd opens the leases of dhcp.etcd. etcd may be away: then they are
// there when it is.
func openEtcd(ctx context.Context, cfg *config.Config, log *slog.Logger) (leaseStore, error) {
	e := cfg.DHCP.Etcd
	c := clientv3.Config{
		Endpoints: e.Endpoints, Username: e.User, Logger: zap.NewNop(), // the store tells what matters
		DialTimeout: 10 * time.Second, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
	}
	var err error
	if c.TLS, err = etcdTLS(cfg, e); err != nil {
		return nil, err
	}
	if e.PasswordFile != "" {
		password, err := os.ReadFile(e.PasswordFile)
		if err != nil {
			return nil, cfg.Mistake(fmt.Sprintf("dhcp.etcd.password-file: %v", err), &e.PasswordFile)
		}
		c.Password = strings.TrimRight(string(password), "\r\n")
	}
	client, err := clientv3.New(c)
	if err != nil {
		return nil, cfg.Mistake(fmt.Sprintf("dhcp.etcd: %v", err), &e.Endpoints, e)
	}
	store, err := etcdstore.Open(client, &etcdstore.Options{Prefix: e.Prefix, Name: e.Name, Logger: log})
	if err != nil {
		return nil, errors.Join(cfg.Mistake(fmt.Sprintf("dhcp.etcd: %v", err), &e.Prefix, e), client.Close())
	}
	if err := store.Sync(ctx); err != nil {
		log.Warn("dhcp.etcd: no leases yet: addresses are given as soon as etcd answers", "err", err)
	}
	return etcdLeases{store, client}, nil
}

// etcdTLS is nil where no endpoint has https.
func etcdTLS(cfg *config.Config, e *config.Etcd) (*tls.Config, error) {
	secure := false
	for _, u := range e.Endpoints {
		secure = secure || strings.HasPrefix(u, "https:")
	}
	if !secure {
		return nil, nil
	}
	t := &tls.Config{}
	if e.CA != "" {
		pem, err := os.ReadFile(e.CA)
		if err != nil {
			return nil, cfg.Mistake(fmt.Sprintf("dhcp.etcd.ca: %v", err), &e.CA)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, cfg.Mistake(fmt.Sprintf("dhcp.etcd.ca: there is no certificate in %s", e.CA), &e.CA)
		}
	}
	if e.Cert != "" {
		cert, err := tls.LoadX509KeyPair(e.Cert, e.Key)
		if err != nil {
			return nil, cfg.Mistake(fmt.Sprintf("dhcp.etcd.cert, key: %v", err), &e.Cert)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}
