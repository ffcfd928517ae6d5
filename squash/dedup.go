package squash

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// Equal content is stored once: the blocks of two files when all of them are
// equal, for the format wants a file's blocks side by side, and the tails in
// the fragments. Equal SHA-256 sums are taken for equal content.

// hashes collects what identifies a file's blocks.
type hashes struct{ h hash.Hash }

func (x *hashes) add(sum [sha256.Size]byte, word uint32) {
	if x.h == nil {
		x.h = sha256.New()
	}
	_, _ = x.h.Write(sum[:])
	_, _ = x.h.Write(binary.LittleEndian.AppendUint32(nil, word))
}

// runs finds files by their blocks.
type runs map[[sha256.Size]byte]*inode

// find returns an earlier file with the same blocks, or takes this one in.
func (r *runs) find(ino *inode) *inode {
	if *r == nil {
		*r = make(runs)
	}
	var key [sha256.Size]byte
	ino.hash.h.Sum(key[:0])
	if same := (*r)[key]; same != nil {
		return same
	}
	(*r)[key] = ino
	return nil
}
