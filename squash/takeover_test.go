package squash

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Only what lies between the superblock and the end is copied unread.
func TestCopiesStayInTheBase(t *testing.T) {
	x := &base{f: &FS{sb: superblock{Used: 10_000}}}
	for start, want := range map[int64]bool{-1: false, superSize - 1: false, superSize: true, 9_000: true, 9_001: false, 1 << 40: false} {
		b := &block{ino: &inode{}, n: 1_000, hint: hint{start, 1_000 | rawBlock}}
		require.Equal(t, want, x.copies(b), start)
		b.n, b.hint.word = 2_000, 1_000
		require.Equal(t, want, x.copies(b), start)
	}
}
