// Package etcdtest runs a real etcd for tests.
package etcdtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Cluster is an etcd of some members, each on an address that nobody else has,
// with data of its own.
type Cluster struct {
	Members []*Member
}

// Member is a process of it, which can be killed and started again.
type Member struct {
	URL string

	args []string
	mu   sync.Mutex
	cmd  *exec.Cmd
	log  bytes.Buffer
}

// Start runs a cluster on loopback.
func Start(t testing.TB, members int) *Cluster {
	t.Helper()
	var ips []string
	for range members {
		b := make([]byte, 3)
		rand.Read(b)
		ips = append(ips, fmt.Sprintf("127.%d.%d.%d", b[0]|1, b[1]|1, b[2]|1))
	}
	return StartAt(t, ips...)
}

// StartAt runs a cluster on these addresses until the test ends, and returns
// when it answers. The test is skipped where there is no etcd, or fails where
// everything is required.
func StartAt(t testing.TB, ips ...string) *Cluster {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if os.Getenv("DISKLESS_REQUIRE") == "all" {
			t.Fatal("etcd is not installed")
		}
		t.Skip("etcd is not installed")
	}
	dir := t.TempDir()
	c := &Cluster{}
	var peers []string
	for i, ip := range ips {
		peers = append(peers, fmt.Sprintf("m%d=http://%s:2380", i, ip))
	}
	for i, ip := range ips {
		c.Members = append(c.Members, &Member{
			URL: "http://" + ip + ":2379",
			args: []string{
				"--name", fmt.Sprintf("m%d", i), "--data-dir", filepath.Join(dir, fmt.Sprint(i)),
				"--listen-client-urls", "http://" + ip + ":2379", "--advertise-client-urls", "http://" + ip + ":2379",
				"--listen-peer-urls", "http://" + ip + ":2380", "--initial-advertise-peer-urls", "http://" + ip + ":2380",
				"--initial-cluster", strings.Join(peers, ","), "--initial-cluster-token", dir,
				"--log-level", "error", "--logger", "zap",
				"--auto-compaction-mode", "revision", "--auto-compaction-retention", "20000",
			},
		})
	}
	t.Cleanup(func() {
		for _, m := range c.Members {
			m.Kill()
			if t.Failed() {
				t.Logf("%s said:\n%s", m.URL, m.log.Bytes())
			}
		}
	})
	for _, m := range c.Members {
		require.NoError(t, m.Start())
	}
	client := c.Client(t)
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := client.Get(ctx, "ready")
		return err == nil
	}, time.Minute, 50*time.Millisecond)
	return c
}

// Start starts the process, again after Kill.
func (m *Member) Start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cmd = exec.Command("etcd", m.args...)
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	m.cmd.SysProcAttr = DieWithParent()
	return m.cmd.Start()
}

// Kill ends the process without a warning.
func (m *Member) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil && m.cmd.Process != nil {
		m.cmd.Process.Kill()
		m.cmd.Wait()
	}
}

// Signal sends the process a signal.
func (m *Member) Signal(sig syscall.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cmd.Process.Signal(sig)
}

// URLs are those of all members.
func (c *Cluster) URLs() []string {
	var urls []string
	for _, m := range c.Members {
		urls = append(urls, m.URL)
	}
	return urls
}

// Client returns one that speaks to all members until the test ends.
func (c *Cluster) Client(t testing.TB) *clientv3.Client {
	client, err := NewClient(c.URLs()...)
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// NewClient returns a client that says nothing and gives up dead connections.
func NewClient(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints, Logger: zap.NewNop(),
		DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
	})
}
