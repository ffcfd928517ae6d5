package tftp

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// window receives and acknowledges nothing.
func (w *wire) window(first uint16, n int) (data []byte) {
	w.t.Helper()
	for i := range n {
		op, block, b := w.recv()
		require.EqualValues(w.t, opDATA, op)
		require.Equal(w.t, first+uint16(i), block)
		data = append(data, b...)
	}
	return data
}

func modes(t *testing.T, run func(t *testing.T, one bool)) {
	for name, one := range map[string]bool{"own ports": false, "one port": true} {
		t.Run(name, func(t *testing.T) { run(t, one) })
	}
}

// What is lost inside a window is sent from there on, and once.
func TestLossInsideAWindow(t *testing.T) {
	modes(t, func(t *testing.T, one bool) {
		file := content(40 * 100)
		var res results
		addr := serve(t, &Server{Handler: static(file), Trace: res.trace(), OnePort: one})
		w := dial(t)
		w.send(addr, request(1, "x", "octet", "blksize", "100", "windowsize", "8"))
		op, _, _ := w.recv()
		require.EqualValues(t, opOACK, op)
		require.Equal(t, one, w.tid == addr)
		w.ack(0)
		w.window(1, 8)
		w.ack(3) // 4 is lost
		got := w.window(4, 8)
		require.True(t, bytes.Equal(file[300:1100], got))
		w.ack(11)
		w.window(12, 8)
		w.ack(19)
		for _, stale := range []uint16{3, 11, 18, 28, 60000} { // from the past and from nowhere
			w.ack(stale)
		}
		w.window(20, 8)
		w.ack(27)
		w.window(28, 8)
		w.ack(35)
		w.window(36, 6) // the last one is empty
		w.ack(41)
		r := res.next(t)
		require.NoError(t, r.Err)
		require.Equal(t, 5, r.Resent, "4 to 8, and nothing for the rest")
		require.EqualValues(t, len(file), r.Bytes)
	})
}

func TestOddBlockSizes(t *testing.T) {
	modes(t, func(t *testing.T, one bool) {
		for _, id := range []string{"", "same"} {
			file := content(70_000)
			addr := serve(t, &Server{OnePort: one, Handler: HandlerFunc(func(context.Context, *Request) (File, error) {
				return NewFile(bytes.NewReader(file), int64(len(file)), id), nil
			})})
			for _, blksize := range []int{8, 9, 511, 700, 1000, 1468, 8192, 35_000, 65464} {
				for _, window := range []int{1, 3, 16, 64} {
					var b bytes.Buffer
					_, err := Client{BlockSize: blksize, WindowSize: window}.Get(t.Context(), addr.String(), "x", &b)
					require.NoError(t, err)
					require.True(t, bytes.Equal(file, b.Bytes()), "%d %d", blksize, window)
				}
			}
		}
	})
}
