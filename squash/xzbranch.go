package squash

import (
	"encoding/binary"
	"math/bits"
)

// mksquashfs -Xbcj makes absolute addresses of the relative ones in calls and
// jumps, which then repeat and compress better. Each block of data is such a
// program by itself, which begins at address 0 (the .xz file format 1.2.1,
// 5.3.2).

// branchFilter returns what undoes a filter of that number, nil if it is not
// known.
func branchFilter(id byte) func([]byte) {
	switch id {
	case 4:
		return x86Branches
	case 5:
		return powerpcBranches
	case 7:
		return armBranches
	case 8:
		return thumbBranches
	}
	return nil
}

// x86Branches changes the operands of CALL and JMP (0xe8, 0xe9), of those whose
// last byte says that it is an address: 0x00 or 0xff. An opcode that stands in what
// may be another one's operand is left alone when that looks like an address.
func x86Branches(p []byte) {
	address := func(b byte) bool { return b == 0x00 || b == 0xff }
	left := uint(0) // opcodes left alone one, two and three bytes before, in bits 0 to 2
	for i := 0; i+4 < len(p); i++ {
		if p[i]&0xfe != 0xe8 {
			left = left << 1 & 7
			continue
		}
		back := bits.Len(left)
		if bits.OnesCount(left) > 1 || back > 0 && address(p[i+4-back]) || !address(p[i+4]) {
			left = left<<1&7 | 1
			continue
		}
		operand := p[i+1 : i+5]
		to := binary.LittleEndian.Uint32(operand)
		for {
			to -= uint32(i + 5)
			if back == 0 || !address(byte(to>>(24-8*back))) {
				break
			}
			to ^= 1<<(32-8*back) - 1
		}
		// 25 bits with a sign.
		binary.LittleEndian.PutUint32(operand, uint32(int32(to<<7)>>7))
		i += 4
		left = 0
	}
}

// armBranches changes BL, whose operand counts words from eight bytes on.
func armBranches(p []byte) {
	for i := 0; i+4 <= len(p); i += 4 {
		if p[i+3] == 0xeb {
			word := binary.LittleEndian.Uint32(p[i:])
			to := word - uint32(i+8)/4
			binary.LittleEndian.PutUint32(p[i:], word&0xff000000|to&0xffffff)
		}
	}
}

// thumbBranches changes BL in its two halves of eleven bits, counted in
// halfwords from four bytes on.
func thumbBranches(p []byte) {
	le := binary.LittleEndian
	for i := 0; i+4 <= len(p); i += 2 {
		high, low := le.Uint16(p[i:]), le.Uint16(p[i+2:])
		if high>>11 != 0x1e || low>>11 != 0x1f {
			continue
		}
		to := uint32(high&0x7ff)<<11 | uint32(low&0x7ff)
		to -= uint32(i+4) / 2
		le.PutUint16(p[i:], 0xf000|uint16(to>>11)&0x7ff)
		le.PutUint16(p[i+2:], 0xf800|uint16(to)&0x7ff)
		i += 2
	}
}

// powerpcBranches changes BL with a relative address.
func powerpcBranches(p []byte) {
	const address = 0x03fffffc
	for i := 0; i+4 <= len(p); i += 4 {
		word := binary.BigEndian.Uint32(p[i:])
		if word&^address == 0x48000001 {
			binary.BigEndian.PutUint32(p[i:], 0x48000001|(word-uint32(i))&address)
		}
	}
}
