//go:build unix

package etcdstore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var (
	flagExchanges = flag.Int64("exchanges", 8_000, "ACKs that TestFaults waits for")
	flagMachines  = flag.Int("machines", 200, "that ask in TestFaults; with 1000 two CPUs are busy")
	flagSeed      = flag.Uint64("seed", 1, "of the faults of TestFaults")
)

// TestFaults has machines come and go while three servers and their etcd are
// killed, stopped, cut off and given wrong clocks. Of any two machines that
// believe that they have an address one is wrong: that must not happen.
func TestFaults(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, [3]int{3, 5, 2}, 2**flagMachines)
	ready, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, s.settled(ready))

	w := &world{site: s, start: time.Now(), want: *flagExchanges}
	ctx, stop := context.WithCancel(t.Context())
	var people, trouble sync.WaitGroup
	trouble.Add(1)
	go func() { defer trouble.Done(); w.history(ctx, s.cluster.Client(t)) }()
	for i := range *flagMachines {
		people.Add(1)
		go func() { defer people.Done(); w.live(ctx, uint64(i)) }()
	}
	for _, cause := range w.causes() {
		trouble.Add(1)
		go func() { defer trouble.Done(); cause(ctx) }()
	}
	people.Wait()
	stop()
	trouble.Wait()

	took := time.Since(w.start)
	t.Logf("%d ACKs in %v (%.0f/s): %d NAKs (%d to who had a lease), %d unanswered, %d releases, %d declines, %d vanished; faults: %v",
		w.acks.Load(), took.Round(time.Second), float64(w.acks.Load())/took.Seconds(), w.naks.Load(), w.refused.Load(), w.silent.Load(),
		w.releases.Load(), w.declines.Load(), w.vanished.Load(), &w.faults)
	require.GreaterOrEqual(t, w.acks.Load(), w.want)
	if c := check(w.beliefs); c != nil {
		w.tell(c)
	}
	for _, m := range w.moves[:min(3, len(w.moves))] {
		t.Errorf("%s had %v of %v, and was given %v by %v", m.one.machine, m.one.addr, m.one.server, m.two.addr, m.two.server)
		w.around(m.two.from, m.one.addr, m.two.addr)
	}
	require.Empty(t, w.moves, "machines that had a lease were given another address")

	ready, cancel = context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, s.settled(ready), "all is well again, but not everybody answers")
}

// belief is that a machine has an address, from when it got the ACK until it
// gave it back, was refused it, or its time was over. Times are of this
// process's monotonic clock, since the start.
type belief struct {
	addr     netip.Addr
	machine  string
	from, to time.Duration
	server   netip.Addr // that told it
}

// check finds two machines that had an address at the same time. All it knows
// is what machines were told.
func check(all []belief) *conflict {
	slices.SortFunc(all, func(a, b belief) int { return int(a.from - b.from) })
	last := make(map[netip.Addr][]belief) // the longest of each machine so far
	for _, b := range all {
		known := false
		for i, o := range last[b.addr] {
			switch {
			case o.machine != b.machine && b.from < o.to:
				return &conflict{o, b}
			case o.machine == b.machine:
				known = true
				if b.to > o.to {
					last[b.addr][i] = b
				}
			}
		}
		if !known {
			last[b.addr] = append(slices.DeleteFunc(last[b.addr], func(o belief) bool { return o.to <= b.from }), b)
		}
	}
	return nil
}

// conflict is what must not be.
type conflict struct{ one, two belief }

func TestCheck(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	of := func(addr netip.Addr, machine string, from, to time.Duration) belief {
		return belief{addr: addr, machine: machine, from: from, to: to}
	}
	require.Nil(t, check([]belief{of(a, "x", 0, 10), of(a, "y", 10, 20), of(b, "y", 5, 9), of(a, "x", 3, 8), of(a, "z", 20, 30)}))
	require.NotNil(t, check([]belief{of(a, "x", 0, 10), of(a, "x", 2, 3), of(a, "y", 9, 20)}))
	require.NotNil(t, check([]belief{of(a, "y", 9, 20), of(a, "x", 0, 10)}))
}

// world is the machines, and what they believe.
type world struct {
	site  *site
	start time.Time
	want  int64

	acks, naks, refused, silent, releases, declines, vanished atomic.Int64
	faults                                                    tally

	mu      sync.Mutex
	beliefs []belief
	moves   []conflict // of one machine
	seen    []event
}

