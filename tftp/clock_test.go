package tftp

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// mem is a conn in memory, for tests with a clock of their own. What the server
// sends comes out of sent.
type mem struct {
	in   chan memPacket
	sent chan memPacket
	down chan struct{}
	once sync.Once
}

type memPacket struct {
	b  []byte
	at *net.UDPAddr
}

func newMem() *mem {
	return &mem{in: make(chan memPacket), sent: make(chan memPacket, 10000), down: make(chan struct{})}
}

func (m *mem) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-m.in:
		return copy(b, p.b), p.at, nil
	case <-m.down:
		return 0, nil, net.ErrClosed
	}
}

func (m *mem) WriteTo(b []byte, to net.Addr) (int, error) {
	m.sent <- memPacket{bytes.Clone(b), to.(*net.UDPAddr)}
	return len(b), nil
}

func (m *mem) Close() error                     { m.once.Do(func() { close(m.down) }); return nil }
func (m *mem) LocalAddr() net.Addr              { return &net.UDPAddr{Port: 69} }
func (m *mem) SetDeadline(time.Time) error      { return nil }
func (m *mem) SetReadDeadline(time.Time) error  { return nil }
func (m *mem) SetWriteDeadline(time.Time) error { return nil }

// lab is a server on a mem, in a bubble.
type lab struct {
	t    *testing.T
	conn *mem
	res  results
	port int
}

func inBubble(t *testing.T, s *Server, run func(t *testing.T, l *lab)) {
	synctest.Test(t, func(t *testing.T) {
		l := &lab{t: t, conn: newMem(), port: 1024}
		s.Trace, s.Logger = l.res.trace(), discard()
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(l.conn) }()
		run(t, l)
		require.NoError(t, s.Close())
		require.NoError(t, s.Shutdown(t.Context()))
		require.ErrorIs(t, <-ended, ErrServerClosed)
	})
}

// send delivers a packet, and waits until the server has done with it.
func (l *lab) send(b []byte) {
	l.conn.in <- memPacket{b, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 7), Port: l.port}}
	synctest.Wait()
}

// sent is what has been sent since the last look: the opcode's numbers.
func (l *lab) sent() (blocks []int) {
	synctest.Wait()
	for {
		select {
		case p := <-l.conn.sent:
			if op := binary.BigEndian.Uint16(p.b); op != opDATA {
				blocks = append(blocks, -int(op))
				continue
			}
			blocks = append(blocks, int(binary.BigEndian.Uint16(p.b[2:])))
		default:
			return blocks
		}
	}
}

func (l *lab) after(d time.Duration) []int {
	time.Sleep(d)
	return l.sent()
}

func TestClockOfAClientThatNeverAnswers(t *testing.T) {
	for _, opts := range [][]string{nil, {"windowsize", "64"}} {
		first := 1
		if opts != nil {
			first = -opOACK
		}
		inBubble(t, &Server{Handler: static(content(100_000))}, func(t *testing.T, l *lab) {
			l.send(request(1, "x", "octet", opts...))
			require.Equal(t, []int{first}, l.sent())
			require.Empty(t, l.after(249*time.Millisecond))
			require.Equal(t, []int{first}, l.after(time.Millisecond))
			require.Empty(t, l.after(499*time.Millisecond))
			require.Equal(t, []int{first}, l.after(time.Millisecond))
			require.Empty(t, l.after(time.Hour))
			r := l.res.next(t)
			require.ErrorIs(t, r.Err, os.ErrDeadlineExceeded)
			require.Equal(t, 1750*time.Millisecond, r.Duration)
		})
	}
}

