package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/etcdstore"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// One of two servers. Nobody listens where this example looks for etcd: the
// server keeps silent until somebody does.
func ExampleOpen() {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:         []string{"http://127.0.0.1:1"},
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		Logger: zap.NewNop(),
	})
	if err != nil {
		panic(err)
	}
	defer client.Close()
	store, err := etcdstore.Open(client, &etcdstore.Options{Name: "dhcp1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	defer store.Close()

	pool := &dhcp.Pool{
		Prefix: netip.MustParsePrefix("198.51.100.0/24"), ServerID: netip.MustParseAddr("198.51.100.1"), Store: store,
		Ranges: []dhcp.Range{{First: netip.MustParseAddr("198.51.100.50"), Last: netip.MustParseAddr("198.51.100.99")}},
		Peers:  []netip.Addr{netip.MustParseAddr("198.51.100.2")},
	}
	fmt.Println(pool.Validate())
	_, err = pool.LeaseByAddr(context.Background(), netip.MustParseAddr("198.51.100.50"))
	fmt.Println(errors.Is(err, etcdstore.ErrAway))
	// Output:
	// <nil>
	// true
}