// history is what changes in etcd, until ctx ends.
func (w *world) history(ctx context.Context, client *clientv3.Client) {
	for resp := range client.Watch(ctx, "/chaos/", clientv3.WithPrefix()) {
		w.mu.Lock()
		for _, ev := range resp.Events {
			if !strings.HasPrefix(string(ev.Kv.Key), "/chaos/server/") {
				w.seen = append(w.seen, event{w.now(), string(ev.Kv.Key), fmt.Sprintf("%d %s", ev.Kv.ModRevision, ev.Kv.Value)})
			}
		}
		w.mu.Unlock()
	}
}

// event is a key of etcd's that changed, or with no key a fault.
type event struct {
	at        time.Duration
	key, what string
}

// tell fails the test with all that happened around the conflict.
func (w *world) tell(c *conflict) {
	w.site.t.Errorf("%v is %s's (%v) from %v to %v, and %s's (%v) from %v to %v", c.two.addr, c.one.machine, c.one.server, c.one.from, c.one.to,
		c.two.machine, c.two.server, c.two.from, c.two.to)
	w.around(c.two.from, c.two.addr)
}

// around logs what happened to the addresses at about that time.
func (w *world) around(at time.Duration, addrs ...netip.Addr) {
	t := w.site.t
	from, to := at-15*time.Second, at+time.Second
	of := func(key string) bool {
		return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return strings.HasSuffix(key, "/"+a.String()) })
	}
	terms := make(map[string]bool)
	for _, e := range w.seen {
		if of(e.key) && e.at > from && e.at < to {
			for _, f := range regexp.MustCompile(`"term":"([0-9a-f]+)"`).FindAllStringSubmatch(e.what, -1) {
				terms["/chaos/term/"+f[1]], terms["/chaos/open/"+f[1]] = true, true
			}
		}
	}
	for _, e := range w.seen {
		if terms[e.key] || e.at > from && e.at < to && (e.key == "" || of(e.key)) {
			t.Log(e.at, e.key, e.what)
		}
	}
	for _, b := range w.beliefs {
		if slices.Contains(addrs, b.addr) && b.to > from && b.from < to {
			t.Logf("belief %v to %v of %s by %v: %v", b.from, b.to, b.machine, b.server, b.addr)
		}
	}
}

func (w *world) fault(name string) {
	w.faults.add(strings.Fields(name)[0])
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, event{w.now(), "", name})
}

func (w *world) now() time.Duration { return time.Since(w.start) }

// machine is one of them with its present belief.
type machine struct {
	w      *world
	client *dhcp.Client
	belief belief
	ack    dhcp.Ack

	// declined are addresses that it found in use. A server that had stopped
	// may hear of that late, when the machine has the address again: it is
	// taken out of use then, with nobody having it twice.
	declined map[netip.Addr]bool
}

func (m *machine) holds() bool { return m.belief.addr.IsValid() && m.w.now() < m.belief.to }

// believe takes over what an ACK says.
func (m *machine) believe(ack dhcp.Ack) {
	now := m.w.now()
	// As careless clients do: from the ACK, not from the request.
	next := belief{ack.Addr.Addr(), m.client.HardwareAddr.String(), now, now + ack.LeaseTime, ack.ServerID}
	if m.holds() && m.belief.addr != next.addr && !m.declined[m.belief.addr] {
		m.w.mu.Lock()
		m.w.moves = append(m.w.moves, conflict{m.belief, next})
		m.w.mu.Unlock()
	}
	m.end(now)
	m.belief = next
	m.ack = ack
	m.w.acks.Add(1)
}

// end writes the belief down, as ended then if it was not before.
func (m *machine) end(at time.Duration) {
	if !m.belief.addr.IsValid() {
		return
	}
	m.belief.to = min(m.belief.to, at)
	m.w.mu.Lock()
	m.w.beliefs = append(m.w.beliefs, m.belief)
	m.w.mu.Unlock()
	m.belief = belief{}
}

// ask is one exchange of a machine, which gives up before the server's
// Timeout and the term's reserve are over.
func (m *machine) ask(ctx context.Context, how func(ctx context.Context) (dhcp.Ack, error)) bool {
	ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	ack, err := how(ctx)
	switch {
	case err == nil:
		m.believe(ack)
		return true
	case errors.Is(err, dhcp.ErrNak):
		m.w.naks.Add(1)
		if m.holds() && !m.declined[m.belief.addr] {
			m.w.refused.Add(1)
		}
		m.end(m.w.now())
	default:
		m.w.silent.Add(1)
	}
	return false
}