// The wait follows the round trip time, and doubles.
func TestClockOfRepetitions(t *testing.T) {
	inBubble(t, &Server{Handler: static(content(100_000)), Retries: 2}, func(t *testing.T, l *lab) {
		l.send(request(1, "x", "octet"))
		require.Equal(t, []int{1}, l.sent())
		for b := uint16(1); b <= 30; b++ { // 10 ms each
			time.Sleep(10 * time.Millisecond)
			l.send(ackPacket(b))
			require.Equal(t, []int{int(b) + 1}, l.sent())
		}
		require.Empty(t, l.after(19*time.Millisecond))
		require.Equal(t, []int{31}, l.after(time.Millisecond))
		require.Empty(t, l.after(39*time.Millisecond))
		require.Equal(t, []int{31}, l.after(time.Millisecond))
		l.send(ackPacket(31)) // it is back, and the wait too
		require.Equal(t, []int{32}, l.sent())
		require.Equal(t, []int{32}, l.after(21*time.Millisecond))
		n := len(l.after(time.Hour))
		require.Equal(t, 7, n, "40, 80, 160, 320, 640 ms, and two that count")
		r := l.res.next(t)
		require.ErrorIs(t, r.Err, os.ErrDeadlineExceeded)
		require.Equal(t, 10*time.Millisecond, r.RTT)
	})
}

// Sorcerer's Apprentice: repeated acknowledgements do not multiply the traffic.
func TestClockOfRepeatedAcknowledgements(t *testing.T) {
	inBubble(t, &Server{Handler: static(content(100_000))}, func(t *testing.T, l *lab) {
		l.send(request(1, "x", "octet", "windowsize", "4"))
		time.Sleep(10 * time.Millisecond)
		l.send(ackPacket(0))
		require.Equal(t, []int{-opOACK, 1, 2, 3, 4}, l.sent())
		time.Sleep(10 * time.Millisecond)
		for range 5 {
			l.send(ackPacket(4))
		}
		require.Equal(t, []int{5, 6, 7, 8}, l.sent(), "once")
		time.Sleep(10 * time.Millisecond) // 5 is lost: the client says so with each block that it gets
		for range 3 {
			l.send(ackPacket(4))
		}
		require.Equal(t, []int{5, 6, 7, 8}, l.sent(), "at once, and once")
		for range 5 { // late copies
			l.send(ackPacket(2))
			l.send(ackPacket(0))
		}
		require.Empty(t, l.sent())
	})
	inBubble(t, &Server{Handler: static(content(100_000))}, func(t *testing.T, l *lab) {
		l.send(request(1, "x", "octet"))
		for b := uint16(1); b <= 5; b++ {
			time.Sleep(10 * time.Millisecond)
			l.send(ackPacket(b))
			l.send(ackPacket(b))
			time.Sleep(5 * time.Millisecond)
			l.send(ackPacket(b))
		}
		require.Equal(t, []int{1, 2, 3, 4, 5, 6}, l.sent())
	})
}

// The client's own time (RFC 2349) bounds the wait.
func TestClockOfTheTimeoutOption(t *testing.T) {
	inBubble(t, &Server{Handler: static(content(100_000)), Retries: -1}, func(t *testing.T, l *lab) {
		l.send(request(1, "x", "octet", "timeout", "7"))
		l.send(ackPacket(0))
		require.Equal(t, []int{-opOACK, 1}, l.sent())
		require.Empty(t, l.after(time.Hour), "never again")
		r := l.res.next(t)
		require.Equal(t, 7*time.Second, r.Timeout)
		require.Equal(t, 7*time.Second, r.Duration)
	})
	inBubble(t, &Server{Handler: static(content(100_000)), Retries: 3}, func(t *testing.T, l *lab) {
		l.send(request(1, "x", "octet", "timeout", "60"))
		l.send(ackPacket(0))
		time.Sleep(time.Hour)
		d := l.res.next(t).Duration
		require.Greater(t, d, 4*60*time.Second, "three repetitions after 60 s each, and a last wait")
		require.Less(t, d, 6*60*time.Second, "it does not grow beyond that")
	})
}

