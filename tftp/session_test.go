package tftp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// FuzzSession sends what it likes on the port of a transfer, or waits.
func FuzzSession(f *testing.F) {
	f.Add(uint8(0), uint8(0), []byte{0, 4, 0, 0})
	f.Add(uint8(4), uint8(1), []byte{0, 4, 0, 0, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 2, 255, 255, 0, 9, 0, 4, 0, 8})
	f.Add(uint8(64), uint8(0), []byte{0, 4, 0, 0, 0, 4, 0, 63, 0, 4, 0, 63, 0, 4, 0, 63, 0, 5, 0, 0})
	f.Add(uint8(3), uint8(2), []byte{0, 3, 0, 1, 0, 3, 0, 1, 0, 3, 0, 3, 0, 4, 0, 0})
	f.Fuzz(func(t *testing.T, window, kind uint8, packets []byte) {
		root := memUploads{}
		inBubble(t, &Server{Handler: First(static(content(5000)), &root), MaxTransfersPerPeer: -1}, func(t *testing.T, l *lab) {
			op, mode := byte(opRRQ), "octet"
			if kind%4 > 1 {
				op = opWRQ
			}
			if kind%2 > 0 {
				mode = "netascii"
			}
			l.send(request(op, "x", mode, "blksize", "8", "windowsize", strconv.Itoa(int(window))))
			for sent := len(l.sent()); len(packets) >= 4; packets = packets[4:] {
				if packets[0] == 255 {
					time.Sleep(time.Duration(packets[3]) * time.Millisecond)
				} else {
					l.send(packets[:4+min(int(packets[1])%13, len(packets)-4)])
				}
				// Nothing makes more than a window and its repetitions, or a request
				// more than its answer.
				n := len(l.sent())
				require.LessOrEqual(t, n, 6*max(1, int(window)))
				sent += n
			}
		})
	})
}

// memUploads takes uploads and forgets them.
type memUploads struct{}

func (memUploads) OpenTFTP(context.Context, *Request) (File, error)       { return nil, nil }
func (u memUploads) CreateTFTP(context.Context, *Request) (Upload, error) { return u, nil }
func (memUploads) Write(p []byte) (int, error)                            { return len(p), nil }
func (memUploads) Commit() error                                          { return nil }
func (memUploads) Close() error                                           { return nil }

// Clients that begin again and again from the same ports neither stop the
// server nor each other.
func TestRestartingClients(t *testing.T) {
	modes(t, func(t *testing.T, one bool) {
		file := content(3000)
		addr := serve(t, &Server{Handler: static(file), OnePort: one, MaxTransfersPerPeer: -1, MaxTransfers: -1, Timeout: time.Millisecond})
		var clients sync.WaitGroup
		for range 16 {
			conn := dial(t).conn
			clients.Go(func() {
				buf := make([]byte, 600)
				for range 200 {
					_, _ = conn.WriteToUDPAddrPort(request(1, "x", "octet"), addr)
					_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
					_, tid, _ := conn.ReadFromUDPAddrPort(buf)
					_, _ = conn.WriteToUDPAddrPort(ackPacket(1), tid)
					_, _ = conn.WriteToUDPAddrPort(request(1, "x", "octet"), addr)
				}
			})
		}
		clients.Wait()
		b, err := get(t, addr, "x")
		require.NoError(t, err)
		require.True(t, bytes.Equal(file, b))
	})
}

// once fails one time, beyond its first bytes.
type once struct {
	io.ReaderAt
	failed atomic.Bool
}

func (o *once) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > 20_000 && !o.failed.Swap(true) {
		n, _ := o.ReaderAt.ReadAt(p[:len(p)/2], off)
		return n, errors.New("not now")
	}
	return o.ReaderAt.ReadAt(p, off)
}

// A client gets the file or an error: what was lost in reading must not be left
// out.
func TestReadErrorInNetascii(t *testing.T) {
	file := bytes.Repeat([]byte("0123456789abcde\n"), 4000)
	want := bytes.ReplaceAll(file, []byte("\n"), []byte("\r\n"))
	addr := serve(t, &Server{Handler: HandlerFunc(func(context.Context, *Request) (File, error) {
		return NewFile(&once{ReaderAt: bytes.NewReader(file)}, int64(len(file)), ""), nil
	})})
	w := dial(t)
	w.send(addr, request(1, "x", "netascii"))
	for got := 0; ; {
		op, n, data := w.recv()
		if op == opERROR {
			require.Equal(t, errRead.Message+"\x00", string(data))
			return
		}
		require.True(t, bytes.Equal(want[got:got+len(data)], data), "block %d", n)
		require.Len(t, data, 512, "it must not look complete")
		got += len(data)
		w.ack(n)
	}
}

// zeros is a file as large as one likes.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// Beyond 4 GiB, and beyond 65535 of the largest blocks.
func TestHugeFile(t *testing.T) {
	if testing.Short() {
		t.Skip("sends 4 GiB")
	}
	const size = int64(65464*65600 + 7)
	var res results
	addr := serve(t, &Server{Trace: res.trace(), Handler: HandlerFunc(func(context.Context, *Request) (File, error) {
		return NewFile(zeros{}, size, "zeros"), nil
	})})
	n, err := Client{BlockSize: 65464, WindowSize: 4}.Get(t.Context(), addr.String(), "x", io.Discard)
	require.NoError(t, err)
	require.EqualValues(t, size, n)
	r := res.next(t)
	require.NoError(t, r.Err)
	require.EqualValues(t, size, r.Bytes)
}
