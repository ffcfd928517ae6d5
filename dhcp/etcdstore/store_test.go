package etcdstore

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcptest"
	"github.com/seed-3ec230fa/diskless/internal/etcdtest"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// openStore opens one for the test, and waits until it is filled.
func openStore(t testing.TB, client *clientv3.Client, o Options) *Store {
	s, err := Open(client, &o)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	require.Eventually(t, func() bool { return s.Sync(context.Background()) == nil }, time.Minute, 10*time.Millisecond)
	return s
}

func TestStore(t *testing.T) {
	client := etcdtest.Start(t, 1).Client(t)
	n := 0
	dhcptest.TestLeaseStore(t, func(t *testing.T) dhcp.LeaseStore {
		n++
		return openStore(t, client, Options{Name: "one", Prefix: fmt.Sprint("/test/", n)})
	})
}
