package squash

import "errors"

var errLZO = errors.New("damaged lzo data")

// lzoDecoder decodes LZO1X streams, which old images have. The instructions:
// literals and matches, whose low two bits say how many literals follow.
type lzoDecoder struct{}

func (lzoDecoder) decode(dst, src []byte, size int) ([]byte, error) {
	out := dst[:0]
	room := size
	i := 0
	take := func() (int, bool) {
		if i >= len(src) {
			return 0, false
		}
		i++
		return int(src[i-1]), true
	}
	// long reads a length that goes on in further bytes, zeros counting 255.
	long := func(n int) (int, bool) {
		for {
			b, ok := take()
			if !ok || n > room {
				return 0, false
			}
			if b != 0 {
				return n + b, true
			}
			n += 255
		}
	}
	literals := func(n int) error {
		if n > len(src)-i {
			return errLZO
		}
		if n > room-len(out) {
			return errTooLong
		}
		out = append(out, src[i:i+n]...)
		i += n
		return nil
	}
	match := func(dist, n int) error {
		if dist > len(out) || dist <= 0 {
			return errLZO
		}
		if n > room-len(out) {
			return errTooLong
		}
		for range n { // the two may overlap
			out = append(out, out[len(out)-dist])
		}
		return nil
	}

	state := 0 // literals before this instruction: 0, 1 to 3, or 4 for a long run
	if len(src) > 0 && src[0] > 17 {
		n := int(src[0]) - 17
		i = 1
		if err := literals(n); err != nil {
			return nil, err
		}
		state = min(n, 4)
	}
	for {
		op, ok := take()
		if !ok {
			return nil, errLZO
		}
		var dist, n, next int
		switch {
		case op < 16 && state == 0:
			n = op + 3
			if op == 0 {
				if n, ok = long(18); !ok {
					return nil, errLZO
				}
			}
			if err := literals(n); err != nil {
				return nil, err
			}
			state = 4
			continue
		case op < 16:
			b, ok := take()
			if !ok {
				return nil, errLZO
			}
			dist, n = b<<2+op>>2+1, 2
			if state == 4 {
				dist, n = dist+2048, 3
			}
			next = op & 3
		case op < 64:
			mask, base := 31, 1
			if op < 32 {
				mask, base = 7, 16384
			}
			n = op&mask + 2
			if op&mask == 0 {
				if n, ok = long(mask + 2); !ok {
					return nil, errLZO
				}
			}
			lo, ok1 := take()
			hi, ok2 := take()
			if !ok1 || !ok2 {
				return nil, errLZO
			}
			dist = (hi<<8|lo)>>2 + base
			if op < 32 {
				dist += op & 8 << 11
				if dist == 16384 { // the end
					if i != len(src) || n != 3 {
						return nil, errLZO
					}
					return out, nil
				}
			}
			next = lo & 3
		default:
			b, ok := take()
			if !ok {
				return nil, errLZO
			}
			if op < 128 {
				n = 3 + op>>5&1
			} else {
				n = 5 + op>>5&3
			}
			dist = b<<3 + op>>2&7 + 1
			next = op & 3
		}
		if err := match(dist, n); err != nil {
			return nil, err
		}
		if err := literals(next); err != nil {
			return nil, err
		}
		state = next
	}
}
