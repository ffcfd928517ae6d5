package squash

import (
	"io/fs"
	"time"
)

// Stat holds what SquashFS knows of a file beyond [fs.FileInfo].
//
// An image's FileInfo returns a *Stat from Sys. A file system for [FromFS]
// whose FileInfo does the same tells owners, device numbers, hard links and
// extended attributes that way; one whose Sys is something else (embed.FS, most fs.FS) gives files that
// belong to root (0:0) and are not linked, and may not hold device nodes.
type Stat struct {
	// Uid and Gid are the owner and the group.
	Uid, Gid uint32
	// Major and Minor are a device node's numbers: major below 4,096, minor
	// below 1,048,576.
	Major, Minor uint32
	// Nlink counts the names of the file. For [Build] a value above 1 says
	// that other names with the same Dev and Ino are the same file; the count
	// in the image is that of the names found.
	Nlink uint32
	// Ino is the inode number, unique within Dev.
	Ino uint64
	// Dev tells file systems apart when one source shows several. For an
	// image it is derived from the superblock.
	Dev uint64
	// ChangeTime is when the content or the attributes were last changed, as
	// the source's file system says (ctime), which programs cannot set. An
	// image does not hold it; the zero time is unknown.
	ChangeTime time.Time
	// Xattrs are the extended attributes by their full names, such as
	// "user.comment" and "security.capability"; nil for none. The values must
	// not be changed.
	Xattrs map[string][]byte
}

// statOf returns what a source's FileInfo says, or root's ownership.
func statOf(fi fs.FileInfo) (st Stat, known bool) {
	switch s := fi.Sys().(type) {
	case *Stat:
		if s != nil {
			return *s, true
		}
	default:
		return sysStat(s)
	}
	return Stat{}, false
}

// kindOf returns the basic inode type, or 0 for what SquashFS cannot hold.
func kindOf(m fs.FileMode) uint16 {
	switch m.Type() {
	case 0:
		return kindFile
	case fs.ModeDir:
		return kindDir
	case fs.ModeSymlink:
		return kindSymlink
	case fs.ModeDevice:
		return kindBlock
	case fs.ModeDevice | fs.ModeCharDevice, fs.ModeCharDevice:
		return kindChar
	case fs.ModeNamedPipe:
		return kindFIFO
	case fs.ModeSocket:
		return kindSocket
	}
	return 0
}

func modeOfKind(kind uint16) fs.FileMode {
	switch kind {
	case kindDir:
		return fs.ModeDir
	case kindSymlink:
		return fs.ModeSymlink
	case kindBlock:
		return fs.ModeDevice
	case kindChar:
		return fs.ModeDevice | fs.ModeCharDevice
	case kindFIFO:
		return fs.ModeNamedPipe
	case kindSocket:
		return fs.ModeSocket
	}
	return 0
}

// unixPerm returns the twelve permission bits as Unix has them.
func unixPerm(m fs.FileMode) uint16 {
	p := uint16(m.Perm())
	if m&fs.ModeSetuid != 0 {
		p |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		p |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		p |= 0o1000
	}
	return p
}

func goMode(kind, perm uint16) fs.FileMode {
	m := modeOfKind(kind) | fs.FileMode(perm&0o777)
	if perm&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	if perm&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if perm&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}
