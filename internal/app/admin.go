package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// Stranger is a machine that asked to boot and that nobody configured. Its
// UUID is spelt as dmidecode and the machine's maker do.
type Stranger struct {
	MAC   string    `json:"mac,omitempty"`
	UUID  string    `json:"uuid,omitempty"`
	Arch  string    `json:"arch,omitempty"`
	Addr  string    `json:"addr,omitempty"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Count int       `json:"count"`
}

// Strangers lists the machines that nobody configured, the latest first.
func (a *App) Strangers() []Stranger {
	list := []Stranger{}
	seen := a.machines.Seen()
	if a.rules != nil {
		seen = a.rules.Seen()
	}
	for _, s := range seen {
		x := Stranger{MAC: s.Client.MAC.String(), UUID: pxecfg.SwapUUID(s.Client.UUID), First: s.First, Last: s.Last, Count: s.Count}
		if s.Client.ArchKnown {
			x.Arch = s.Client.Arch.String()
		}
		if s.Client.IP.IsValid() {
			x.Addr = s.Client.IP.String()
		}
		list = append(list, x)
	}
	return list
}

// Root is a writable root as the commands show it.
type Root struct {
	Name       string    `json:"name"`
	Image      string    `json:"image"`
	Generation string    `json:"generation,omitempty"`
	Kind       string    `json:"kind"`
	Stored     int64     `json:"stored"`           // bytes
	Shared     int64     `json:"shared,omitempty"` // bytes in what clones have in common
	Clients    []string  `json:"clients"`
	Opened     time.Time `json:"opened,omitzero"`
	Error      string    `json:"error,omitempty"`
}

func rootList(infos []nbd.RootInfo) []Root {
	list := []Root{}
	for _, i := range infos {
		r := Root{Name: i.Name, Image: i.Image, Generation: i.Generation, Kind: i.Kind.String(), Stored: i.Usage, Shared: i.Shared, Opened: i.OpenedAt}
		for _, c := range i.Clients {
			r.Clients = append(r.Clients, c.String())
		}
		if i.Err != nil {
			r.Error = i.Err.Error()
		}
		list = append(list, r)
	}
	return list
}

// adminHandler is what the commands of the binary talk to, over a Unix socket
// that only the server's user can open.
func (a *App) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+healthzAt, a.healthz)
	mux.HandleFunc("GET /machines", func(w http.ResponseWriter, _ *http.Request) { reply(w, a.Strangers(), nil) })
	mux.HandleFunc("GET /explain", func(w http.ResponseWriter, r *http.Request) {
		steps, err := a.Explain(r.Context(), r.URL.Query())
		reply(w, steps, err)
	})
	if a.Roots == nil {
		return mux
	}
	mux.HandleFunc("GET /roots", func(w http.ResponseWriter, r *http.Request) {
		list, err := a.Roots.List(r.Context())
		reply(w, rootList(list), err)
	})
	mux.HandleFunc("POST /roots/{root}/reset", func(w http.ResponseWriter, r *http.Request) {
		reply(w, nil, a.Roots.Reset(r.Context(), r.PathValue("root")))
	})
	mux.HandleFunc("POST /roots/{root}/fence", func(w http.ResponseWriter, r *http.Request) {
		reply(w, nil, a.Roots.Fence(r.Context(), r.PathValue("root")))
	})
	mux.HandleFunc("POST /roots/{root}/clone/{to}", func(w http.ResponseWriter, r *http.Request) {
		reply(w, nil, a.Roots.Clone(r.Context(), r.PathValue("root"), r.PathValue("to")))
	})
	mux.HandleFunc("POST /roots/{root}/rename/{to}", func(w http.ResponseWriter, r *http.Request) {
		reply(w, nil, a.Roots.Rename(r.Context(), r.PathValue("root"), r.PathValue("to")))
	})
	mux.HandleFunc("POST /roots/{root}/commit/{image}", func(w http.ResponseWriter, r *http.Request) {
		gen, err := a.Roots.Commit(r.Context(), r.PathValue("root"), r.PathValue("image"))
		replyName(w, gen, err)
	})
	mux.HandleFunc("POST /roots/{root}/attach", func(w http.ResponseWriter, r *http.Request) {
		n, err := a.Roots.Attach(r.Context(), r.PathValue("root"))
		reply(w, n.String(), err)
	})
	mux.HandleFunc("POST /roots/{root}/create/{image}", func(w http.ResponseWriter, r *http.Request) {
		n, err := nbd.ParseName(r.PathValue("image"))
		if err == nil {
			n.Root = r.PathValue("root")
			err = a.Roots.Create(r.Context(), n)
		}
		reply(w, nil, err)
	})
	mux.HandleFunc("POST /roots/{root}/rebase", func(w http.ResponseWriter, r *http.Request) {
		reply(w, nil, a.Roots.Rebase(r.Context(), r.PathValue("root"), r.FormValue("generation")))
	})
	mux.HandleFunc("POST /expire", a.expire)
	mux.HandleFunc("GET /images", func(w http.ResponseWriter, _ *http.Request) {
		list, err := a.images.List()
		reply(w, imageList(list), err)
	})
	mux.HandleFunc("POST /images/{image}/publish", func(w http.ResponseWriter, r *http.Request) {
		gen, err := a.images.Publish(r.Context(), r.PathValue("image"), r.FormValue("file"))
		replyName(w, gen, err)
	})
	mux.HandleFunc("POST /images/{image}/revert", func(w http.ResponseWriter, r *http.Request) {
		gen, err := a.images.Revert(r.Context(), r.PathValue("image"))
		replyName(w, gen, err)
	})
	mux.HandleFunc("DELETE /roots/{root}", func(w http.ResponseWriter, r *http.Request) {
		reply(w, nil, a.Roots.Delete(r.Context(), r.PathValue("root")))
	})
	return mux
}

// expire deletes the roots of a kind that were not used for some time.
func (a *App) expire(w http.ResponseWriter, r *http.Request) {
	var kind nbd.Kind
	unused, err := time.ParseDuration(r.FormValue("unused"))
	if err == nil && unused <= 0 {
		err = fmt.Errorf("roots in use cannot expire: write how long they were not used, such as 720h: %w", fs.ErrInvalid)
	}
	if err == nil {
		err = kind.UnmarshalText([]byte(r.FormValue("kind")))
	}
	gone := []string{}
	if err == nil {
		var names []string
		names, err = a.Roots.Expire(r.Context(), kind, unused)
		gone = append(gone, names...)
	}
	reply(w, gone, err)
}

// Image is an image as the commands show it.
type Image struct {
	Name       string   `json:"name"`
	Generation string   `json:"generation"`
	Size       int64    `json:"size"` // bytes
	File       string   `json:"file"`
	Former     []string `json:"former,omitempty"` // generations that can be had again
}

func imageList(infos []nbd.ImageInfo) []Image {
	list := []Image{}
	for _, i := range infos {
		list = append(list, Image{Name: i.Image, Generation: i.Name().Generation, Size: i.Size, File: i.Path, Former: i.Former})
	}
	return list
}

// replyName answers with the export name of a generation.
func replyName(w http.ResponseWriter, gen nbd.Generation, err error) {
	if err != nil {
		reply(w, nil, err)
		return
	}
	reply(w, gen.Name().String(), nil)
}

func reply(w http.ResponseWriter, v any, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
}

// listenAdmin opens the Unix socket for commands. A socket that a server left
// behind when it was killed is replaced; one that answers is another server's,
// and anything that is no socket is left alone.
func listenAdmin(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("server.admin: %w", err)
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err := removeStale(path); err != nil {
			return nil, fmt.Errorf("server.admin: %w", err)
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, fmt.Errorf("server.admin: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("server.admin: %w", err)
	}
	return l, nil
}

// removeStale removes a socket that nobody listens on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there already and is no socket; name another path", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("another diskless serves %s; give this one a server.state of its own", path)
	}
	return os.Remove(path)
}
