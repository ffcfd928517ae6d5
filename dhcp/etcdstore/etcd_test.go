package etcdstore

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
)

// cluster is a real etcd of some members, each on a loopback address that
// nobody else has, with data of its own.
type cluster struct {
	t       testing.TB
	members []*member
}

type member struct {
	args []string
	url  string

	mu  sync.Mutex
	cmd *exec.Cmd
	log bytes.Buffer
}

func newCluster(t testing.TB, members int) *cluster {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if os.Getenv("DISKLESS_REQUIRE") == "all" {
			t.Fatal("etcd is not installed")
		}
		t.Skip("etcd is not installed")
	}
	dir := t.TempDir()
	c := &cluster{t: t}
	var peers []string
	var ips []string
	for i := range members {
		b := make([]byte, 3)
		rand.Read(b)
		ips = append(ips, fmt.Sprintf("127.%d.%d.%d", b[0]|1, b[1]|1, b[2]|1))
		peers = append(peers, fmt.Sprintf("m%d=http://%s:2380", i, ips[i]))
	}
	for i, ip := range ips {
		c.members = append(c.members, &member{
			url: "http://" + ip + ":2379",
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
	for _, m := range c.members {
		require.NoError(t, m.start())
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			m.kill()
		}
		if t.Failed() {
			for _, m := range c.members {
				t.Logf("%s said:\n%s", m.url, m.log.Bytes())
			}
		}
	})
	client := c.client(t)
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := client.Get(ctx, "ready")
		return err == nil
	}, time.Minute, 50*time.Millisecond)
	return c
}

func (m *member) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cmd = exec.Command("etcd", m.args...)
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	m.cmd.SysProcAttr = dieWithParent()
	return m.cmd.Start()
}

// kill ends the process as a loss of power would.
func (m *member) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cmd.Process.Kill()
	m.cmd.Wait()
}

func (m *member) signal(sig syscall.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cmd.Process.Signal(sig)
}

func (c *cluster) urls() []string {
	var urls []string
	for _, m := range c.members {
		urls = append(urls, m.url)
	}
	return urls
}

// client returns one that speaks to the endpoints, or to all members.
func (c *cluster) client(t testing.TB, endpoints ...string) *clientv3.Client {
	if endpoints == nil {
		endpoints = c.urls()
	}
	client, err := newClient(endpoints)
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// store opens one for the test, and waits until it is filled.
func (c *cluster) store(t testing.TB, client *clientv3.Client, o Options) *Store {
	s, err := Open(client, &o)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	require.Eventually(t, func() bool { return s.Sync(context.Background()) == nil }, time.Minute, 10*time.Millisecond)
	return s
}
