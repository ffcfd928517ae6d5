package squash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
)

// The name spaces that the format has numbers for. system. (POSIX ACLs) has
// none.
var xattrPrefixes = [...]string{"user.", "trusted.", "security."}

const (
	xattrOutOfLine = 0x100
	maxXattrValue  = 64 << 10 // as Linux
	maxXattrName   = 255
	maxXattrBytes  = 1 << 20   // names and values of one file
	maxXattrTable  = 256 << 20 // those of a tree, equal sets counted once
	// A value at least this long that occurs again is stored once: the
	// reference to it takes 12 bytes.
	sharedXattr = 24
)

// xattrWriter collects the different sets of attributes of a tree.
type xattrWriter struct {
	sets   map[string]uint32
	list   [][]byte // encoded sets: count, then type, name length, name, value length, value
	pairs  []uint32
	values map[string]int // how often a long value occurs
	bytes  int            // of list
}

// add returns the index of a set of attributes, and the names of those that
// the format has no place for.
func (x *xattrWriter) add(attrs map[string][]byte) (set uint32, dropped []string, err error) {
	le := binary.LittleEndian
	var b []byte
	var pairs uint32
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		kind := slices.IndexFunc(xattrPrefixes[:], func(p string) bool { return strings.HasPrefix(name, p) })
		if kind < 0 || name == xattrPrefixes[kind] {
			dropped = append(dropped, name)
			continue
		}
		value := attrs[name]
		if len(name) > maxXattrName || len(value) > maxXattrValue || strings.IndexByte(name, 0) >= 0 {
			return 0, nil, fmt.Errorf("the extended attribute %.40q has a name of %d bytes and a value of %d; Linux allows %d and %d: %w",
				name, len(name), len(value), maxXattrName, maxXattrValue, syscall.E2BIG)
		}
		short := name[len(xattrPrefixes[kind]):]
		b = le.AppendUint16(b, uint16(kind))
		b = le.AppendUint16(b, uint16(len(short)))
		b = append(b, short...)
		b = le.AppendUint32(b, uint32(len(value)))
		b = append(b, value...)
		pairs++
	}
	if len(b) > maxXattrBytes {
		return 0, nil, fmt.Errorf("the extended attributes have %d bytes together, at most %d are read again: %w", len(b), maxXattrBytes, syscall.E2BIG)
	}
	if pairs == 0 {
		return none32, dropped, nil
	}
	if i, ok := x.sets[string(b)]; ok {
		return i, dropped, nil
	}
	if x.sets == nil {
		x.sets, x.values = make(map[string]uint32), make(map[string]int)
	}
	if x.bytes += len(b); x.bytes > maxXattrTable {
		return 0, nil, fmt.Errorf("the tree has more than %d MiB of extended attributes that differ: %w", maxXattrTable>>20, syscall.E2BIG)
	}
	set = uint32(len(x.list))
	x.sets[string(b)] = set
	x.list, x.pairs = append(x.list, b), append(x.pairs, pairs)
	for _, v := range eachXattr(b) {
		if len(v) >= sharedXattr {
			x.values[string(v)]++
		}
	}
	return set, dropped, nil
}

// eachXattr iterates over an encoded set: the head of each pair, its value.
func eachXattr(b []byte) func(func(head, value []byte) bool) {
	return func(yield func(head, value []byte) bool) {
		for len(b) > 0 {
			n := 4 + int(binary.LittleEndian.Uint16(b[2:]))
			size := int(binary.LittleEndian.Uint32(b[n:]))
			if !yield(b[:n], b[n+4:n+4+size]) {
				return
			}
			b = b[n+4+size:]
		}
	}
}

// tables renders what the image holds: the pairs, then the sets' table, for
// which the superblock's field is start. off is where the pairs begin.
func (x *xattrWriter) tables(enc Encoder, off int64) (out []byte, start int64, err error) {
	le := binary.LittleEndian
	kv := metaWriter{enc: enc}
	var ids []byte
	at := make(map[string]uint64) // where a shared value lies
	for i, set := range x.list {
		ref, size := kv.pos(), uint32(0)
		for head, value := range eachXattr(set) {
			// Readers of listxattr want the size that it would fill.
			kind := le.Uint16(head)
			size += uint32(len(xattrPrefixes[kind])+len(head)-4+1) + uint32(len(value))
			where, again := at[string(value)]
			if again {
				h := bytes.Clone(head)
				le.PutUint16(h, kind|xattrOutOfLine)
				kv.write(h)
				kv.write(le.AppendUint64(le.AppendUint32(nil, 8), where))
				continue
			}
			kv.write(head)
			if x.values[string(value)] > 1 {
				at[string(value)] = kv.pos()
			}
			kv.write(le.AppendUint32(nil, uint32(len(value))))
			kv.write(value)
		}
		ids = le.AppendUint64(ids, ref)
		ids = le.AppendUint32(ids, x.pairs[i])
		ids = le.AppendUint32(ids, size)
	}
	kv.flush()
	if kv.err != nil {
		return nil, 0, kv.err
	}
	out = kv.out
	table, list, err := lookupPieces(enc, ids, off+int64(len(out)))
	if err != nil {
		return nil, 0, err
	}
	out = append(out, table...)
	start = off + int64(len(out))
	out = le.AppendUint64(out, uint64(off))
	out = le.AppendUint32(out, uint32(len(x.list)))
	out = le.AppendUint32(out, 0)
	return append(out, list...), start, nil
}
