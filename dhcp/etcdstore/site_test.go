//go:build unix

package etcdstore

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/etcdtest"
	"github.com/stretchr/testify/require"
)

// The servers of the tests are processes of this test binary, so that they can
// be killed and stopped. Their clients are in the test's own process.

const serverEnv = "ETCDSTORE_TEST_SERVER"

func TestMain(m *testing.M) {
	if args := os.Getenv(serverEnv); args != "" {
		if err := serveTest(strings.Fields(args)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

var testSubnet = netip.MustParsePrefix("10.99.0.0/16")

// testRange is so many addresses of it.
func testRange(n int) dhcp.Range {
	first, last := 256, 255+n
	return dhcp.Range{
		First: netip.AddrFrom4([4]byte{10, 99, byte(first >> 8), byte(first)}), Last: netip.AddrFrom4([4]byte{10, 99, byte(last >> 8), byte(last)}),
	}
}

func testServerID(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 0, byte(n)}) }

// serveTest is a server process: number, seconds of a lease, prefix, endpoints,
// addresses to give.
// Its address is the first line that it writes; lines that it reads are steps
// of its clock, and it ends when there are no more.
func serveTest(args []string) error {
	n, _ := strconv.Atoi(args[0])
	lease, _ := strconv.Atoi(args[1])
	addrs, _ := strconv.Atoi(args[4])
	client, err := etcdtest.NewClient(strings.Split(args[3], ",")...)
	if err != nil {
		return err
	}
	defer client.Close()
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	store, err := Open(client, &Options{Name: fmt.Sprint("server", n), Prefix: args[2], Logger: logger, Timeout: time.Second, MaxAge: 3 * time.Second})
	if err != nil {
		return err
	}
	defer store.Close()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	if err := conn.SetReadBuffer(1 << 20); err != nil { // machines come by the thousand
		return err
	}
	server := &dhcp.Server{Logger: logger, Handler: &dhcp.Pool{
		Prefix: testSubnet, Ranges: []dhcp.Range{testRange(addrs)}, ServerID: testServerID(n), Store: store, Logger: logger,
		LeaseTime: time.Duration(lease) * time.Second, DeclineTime: 3 * time.Second, OfferTime: 2 * time.Second,
		Peers: []netip.Addr{testServerID(1), testServerID(2), testServerID(3)}, MaxNewPerLink: -1,
	}}
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			step, _ := strconv.ParseInt(lines.Text(), 10, 64)
			store.stepClock(time.Duration(step))
		}
		server.Close()
	}()
	fmt.Println(conn.LocalAddr())
	if err := server.Serve(&serverConn{conn, testServerID(n)}); err != dhcp.ErrServerClosed {
		return err
	}
	return nil
}

func (s *Store) stepClock(by time.Duration) { s.clockStep.Store(int64(by)) }

// serverConn gives the server's socket on loopback the addresses that it would
// have on a network: a client that has an address
// sends from it.
type serverConn struct {
	net.PacketConn
	id netip.Addr
}

func (c *serverConn) LocalAddr() net.Addr { return &net.UDPAddr{IP: c.id.AsSlice(), Port: 67} }

func (c *serverConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if err == nil && n >= 16 && [4]byte(b[12:16]) != [4]byte{} {
		from = &net.UDPAddr{IP: slices.Clone(b[12:16]), Port: from.(*net.UDPAddr).Port}
	}
	return n, from, err
}

func (c *serverConn) WriteTo(b []byte, to net.Addr) (int, error) {
	return c.PacketConn.WriteTo(b, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: to.(*net.UDPAddr).Port})
}

// site is three servers, each with its own way to an etcd of some members.
type site struct {
	t       testing.TB
	cluster *etcdtest.Cluster
	servers [3]*server
}

