package squash

import (
	"encoding/binary"
	"fmt"
)

// The on-disk constants of SquashFS 4.0. Everything is little endian.
const (
	superMagic = 0x73717368
	superSize  = 96
	metaSize   = 8192 // bytes in each piece of a metadata table but the last
	padTo      = 4096

	minBlock     = 4 << 10
	maxBlock     = 1 << 20
	defaultBlock = 128 << 10

	none32 = 0xffffffff
	none64 = 0xffffffffffffffff

	rawMeta  = 1 << 15 // in a piece's header: stored as it is
	rawBlock = 1 << 24 // in a block's word: stored as it is

	maxName   = 255
	maxPath   = 4096 // as Linux; it bounds the depth of hostile trees, too
	maxTarget = 4095 // the kernel cuts a symbolic link of 4,096 bytes
	maxIDs    = 65535
	maxMajor  = 1<<12 - 1
	maxMinor  = 1<<20 - 1
	maxRun    = 256 // entries under one header of a directory listing

	fragmentEntry = 16
)

// Superblock flags.
const (
	flagPlainData       = 0x002 // nothing but metadata is compressed
	flagPlainFragments  = 0x008
	flagNoFragments     = 0x010
	flagAlwaysFragments = 0x020
	flagDuplicates      = 0x040
	flagExport          = 0x080
	flagNoXattrs        = 0x200
	flagOptions         = 0x400
)

// Compressor ids.
const (
	compGzip = 1
	compLZMA = 2
	compLZO  = 3
	compXZ   = 4
	compLZ4  = 5
	compZstd = 6
)

func compressorName(id uint16) string {
	switch id {
	case compGzip:
		return "gzip"
	case compLZMA:
		return "lzma"
	case compLZO:
		return "lzo"
	case compXZ:
		return "xz"
	case compLZ4:
		return "lz4"
	case compZstd:
		return "zstd"
	}
	return fmt.Sprintf("compressor %d", id)
}

// Inode types; the extended form of each is seven higher.
const (
	kindDir     = 1
	kindFile    = 2
	kindSymlink = 3
	kindBlock   = 4
	kindChar    = 5
	kindFIFO    = 6
	kindSocket  = 7
	extended    = 7
)

// superblock is the image's first 96 bytes, field by field.
type superblock struct {
	Magic       uint32
	Inodes      uint32
	Time        uint32
	BlockSize   uint32
	Fragments   uint32
	Compressor  uint16
	BlockLog    uint16
	Flags       uint16
	IDs         uint16
	Major       uint16
	Minor       uint16
	Root        uint64
	Used        uint64
	IDStart     uint64
	XattrStart  uint64
	InodeStart  uint64
	DirStart    uint64
	FragStart   uint64
	ExportStart uint64
}

func (sb *superblock) encode() []byte {
	// Cannot fail: the struct has a fixed size.
	b, _ := binary.Append(make([]byte, 0, superSize), binary.LittleEndian, sb)
	return b
}

func (sb *superblock) decode(b []byte) {
	_, _ = binary.Decode(b, binary.LittleEndian, sb)
}

// encodeDevice packs device numbers as Linux does in 32 bits.
func encodeDevice(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | (minor&^0xff)<<12
}

func decodeDevice(d uint32) (major, minor uint32) {
	return d >> 8 & 0xfff, d&0xff | d>>12&0xfff00
}
