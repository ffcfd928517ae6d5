package etcdstore

import (
	"fmt"
	"testing"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcptest"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func newClient(endpoints []string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints, Logger: zap.NewNop(),
		DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
	})
}

func TestStore(t *testing.T) {
	c := newCluster(t, 1)
	client := c.client(t)
	n := 0
	dhcptest.TestLeaseStore(t, func(t *testing.T) dhcp.LeaseStore {
		n++
		return c.store(t, client, Options{Name: "one", Prefix: fmt.Sprint("/test/", n)})
	})
}
