//go:build linux

package main

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lab is two network namespaces, one for the server and one for the clients.
// The kernel may lack netem, so that the link between them is this program: two
// TUN devices of MTU 1500, with delay and loss.
type lab struct {
	server, client string
	link           *link
}

const (
	serverAddr = "10.99.0.1"
	clientAddr = "10.99.0.2"
)

func newLab() (*lab, error) {
	runtime.GOMAXPROCS(16) // the link's threads sleep in system calls
	l := &lab{server: fmt.Sprintf("bts%d", os.Getpid()), client: fmt.Sprintf("btc%d", os.Getpid())}
	for _, ns := range []string{l.server, l.client} {
		if err := ip("netns", "add", ns); err != nil {
			return nil, err
		}
		if err := ip("-n", ns, "link", "set", "lo", "up"); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *lab) close() {
	l.setLink(0, 0)
	_ = ip("netns", "del", l.server)
	_ = ip("netns", "del", l.client)
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}

// setLink makes a link with that delay one way, and that share of packets lost
// in either direction. No delay: no link.
func (l *lab) setLink(oneWay time.Duration, loss float64) error {
	if l.link != nil {
		l.link.close()
		l.link = nil
	}
	if oneWay == 0 {
		return nil
	}
	k := &link{}
	for i, ns := range []string{l.server, l.client} {
		f, err := tun(ns)
		if err != nil {
			return err
		}
		k.ends[i] = f
		addr, peer := serverAddr, clientAddr
		if i == 1 {
			addr, peer = peer, addr
		}
		if err := ip("-n", ns, "addr", "add", addr, "peer", peer, "dev", "bt0"); err != nil {
			return err
		}
		if err := ip("-n", ns, "link", "set", "bt0", "up", "txqueuelen", "10000"); err != nil {
			return err
		}
	}
	for i := range k.ends {
		k.running.Go(func() { k.carry(k.ends[i], k.ends[1-i], oneWay, loss, uint64(i)) }) // ends with close
	}
	l.link = k
	return nil
}

// tun makes a device in a network namespace.
func tun(ns string) (f *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		var fd, nsfd int
		if nsfd, err = unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(nsfd)
		if err = unix.Setns(nsfd, unix.CLONE_NEWNET); err != nil {
			return
		}
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return
		}
		var req [40]byte
		copy(req[:], "bt0")
		*(*uint16)(unsafe.Pointer(&req[unix.IFNAMSIZ])) = unix.IFF_TUN | unix.IFF_NO_PI
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req))); errno != 0 {
			unix.Close(fd)
			err = errno
			return
		}
		f = os.NewFile(uintptr(fd), "tun")
	}()
	<-done
	return f, err
}

type link struct {
	ends    [2]*os.File
	running sync.WaitGroup
}

func (k *link) close() {
	for _, f := range k.ends {
		f.Close()
	}
	k.running.Wait()
}

type parcel struct {
	due time.Time
	n   int // keeps the order of those that are due together
	b   []byte
}

type parcels []parcel

func (p parcels) Len() int { return len(p) }
func (p parcels) Less(i, j int) bool {
	return p[i].due.Before(p[j].due) || p[i].due.Equal(p[j].due) && p[i].n < p[j].n
}
func (p parcels) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *parcels) Push(x any)   { *p = append(*p, x.(parcel)) }
func (p *parcels) Pop() any {
	old := *p
	x := old[len(old)-1]
	*p = old[:len(old)-1]
	return x
}

// carry is one direction of the link.
func (k *link) carry(from, to *os.File, delay time.Duration, loss float64, seed uint64) {
	rng := rand.New(rand.NewPCG(7, seed))
	var mu sync.Mutex
	var waiting parcels
	more := make(chan struct{}, 1)
	var sender sync.WaitGroup
	sender.Go(func() { // ends when more is closed
		for range more {
			for {
				mu.Lock()
				if len(waiting) == 0 {
					mu.Unlock()
					break
				}
				wait := time.Until(waiting[0].due)
				if wait > 0 {
					mu.Unlock()
					ts := unix.NsecToTimespec(int64(wait)) // finer than the runtime's timers
					_ = unix.Nanosleep(&ts, nil)
					continue
				}
				p := heap.Pop(&waiting).(parcel)
				mu.Unlock()
				_, _ = to.Write(p.b)
			}
		}
	})
	buf := make([]byte, 65536)
	for n := 0; ; n++ {
		size, err := from.Read(buf)
		if err != nil {
			close(more)
			sender.Wait()
			return
		}
		if rng.Float64() < loss {
			continue
		}
		mu.Lock()
		heap.Push(&waiting, parcel{time.Now().Add(delay), n, append([]byte(nil), buf[:size]...)})
		mu.Unlock()
		select {
		case more <- struct{}{}:
		default:
		}
	}
}
