package dhcp

import (
	"encoding/binary"
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dataSync flushes a file's content and length, not the times. It has the
// kernel do so while the goroutine waits as one for a socket does: a thread that
// waits for a disk would hold up all others on a machine with few CPUs, for
// as long as the scheduler takes to notice. Where the kernel or a sandbox has no
// asynchronous fdatasync it is a thread all the same.
type dataSync struct {
	ctx  uintptr  // of io_setup, 0 for none
	done *os.File // eventfd
}

// iocb and ioEvent are the kernel's structs of these names.
type iocb struct {
	_         uint64
	_, _      uint32
	opcode    uint16
	_         int16
	fd        uint32
	_, _      uint64
	_         int64
	_         uint64
	flags     uint32
	eventFile uint32
}

type ioEvent struct {
	_, _   uint64
	result int64
	_      int64
}

const (
	iocbFdsync    = 3
	iocbEventFile = 1
)

func newDataSync() (s dataSync) {
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&s.ctx)), 0); errno != 0 {
		return dataSync{}
	}
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		s.close()
		return dataSync{}
	}
	s.done = os.NewFile(uintptr(fd), "eventfd")
	return s
}

func (s *dataSync) close() {
	if s.done != nil {
		s.done.Close()
	}
	if s.ctx != 0 {
		_, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, s.ctx, 0, 0)
	}
	*s = dataSync{}
}

// sync is used by one goroutine at a time.
func (s *dataSync) sync(f *os.File) error {
	if s.ctx != 0 {
		err := s.async(f)
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		s.close()
	}
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// async returns [errors.ErrUnsupported] when nothing was begun.
func (s *dataSync) async(f *os.File) error {
	raw, err := s.done.SyscallConn()
	if err != nil {
		return errors.ErrUnsupported
	}
	var errno unix.Errno
	if err := raw.Control(func(done uintptr) {
		cb := &iocb{opcode: iocbFdsync, fd: uint32(f.Fd()), flags: iocbEventFile, eventFile: uint32(done)}
		_, _, errno = unix.Syscall(unix.SYS_IO_SUBMIT, s.ctx, 1, uintptr(unsafe.Pointer(&cb)))
	}); err != nil || errno != 0 {
		return errors.ErrUnsupported
	}
	var count [8]byte
	if _, err := s.done.Read(count[:]); err != nil {
		return os.NewSyscallError("fdatasync", err)
	}
	if binary.NativeEndian.Uint64(count[:]) != 1 {
		return os.NewSyscallError("fdatasync", unix.EIO)
	}
	var event ioEvent
	n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, s.ctx, 1, 1, uintptr(unsafe.Pointer(&event)), 0, 0)
	switch {
	case errno != 0:
		return os.NewSyscallError("io_getevents", errno)
	case n != 1:
		return os.NewSyscallError("io_getevents", unix.EIO)
	case event.result < 0:
		return os.NewSyscallError("fdatasync", unix.Errno(-event.result))
	}
	return nil
}