type server struct {
	n       int
	args    string
	proxies []*proxy
	addr    atomic.Pointer[net.UDPAddr]

	mu    sync.Mutex
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func newSite(t testing.TB, members int, lease [3]int, addrs int) *site {
	s := &site{t: t, cluster: etcdtest.Start(t, members)}
	for i := range s.servers {
		srv := &server{n: i + 1}
		var ends []string
		for _, m := range s.cluster.Members {
			p := newProxy(t, strings.TrimPrefix(m.URL, "http://"))
			srv.proxies = append(srv.proxies, p)
			ends = append(ends, "http://"+p.listener.Addr().String())
		}
		srv.args = fmt.Sprintf("%d %d /chaos %s %d", srv.n, lease[i], strings.Join(ends, ","), addrs)
		s.servers[i] = srv
		require.NoError(t, srv.start())
		t.Cleanup(srv.kill)
	}
	return s
}

func (s *server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append(os.Environ(), serverEnv+"="+s.args)
	s.cmd.Stderr = os.Stderr
	s.cmd.SysProcAttr = etcdtest.DieWithParent()
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	addr, err := net.ResolveUDPAddr("udp4", strings.TrimSpace(line))
	s.addr.Store(addr)
	return err
}

func (s *server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// close ends the server in good order, with what it has in hand.
func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd.Process.Signal(syscall.SIGCONT)
	s.stdin.Close()
	s.cmd.Wait()
}

func (s *server) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd.Process.Signal(sig)
}

func (s *server) stepClock(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.stdin, int64(by))
}

func (s *server) partition(m proxyMode) {
	for _, p := range s.proxies {
		p.set(m)
	}
}

type proxyMode int

const (
	passes   proxyMode = iota
	refuses            // closes connections, and takes none
	swallows           // as a cable that was pulled out; what was sent arrives when it is back in
	deaf               // only what etcd sends is held back: it does what it is asked
)

// proxy stands between a server and a member of etcd.
type proxy struct {
	listener net.Listener
	to       string

	mu      sync.Mutex
	changed *sync.Cond
	mode    proxyMode
	conns   map[net.Conn]struct{}
}

func newProxy(t testing.TB, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: l, to: to, conns: make(map[net.Conn]struct{})}
	p.changed = sync.NewCond(&p.mu)
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Add(1)
			go func() { defer wg.Done(); p.serve(c) }()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		p.set(refuses)
		wg.Wait()
	})
	return p
}

func (p *proxy) set(m proxyMode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = m
	if m == refuses {
		for c := range p.conns {
			c.Close()
		}
	}
	p.changed.Broadcast()
}

func (p *proxy) serve(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer far.Close()
	p.mu.Lock()
	if p.mode == refuses {
		p.mu.Unlock()
		return
	}
	p.conns[near], p.conns[far] = struct{}{}, struct{}{}
	p.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		p.copy(far, near, swallows, swallows)
		close(ended)
	}()
	p.copy(near, far, swallows, deaf)
	<-ended
	p.mu.Lock()
	delete(p.conns, near)
	delete(p.conns, far)
	p.mu.Unlock()
}

// copy passes on what comes while the mode is none of those two. It closes
// both in the end.
func (p *proxy) copy(to, from net.Conn, stop1, stop2 proxyMode) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.mode == stop1 || p.mode == stop2 {
			p.changed.Wait()
		}
		p.mu.Unlock()
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// simConn is a machine's socket. What it broadcasts reaches all servers that
// run, each in a datagram of its own.
type simConn struct {
	net.PacketConn
	site *site
}

func (c *simConn) WriteTo(b []byte, to net.Addr) (int, error) {
	for _, srv := range c.site.servers {
		if ip := to.(*net.UDPAddr).IP; ip.Equal(net.IPv4bcast) || ip.Equal(testServerID(srv.n).AsSlice()) {
			c.PacketConn.WriteTo(b, srv.addr.Load()) // nobody there is no error of the sender's
		}
	}
	return len(b), nil
}

func (c *simConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(b)
		if op, ok := err.(*net.OpError); ok && !op.Timeout() {
			continue // an ICMP answer of a port that nobody listens on
		}
		return n, from, err
	}
}

var everyServer = &net.UDPAddr{IP: net.IPv4bcast, Port: 67}

func (s *site) machine(hw net.HardwareAddr) (*dhcp.Client, func()) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		panic(err)
	}
	return &dhcp.Client{Conn: &simConn{PacketConn: conn, site: s}, Server: everyServer, HardwareAddr: hw, Retry: 400 * time.Millisecond}, func() { conn.Close() }
}

// settled waits until all servers answer.
func (s *site) settled(ctx context.Context) error {
	for i, srv := range s.servers {
		c, end := s.machine(net.HardwareAddr{2, 0xff, 0, 0, 0, byte(i)})
		c.Server = &net.UDPAddr{IP: testServerID(srv.n).AsSlice(), Port: 67}
		ack, err := c.Exchange(ctx)
		if err == nil {
			c.Release(ack)
		}
		end()
		if err != nil {
			return fmt.Errorf("server %d: %w", srv.n, err)
		}
	}
	return nil
}
