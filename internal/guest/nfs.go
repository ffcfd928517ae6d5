package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// NFSServer is a server in user space, unpacked and not installed: nothing
// starts it where its packages come from.
type NFSServer struct {
	Ganesha string // the program ganesha.nfsd
	Plugins string // the directory of its plugins
	RPCBind string // the program rpcbind
	Library string // LD_LIBRARY_PATH of both
}

// FetchNFSServer returns NFS-Ganesha and rpcbind from Debian, from the cache or
// else by apt-get download with those of their libraries that are not
// installed.
func FetchNFSServer(ctx context.Context, cacheDir string) (*NFSServer, error) {
	dir, err := once(ctx, cacheDir, "nfs-server", func(dir string) error {
		out, err := run(ctx, dir, "apt-get", "-q", "--simulate", "--no-install-recommends", "install", "nfs-ganesha-vfs")
		if err != nil {
			return fmt.Errorf("%w; run `apt-get update` first", err)
		}
		names := map[string]bool{"nfs-ganesha": true, "nfs-ganesha-vfs": true, "rpcbind": true}
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Inst" {
				names[f[1]] = true
			}
		}
		for name := range names {
			if err := unpack(ctx, dir, name, filepath.Join(dir, "nfs-server")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("NFS server: %w", err)
	}
	find := func(patterns ...string) (string, error) {
		for _, p := range patterns {
			if found, _ := filepath.Glob(filepath.Join(dir, p)); len(found) > 0 {
				return found[0], nil
			}
		}
		return "", fmt.Errorf("NFS server: no %s in %s; remove that directory to fetch it again: %w", patterns[0], dir, os.ErrNotExist)
	}
	s := &NFSServer{}
	for to, patterns := range map[*string][]string{
		&s.Ganesha: {"usr/bin/ganesha.nfsd"},
		&s.RPCBind: {"sbin/rpcbind", "usr/sbin/rpcbind"}, // a merged /usr
		&s.Plugins: {"usr/lib/*/ganesha/libfsalvfs.so"},
	} {
		if *to, err = find(patterns...); err != nil {
			return nil, err
		}
	}
	s.Plugins = filepath.Dir(s.Plugins)
	libraries := filepath.Dir(s.Plugins)
	s.Library = strings.Join([]string{libraries, filepath.Join(dir, "lib", filepath.Base(libraries)), filepath.Join(dir, "usr/lib/ganesha")}, ":")
	return s, nil
}
