//go:build linux

package main

import (
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
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	k := &link{stop: stop}
	for i, ns := range []string{l.server, l.client} {
		if k.ends[i], err = tun(ns); err != nil {
			return err
		}
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
func tun(ns string) (fd int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		var nsfd int
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
		}
	}()
	<-done
	return fd, err
}

// link carries packets between two devices, one thread for each direction, so
// that it takes as little as possible of the processors that are measured.
type link struct {
	ends    [2]int
	stop    int // an eventfd, readable at the end
	running sync.WaitGroup
}

func (k *link) close() {
	_, _ = unix.Write(k.stop, []byte{1, 0, 0, 0, 0, 0, 0, 1})
	k.running.Wait()
	for _, fd := range []int{k.ends[0], k.ends[1], k.stop} {
		unix.Close(fd)
	}
}

const (
	linkMTU   = 1500
	linkQueue = 1 << 14 // packets under way in one direction; those beyond are lost
)

// carry is one direction of the link. What was read together arrives together.
func (k *link) carry(from, to int, delay time.Duration, loss float64, seed uint64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	rng := rand.New(rand.NewPCG(7, seed))
	type packet struct {
		due time.Time
		n   int
		b   [linkMTU]byte
	}
	queue := make([]packet, linkQueue)
	first, end := 0, 0 // count on
	var scratch [linkMTU]byte
	fds := []unix.PollFd{{Fd: int32(from), Events: unix.POLLIN}, {Fd: int32(k.stop), Events: unix.POLLIN}}
	for {
		now := time.Now()
		for due := now.Add(delay); ; {
			into := scratch[:]
			if end-first < linkQueue {
				into = queue[end%linkQueue].b[:]
			}
			n, err := unix.Read(from, into)
			if err != nil || n <= 0 {
				break
			}
			if rng.Float64() >= loss && end-first < linkQueue {
				queue[end%linkQueue].due, queue[end%linkQueue].n = due, n
				end++
			}
		}
		now = time.Now()
		for ; first < end && !queue[first%linkQueue].due.After(now); first++ {
			p := &queue[first%linkQueue]
			_, _ = unix.Write(to, p.b[:p.n])
		}
		var wait *unix.Timespec
		if first < end {
			ts := unix.NsecToTimespec(int64(max(0, time.Until(queue[first%linkQueue].due))))
			wait = &ts
		}
		if _, err := unix.Ppoll(fds, wait, nil); err != nil && err != unix.EINTR || fds[1].Revents != 0 {
			return
		}
	}
}
