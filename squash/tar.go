package squash

import (
	"archive/tar"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// Tar is a tar archive as a [Source] that is read once, from start to end:
// PAX and GNU formats, sparse files, extended attributes (SCHILY.xattr, which
// GNU tar and Docker write, LIBARCHIVE.xattr, and SELinux labels of tar
// --selinux), hard links of any type, global headers that set uid, gid or mtime.
// ACLs and file flags are counted as attributes that are left out. A stream
// that is compressed with gzip or zstd is decompressed.
//
// Owners are the archive's numbers; names of users are not looked up. Names
// lose a leading "/" and "./"; one that leads out of the tree by ".." is an
// error, as is one below a symbolic link of the same archive, which programs
// that unpack would follow. A name that comes again replaces the first. A name
// may have 256 elements, and 16 MiB may follow the archive's end.
func Tar(r io.Reader) Source {
	once := true
	return tarSource{layers: []Layer{{Name: "the archive", Open: func() (io.ReadCloser, error) {
		if !once {
			return nil, errors.New("a tar stream can be read once; make a new source")
		}
		once = false
		return io.NopCloser(r), nil
	}}}}
}

type tarSource struct {
	layers []Layer
	merge  bool // whiteouts and what else container images have
}

func (s tarSource) Entries(ctx context.Context) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		m := &merger{ctx: ctx, yield: yield, layers: s.layers, whiteouts: s.merge, wanted: make(map[string][]request)}
		if err := m.run(); err != nil && !errors.Is(err, errStop) {
			yield(nil, err)
		}
	}
}

// maxDepth is how many elements an archive's name may have. Each may be a
// directory that no entry stands for, so that a small archive would make a tree
// of millions; real trees are some 50 deep.
const maxDepth = 256

// errStop says that the consumer of the entries wants no more.
var errStop = errors.New("stop")

// cleanName makes an archive's name a path of the tree.
func cleanName(name string) (string, error) {
	p := path.Clean(strings.TrimLeft(name, "/"))
	if p == ".." || strings.HasPrefix(p, "../") {
		return "", fmt.Errorf("the archive has an entry %.80q, which leads out of the tree: %w", name, fs.ErrInvalid)
	}
	if strings.IndexByte(p, 0) >= 0 || len(p) > maxPath {
		return "", fmt.Errorf("the archive has an entry %.80q with %d bytes in its name: %w", name, len(p), fs.ErrInvalid)
	}
	if n := strings.Count(p, "/") + 1; n > maxDepth {
		return "", fmt.Errorf("the archive has an entry %.80q with %d elements in its name, at most %d are taken: %w", name, n, maxDepth, fs.ErrInvalid)
	}
	return strings.Clone(p), nil // of a PAX header, which may have 1 MiB
}

// tarEntry turns a header into an entry, without content. file is false
// for headers that are no files.
func tarEntry(h *tar.Header, name string) (e *Entry, file bool, err error) {
	e = &Entry{Path: name, Mode: fs.FileMode(h.Mode & 0o777), ModTime: h.ModTime}
	for bit, mode := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if h.Mode&bit != 0 {
			e.Mode |= mode
		}
	}
	switch h.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeGNUSparse, tar.TypeCont:
		e.Size = h.Size
	case tar.TypeDir:
		e.Mode |= fs.ModeDir
	case tar.TypeSymlink:
		e.Mode |= fs.ModeSymlink
		e.Target = strings.Clone(h.Linkname)
	case tar.TypeChar:
		e.Mode |= fs.ModeDevice | fs.ModeCharDevice
	case tar.TypeBlock:
		e.Mode |= fs.ModeDevice
	case tar.TypeFifo:
		e.Mode |= fs.ModeNamedPipe
	case tar.TypeLink:
	case 'V': // a volume's name
		return nil, false, nil
	default:
		return nil, false, entryError(name, fmt.Errorf("the archive has an entry of type %q, which is no file: make the archive with tar --format=posix", h.Typeflag))
	}
	if h.Uid < 0 || int64(h.Uid) > math.MaxUint32 || h.Gid < 0 || int64(h.Gid) > math.MaxUint32 {
		return nil, false, entryError(name, fmt.Errorf("owner %d:%d does not fit 32 bits: %w", h.Uid, h.Gid, fs.ErrInvalid))
	}
	e.Uid, e.Gid = uint32(h.Uid), uint32(h.Gid)
	if e.Mode&fs.ModeDevice != 0 {
		if h.Devmajor < 0 || h.Devmajor > maxMajor || h.Devminor < 0 || h.Devminor > maxMinor {
			return nil, false, entryError(name, fmt.Errorf("device %d:%d is beyond %d:%d", h.Devmajor, h.Devminor, maxMajor, maxMinor))
		}
		e.Major, e.Minor = uint32(h.Devmajor), uint32(h.Devminor)
	}
	e.Xattrs, err = tarXattrs(h.PAXRecords)
	if err != nil {
		return nil, false, entryError(name, err)
	}
	return e, true, nil
}

