package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/pxecfg"
	"github.com/seed-3ec230fa/diskless/tftp"
)

// strangers is the directory for the files of machines that nobody configured.
// It is no name of a machine.
const strangers = "_unknown"

func (a *App) openUploads() (err error) {
	if !a.cfg.ServesTFTP() || a.cfg.TFTP.Uploads == nil {
		return nil
	}
	if a.uploads, err = os.OpenRoot(a.cfg.TFTP.Uploads.Dir); err != nil {
		return fmt.Errorf("tftp.uploads: %w", err)
	}
	return nil
}

// uploads takes files from machines, each into a directory of its own.
type uploads struct {
	app *App

	mu   sync.Mutex
	open map[string]*inbox // those in use
}

// inbox is a machine's directory. There is one, however many files come at a
// time, so that they are counted together.
type inbox struct {
	tftp.Uploads
	users int
}

// OpenTFTP has no files.
func (u *uploads) OpenTFTP(context.Context, *tftp.Request) (tftp.File, error) {
	return nil, fs.ErrNotExist
}

// CreateTFTP implements tftp.Uploader.
func (u *uploads) CreateTFTP(ctx context.Context, r *tftp.Request) (tftp.Upload, error) {
	c, err := u.app.client(ctx, r.Peer.Addr())
	if errors.Is(err, fs.ErrNotExist) {
		c, err = pxecfg.Client{IP: r.Peer.Addr()}, nil
	}
	if err != nil {
		return nil, err
	}
	dir := strangers
	if m := u.app.machine(c); m != nil {
		dir = m.Name
	} else {
		if u.app.cfg.Unknown == config.UnknownDeny {
			return nil, fmt.Errorf("no machine of the configuration is at %s, and unknown is deny: %w", r.Peer.Addr(), fs.ErrPermission)
		}
		theirs := *r
		theirs.Name = r.Peer.Addr().String() + "-" + strings.ReplaceAll(r.Name, "/", "-")
		r = &theirs
	}
	in, err := u.enter(dir)
	if err != nil {
		return nil, err
	}
	up, err := in.CreateTFTP(ctx, r)
	if err != nil {
		u.leave(dir, in)
		return nil, err
	}
	return &received{up, func() { u.leave(dir, in) }}, nil
}

func (u *uploads) enter(dir string) (*inbox, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	in := u.open[dir]
	if in == nil {
		if err := u.app.uploads.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		root, err := u.app.uploads.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		c := u.app.cfg.TFTP.Uploads
		in = &inbox{Uploads: tftp.Uploads{Root: root, MaxSize: c.MaxSize.Bytes, MaxTotal: c.Total.Bytes, Overwrite: c.Overwrite}}
		if u.open == nil {
			u.open = make(map[string]*inbox)
		}
		u.open[dir] = in
	}
	in.users++
	return in, nil
}

func (u *uploads) leave(dir string, in *inbox) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if in.users--; in.users == 0 {
		delete(u.open, dir)
		_ = in.Root.Close()
	}
}

// received is an upload that leaves its directory at the end.
type received struct {
	tftp.Upload
	leave func()
}

// Close implements tftp.Upload.
func (r *received) Close() error {
	defer r.leave()
	return r.Upload.Close()
}

var _ tftp.Uploader = (*uploads)(nil)