func TestClockOfRates(t *testing.T) {
	for _, s := range []*Server{{MaxRate: 100_000}, {MaxRatePerPeer: 100_000}} {
		s.Handler = static(content(100_000))
		inBubble(t, s, func(t *testing.T, l *lab) {
			begun := time.Now()
			l.send(request(1, "x", "octet", "blksize", "1000", "windowsize", "4"))
			require.Equal(t, []int{-opOACK}, l.sent())
			for b := 0; b <= 100; b += 4 {
				l.send(ackPacket(uint16(b)))
				for want := min(b+4, 101); b < 100; {
					got := l.after(time.Millisecond)
					if len(got) > 0 && got[len(got)-1] == want {
						break
					}
				}
			}
			require.InDelta(t, 0.95, time.Since(begun).Seconds(), 0.05, "a second's worth, less the burst")
		})
	}
}

// A transfer of another client's is not disturbed, and a client that begins
// again has given up its first one.
func TestClockOfAnotherRequestFromThePort(t *testing.T) {
	inBubble(t, &Server{Handler: static(content(100_000))}, func(t *testing.T, l *lab) {
		l.send(request(1, "x", "octet"))
		l.send(request(1, "x", "octet"))
		require.Equal(t, []int{1}, l.sent(), "repeated")
		l.send(request(1, "y", "octet"))
		require.Equal(t, []int{1}, l.sent())
		require.Equal(t, "x", l.res.next(t).Name)
		l.send(ackPacket(1))
		require.Equal(t, []int{2}, l.sent())
		l.send((&Error{0, "enough"}).encode())
		require.Equal(t, "y", l.res.next(t).Name)
		l.send(ackPacket(2))
		require.Empty(t, l.after(time.Minute))
	})
}

// A request that the network delivers again changes nothing while its client gets
// on, whether with the first packet or later. A machine that was reset is silent
// for a while, and begins again.
func TestClockOfALateCopy(t *testing.T) {
	for _, opts := range [][]string{nil, {"windowsize", "4"}} {
		inBubble(t, &Server{Handler: static(content(100_000))}, func(t *testing.T, l *lab) {
			req := request(1, "x", "octet", opts...)
			l.send(req)
			first := l.sent()
			last := 1
			if opts != nil {
				l.send(ackPacket(0))
				last = len(l.sent())
			}
			for range 20 {
				time.Sleep(400 * time.Millisecond)
				l.send(ackPacket(uint16(last)))
				sent := l.sent()
				require.NotEmpty(t, sent)
				last = sent[len(sent)-1]
				l.send(req)
				require.Empty(t, l.sent())
				require.ErrorIs(t, receive(t, l.res.refused), ErrDuplicate)
			}
			l.after(2 * defaultTimeout)
			l.send(req)
			require.Equal(t, first, l.sent())
			require.ErrorIs(t, l.res.next(t).Err, errGone)
		})
	}
}

// A copy of a request to write does not throw away what has come.
func TestClockOfALateCopyOfAnUpload(t *testing.T) {
	inBubble(t, &Server{Handler: &memUploads{}}, func(t *testing.T, l *lab) {
		req := request(2, "x", "octet")
		l.send(req)
		l.send(data(1, content(512)))
		l.send(req)
		require.ErrorIs(t, receive(t, l.res.refused), ErrDuplicate)
		l.send(data(2, nil))
		r := l.res.next(t)
		require.NoError(t, r.Err)
		require.EqualValues(t, 512, r.Bytes)
	})
}

// More than 65535 windows of blocks: the numbers begin again.
func TestClockOfRollover(t *testing.T) {
	const size = 70_000*8 + 3
	file := content(size)
	inBubble(t, &Server{Handler: static(file)}, func(t *testing.T, l *lab) {
		l.send(request(1, "x", "octet", "blksize", "8", "windowsize", "64"))
		l.send(ackPacket(0))
		var got []byte
		last := 0
		for done := false; !done; {
			synctest.Wait()
			for len(l.conn.sent) > 0 {
				p := <-l.conn.sent
				if binary.BigEndian.Uint16(p.b) != opDATA {
					continue
				}
				last++
				require.Equal(t, uint16(last), binary.BigEndian.Uint16(p.b[2:]))
				got = append(got, p.b[4:]...)
				done = len(p.b) < 12
			}
			l.send(ackPacket(uint16(last)))
		}
		require.True(t, bytes.Equal(file, got))
		require.NoError(t, l.res.next(t).Err)
	})
}
