package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/internal/timeline"
	"github.com/seed-3ec230fa/diskless/ltsconf"
	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
	"github.com/seed-3ec230fa/diskless/tftp"
)

// openTree makes the boot tree: rendered files over the configured directories
// over the distribution's loaders.
func (a *App) openTree() error {
	var mounts []tftp.Mount
	for _, m := range a.cfg.Files {
		d, err := tftp.Dir(m.Dir, a.log)
		if err != nil {
			return fmt.Errorf("files: %w", err)
		}
		a.dirs = append(a.dirs, d)
		mounts = append(mounts, tftp.Mount{Path: m.Path, FS: d})
	}
	mounts = append(mounts, tftp.Mount{FS: a.loaders})
	if a.cfg.LTSConf != "" {
		if _, err := ltsconf.ParseFile(a.cfg.LTSConf); err != nil {
			return err
		}
	}
	a.tree = a.newTree(mounts)
	if a.cfg.HTTP != nil {
		a.tree.BaseURL = a.cfg.HTTP.URL
	}
	if a.cfg.ServesDHCPv6() {
		a.tree6 = a.newTree(mounts)
		if a.cfg.HTTP != nil {
			a.tree6.BaseURL = a.httpURL6()
		}
	}
	return nil
}

func (a *App) newTree(mounts []tftp.Mount) *pxecfg.Tree {
	t := &pxecfg.Tree{
		Source: pxecfg.SourceFunc(func(ctx context.Context, c pxecfg.Client) (*pxecfg.Config, error) {
			return a.bootConfig(ctx, c)
		}),
		Lookup: a.client,
		// Where another server gives addresses too there are machines
		// without a lease of ours.
		KnownOnly: a.cfg.GivesAddresses() && a.cfg.DHCP.OtherServer == "refuse",
		Files:     tftp.Union(mounts...),
		Logger:    a.log,
		Trace:     &pxecfg.Trace{Sent: a.httpSent},
	}
	if a.cfg.LTSConf != "" {
		t.Extra = map[string]func(context.Context, pxecfg.Client) ([]byte, error){"lts.conf": a.ltsConf}
	}
	return t
}

// ltsConf is the lts.conf of one machine: resolved, so that it holds nothing
// of another's. The file is read anew, so that an edit counts at once.
func (a *App) ltsConf(_ context.Context, c pxecfg.Client) ([]byte, error) {
	m := a.machine(c)
	if m == nil && a.cfg.Unknown == config.UnknownDeny {
		return nil, fs.ErrNotExist
	}
	f, err := ltsconf.ParseFile(a.cfg.LTSConf)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if _, err := ltsconf.Collect(f.Resolve(ltsClient(c, m))).WriteTo(&out); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (a *App) tftpServer() *tftp.Server {
	var files tftp.Handler = tftp.FSFunc(func(ctx context.Context, r *tftp.Request) (fs.FS, error) {
		tree, err := a.treeFor(r.Peer.Addr()).ForAddr(ctx, r.Peer.Addr())
		if err != nil {
			return nil, err
		}
		return a.addons.view(ctx, r.Peer.Addr(), tree), nil
	})
	if a.uploads != nil {
		files = tftp.First(files, &uploads{app: a})
	}
	c := a.cfg.TFTP
	return &tftp.Server{
		Handler: files, Logger: a.log, OnePort: c.OnePort,
		MaxRate: c.Rate.Bytes, MaxRatePerPeer: c.RatePerAddress.Bytes,
		MaxTransfers: c.Transfers, MaxTransfersPerPeer: c.TransfersPerAddress,
		Trace: &tftp.Trace{Done: func(r *tftp.Request, res tftp.Result) {
			if res.Probe || errors.Is(res.Err, fs.ErrNotExist) {
				return // misses are how a loader walks its ladder of names
			}
			who := a.peer(context.Background(), r.Peer.Addr())
			if named, ok := pxecfg.ParseName(r.Name); ok && who.Name == "" && who.MAC == "" {
				named.IP = r.Peer.Addr() // no lease of ours: who it says it is
				who = a.who(named)
			}
			what := r.Name
			if r.Write {
				what = "upload of " + what
			}
			a.Timeline.Add(timeline.Event{
				Who: who, Stage: "tftp", What: what,
				Bytes: res.Bytes, Took: res.Duration, Err: res.Err,
			})
		}},
	}
}

func (a *App) httpServer() *http.Server {
	mux := http.NewServeMux()
	mux.Handle("/", a.byFamily())
	mux.HandleFunc("GET /"+addonDir, a.addons.serveHTTP)
	mux.HandleFunc("GET "+healthzAt, a.healthz)
	return &http.Server{
		Handler: patient(mux), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
}

func (a *App) httpSent(ctx context.Context, s pxecfg.Sent) {
	if s.Status >= 400 || s.Method == http.MethodHead {
		return
	}
	who := a.who(s.Client)
	if who.MAC == "" && who.Name == "" && s.Peer.IsValid() {
		who = a.peer(ctx, s.Peer)
	}
	a.Timeline.Add(timeline.Event{Who: who, Stage: "http", What: s.Name, Bytes: s.Bytes, Took: s.Duration})
}

// healthz answers 200 as long as this process serves: a role that fails ends it.
func (a *App) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "ok", "roles": map[string]bool{
		"dhcp": a.cfg.ServesDHCP(), "tftp": a.cfg.ServesTFTP(), "http": a.cfg.ServesHTTP(), "nbd": a.cfg.ServesNBD(),
	}})
}

func (a *App) nbdServer() *nbd.Server {
	return &nbd.Server{
		Handler: nbd.Authorize(a.Roots, a.mayOpen), Logger: a.log,
		// A machine that reconnects repeats what was not answered; an answer
		// would be an I/O error to it.
		Handover: true,
		Trace: &nbd.Trace{
			// A refusal is logged by the server itself.
			ExportOpened: func(c nbd.ConnInfo, o nbd.OpenInfo) {
				if o.Purpose == nbd.PurposeGo {
					a.Timeline.Add(timeline.Event{Who: a.peer(context.Background(), c.Client.Addr()), Stage: "nbd", What: o.Export})
				}
			},
			ConnClosed: func(c nbd.ConnInfo, s nbd.ConnStats, cause error) {
				a.log.Debug("nbd connection closed", "client", c.Client, "export", s.Export,
					"read", s.BytesRead, "written", s.BytesWritten, "cause", cause)
			},
		},
	}
}