// tarGlobals are the records of global headers that hold for the entries after
// them unless these have records of their own.
type tarGlobals struct {
	uid, gid *int
	mtime    *time.Time
}

// set takes a global header in. An empty value takes an earlier one back.
func (g *tarGlobals) set(records map[string]string) error {
	if records == nil { // as archive/tar has it when a value is malformed
		return fmt.Errorf("the archive has a global header with a value that makes no sense: %w", fs.ErrInvalid)
	}
	for key, value := range records {
		var err error
		switch key {
		case "uid":
			g.uid, err = globalID(value)
		case "gid":
			g.gid, err = globalID(value)
		case "mtime":
			g.mtime, err = globalTime(value)
		case "path", "linkpath", "size":
			err = errors.ErrUnsupported
		default:
			for _, prefix := range []string{"GNU.sparse.", "SCHILY.xattr.", "SCHILY.acl.", "SCHILY.fflags", "LIBARCHIVE.xattr.", "RHT.security."} {
				if strings.HasPrefix(key, prefix) {
					err = errors.ErrUnsupported
				}
			}
		}
		if err != nil {
			return fmt.Errorf("the archive has a global header with %.80q=%.80q for all its entries: %w", key, value, err)
		}
	}
	return nil
}

func globalID(s string) (*int, error) {
	if s == "" {
		return nil, nil
	}
	id, err := strconv.ParseUint(s, 10, 32)
	n := int(id)
	return &n, err
}

// globalTime reads seconds with a fraction.
func globalTime(s string) (*time.Time, error) {
	if s == "" {
		return nil, nil
	}
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return nil, err
	}
	nsec, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	if err != nil {
		return nil, err
	}
	when := time.Unix(sec, int64(nsec))
	if strings.HasPrefix(whole, "-") {
		when = time.Unix(sec, -int64(nsec))
	}
	return &when, nil
}

// apply gives an entry what it does not say itself.
func (g *tarGlobals) apply(h *tar.Header) {
	if _, own := h.PAXRecords["uid"]; g.uid != nil && !own {
		h.Uid = *g.uid
	}
	if _, own := h.PAXRecords["gid"]; g.gid != nil && !own {
		h.Gid = *g.gid
	}
	if _, own := h.PAXRecords["mtime"]; g.mtime != nil && !own {
		h.ModTime = *g.mtime
	}
}

// tarXattrs reads the ways in which archives carry extended attributes.
func tarXattrs(records map[string]string) (map[string][]byte, error) {
	var attrs map[string][]byte
	set := func(name string, value []byte) {
		if attrs == nil {
			attrs = make(map[string][]byte)
		}
		attrs[strings.Clone(name)] = value
	}
	for key, value := range records {
		name, ok := strings.CutPrefix(key, "LIBARCHIVE.xattr.")
		if !ok {
			continue
		}
		name, err := url.PathUnescape(name)
		if err != nil {
			return nil, fmt.Errorf("the extended attribute %.80q: %w", key, err)
		}
		b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
		if err != nil {
			return nil, fmt.Errorf("the extended attribute %.80q: %w", key, err)
		}
		set(name, b)
	}
	// GNU tar's own way leaves out the NUL that Linux stores.
	if label := records["RHT.security.selinux"]; label != "" {
		set("security.selinux", []byte(label+"\x00"))
	}
	for key, value := range records {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			set(name, []byte(value))
		}
		switch { // so that they are counted among what cannot be kept
		case value == "":
		case key == "SCHILY.acl.access":
			set("system.posix_acl_access", []byte(value))
		case key == "SCHILY.acl.default":
			set("system.posix_acl_default", []byte(value))
		case key == "SCHILY.fflags", strings.HasPrefix(key, "SCHILY.acl."):
			set(strings.Clone(key), []byte(value))
		}
	}
	return attrs, nil
}
