package pxecfg

import (
	"context"
	"errors"
	"io/fs"
)

// Source decides what a machine boots.
//
// Config returns the machine's configuration. An error that is
// [fs.ErrNotExist], or a nil Config, means that the source has nothing for this
// machine, so that another source, or no one, has. Any other error means that
// it could not find out. The caller does not change the Config. Config is
// called for each file that a machine asks for, from several goroutines at
// once.
type Source interface {
	Config(ctx context.Context, c Client) (*Config, error)
}

// SourceFunc is a function that is a [Source].
type SourceFunc func(ctx context.Context, c Client) (*Config, error)

// Config implements [Source].
func (f SourceFunc) Config(ctx context.Context, c Client) (*Config, error) { return f(ctx, c) }

// First asks one source after the other; the first that has a configuration,
// or fails, decides. A [Config.Fallback] does not decide while a later source
// may know the machine itself: the first fallback is returned if none does.
func First(sources ...Source) Source {
	return SourceFunc(func(ctx context.Context, c Client) (*Config, error) {
		parent := ctx
		var fallback *Config
		var fallbackLook *look
		for _, s := range sources {
			ctx, l := childLook(ctx)
			cfg, err := ask(ctx, s, c)
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return nil, err
			case !cfg.Fallback:
				lookOf(parent).take(l)
				return cfg, nil
			case fallback == nil:
				fallback, fallbackLook = cfg, l
			}
		}
		if fallback == nil {
			return nil, fs.ErrNotExist
		}
		lookOf(parent).take(fallbackLook)
		return fallback, nil
	})
}

// ask makes one of the two ways of having nothing.
func ask(ctx context.Context, s Source, c Client) (*Config, error) {
	if s == nil {
		return nil, fs.ErrNotExist
	}
	cfg, err := s.Config(ctx, c)
	if err == nil && cfg == nil {
		err = fs.ErrNotExist
	}
	return cfg, err
}
