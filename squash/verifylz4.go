package squash

// lz4Block wants the end that lz4_Block_format.md has for a block, which Linux's
// decoder and most others rely on and refuse blocks without: only literals in
// the last sequence, five of them or more, and no copy that begins in the last
// twelve bytes. (Linux reads some blocks without it, by a shortcut for copies
// that are short and far.)
func lz4Block(b []byte, off int64) error {
	short := badFormat(off, "an lz4 block that is cut short")
	size, copied := 0, -1 // bytes so far, where the last copy begins
	for at := 0; at < len(b); {
		token := b[at]
		at++
		length := func(n int) int {
			for more := byte(255); n >= 15 && more == 255 && at < len(b); at++ {
				more = b[at]
				n += int(more)
			}
			return n
		}
		literals := length(int(token >> 4))
		if literals > len(b)-at {
			return short
		}
		at += literals
		size += literals
		if at == len(b) {
			switch {
			case copied < 0 || literals >= lz4LastBytes && copied <= size-lz4LastCopy:
				return nil
			case literals < lz4LastBytes:
				return badFormat(off, "an lz4 block that ends with %d literals after a copy, where %d belong: Linux refuses most of these", literals, lz4LastBytes)
			}
			return badFormat(off, "an lz4 block whose last copy begins %d bytes before the end, which must be %d: Linux refuses most of these", size-copied, lz4LastCopy)
		}
		if at += 2; at > len(b) { // how far back
			return short
		}
		copied = size
		size += lz4MinMatch + length(int(token&15))
	}
	return badFormat(off, "an lz4 block that ends with a copy: Linux refuses it")
}