// live is a machine's life, and those of machines that come in its place.
func (w *world) live(ctx context.Context, seed uint64) {
	rnd := rand.New(rand.NewPCG(*flagSeed, seed))
	next := byte(0)
	newMachine := func() (*machine, func()) {
		next++
		c, end := w.site.machine(net.HardwareAddr{2, next, 0, byte(seed >> 16), byte(seed >> 8), byte(seed)})
		return &machine{w: w, client: c, declined: make(map[netip.Addr]bool)}, end
	}
	m, end := newMachine()
	defer func() { m.end(1 << 62); end() }()
	for ctx.Err() == nil && w.acks.Load() < w.want {
		had := m.ack.Addr.Addr()
		switch n := rnd.IntN(100); {
		case !m.holds() && (n < 70 || !had.IsValid()), m.holds() && n < 20: // the ROM, iPXE, ...
			m.ask(ctx, m.client.Exchange)
		case !m.holds(), n < 35:
			m.ask(ctx, func(ctx context.Context) (dhcp.Ack, error) { return m.client.Reboot(ctx, had) })
		case n < 70:
			renew := func(ctx context.Context) (dhcp.Ack, error) { return m.client.Renew(ctx, m.ack) }
			m.client.Server = &net.UDPAddr{IP: m.ack.ServerID.AsSlice(), Port: 67}
			ok := m.ask(ctx, renew)
			m.client.Server = everyServer
			if !ok && m.holds() {
				m.ask(ctx, renew) // REBINDING
			}
		case n < 90:
			m.end(w.now())
			m.client.Server = &net.UDPAddr{IP: m.ack.ServerID.AsSlice(), Port: 67}
			m.client.Release(m.ack)
			m.client.Server = everyServer
			w.releases.Add(1)
		case n < 92:
			m.end(w.now())
			m.client.Decline(m.ack)
			m.declined[had] = true
			w.declines.Add(1)
		case n < 95: // it runs on, but is not heard of any more
			m.end(1 << 62)
			end()
			m, end = newMachine()
			w.vanished.Add(1)
		case n < 97:
			sleep(ctx, m.belief.to-w.now())
		default:
			sleep(ctx, time.Duration(rnd.IntN(300))*time.Millisecond)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// causes are what makes the trouble, each for one server or member until ctx
// ends. They leave everything in order.
func (w *world) causes() []func(ctx context.Context) {
	var list []func(ctx context.Context)
	for i, srv := range w.site.servers {
		list = append(list, func(ctx context.Context) {
			rnd := rand.New(rand.NewPCG(*flagSeed, 1000+uint64(i)))
			for {
				sleep(ctx, time.Duration(200+rnd.IntN(1500))*time.Millisecond)
				if ctx.Err() != nil {
					return
				}
				d := time.Duration(50+rnd.IntN(1000)) * time.Millisecond
				if rnd.IntN(4) == 0 {
					d *= 3
				}
				switch n := rnd.IntN(6); n {
				case 0:
					w.fault(fmt.Sprint("kill ", srv.n))
					srv.kill()
					sleep(ctx, d/4)
					must(srv.start())
				case 1:
					w.fault(fmt.Sprint("restart ", srv.n))
					srv.close()
					must(srv.start())
				case 2:
					w.fault(fmt.Sprint("stop ", srv.n))
					srv.signal(syscall.SIGSTOP)
					if rnd.IntN(3) == 0 {
						d *= 4 // longer than leases and their terms
					}
					sleep(ctx, d)
					srv.signal(syscall.SIGCONT)
				case 3, 4:
					mode := proxyMode(1 + rnd.IntN(3))
					w.fault(fmt.Sprint([]string{"", "refuse ", "swallow ", "deafen "}[mode], srv.n))
					srv.partition(mode)
					sleep(ctx, d)
					srv.partition(passes)
				case 5:
					w.fault(fmt.Sprint("clock-step ", srv.n))
					srv.stepClock(time.Duration(rnd.Int64N(int64(20*365*24*time.Hour))) - 10*365*24*time.Hour)
				}
			}
		})
	}
	// etcd survives the loss of one member at a time.
	list = append(list, func(ctx context.Context) {
		rnd := rand.New(rand.NewPCG(*flagSeed, 2000))
		for {
			sleep(ctx, time.Duration(3000+rnd.IntN(6000))*time.Millisecond)
			if ctx.Err() != nil {
				return
			}
			m := w.site.cluster.Members[rnd.IntN(len(w.site.cluster.Members))]
			if rnd.IntN(2) == 0 {
				w.fault("etcd-kill " + m.URL)
				m.Kill()
				sleep(ctx, time.Second)
				must(m.Start())
			} else {
				w.fault("etcd-stop " + m.URL)
				m.Signal(syscall.SIGSTOP)
				sleep(ctx, time.Duration(500+rnd.IntN(2500))*time.Millisecond)
				m.Signal(syscall.SIGCONT)
			}
		}
	})
	return list
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// tally counts by name.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (t *tally) add(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = make(map[string]int)
	}
	t.n[name]++
}

func (t *tally) String() string { return fmt.Sprint(t.n) }
