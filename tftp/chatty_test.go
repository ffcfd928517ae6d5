package tftp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// EDK2 acknowledges every block that it did not expect, with the number of the
// last one it has: repetitions must not cause repetitions for ever.
func TestClockOfAChattyClient(t *testing.T) {
	const blksize, blocks = 100, 2000
	for _, window := range []int{1, 2, 4, 16} {
		for _, delay := range []time.Duration{10 * time.Microsecond, 100 * time.Microsecond, 5 * time.Millisecond} { // of its work on a packet
			for _, every := range []int{1 << 30, 333, 50} { // one lost in so many
				t.Run(fmt.Sprintf("window %d, %v, 1 of %d lost", window, delay, every), func(t *testing.T) {
					file := content(blksize*blocks - 1)
					inBubble(t, &Server{Handler: static(file)}, func(t *testing.T, l *lab) {
						l.send(request(1, "x", "octet", "blksize", fmt.Sprint(blksize), "windowsize", fmt.Sprint(window)))
						require.Equal(t, []int{-opOACK}, l.sent())
						l.send(ackPacket(0))
						var got []byte
						expected, acked, sent := 1, 0, 0
						for expected <= blocks {
							p := <-l.conn.sent
							require.EqualValues(t, opDATA, binary.BigEndian.Uint16(p.b))
							if sent++; sent%every == every/2 {
								continue
							}
							time.Sleep(delay)
							if block := int(binary.BigEndian.Uint16(p.b[2:])); block == expected {
								got = append(got, p.b[4:]...)
								if expected++; block-acked != window && block != blocks {
									continue
								}
							}
							acked = expected - 1
							l.send(ackPacket(uint16(acked)))
						}
						require.True(t, bytes.Equal(file, got))
						require.NoError(t, l.res.next(t).Err)
						if most := blocks + blocks/4 + 3*window*(blocks/every); sent > most {
							t.Errorf("%d datagrams, more than %d", sent, most)
						}
					})
				})
			}
		}
	}
}
