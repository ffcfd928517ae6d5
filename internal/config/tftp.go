package config

import (
	"os"
	"path/filepath"
	"strings"
)

// TFTP is the role that serves the boot tree over TFTP.
type TFTP struct {
	Enabled             *bool    `yaml:"enabled"`
	Listen              string   `yaml:"listen"`
	Address             Addr     `yaml:"address"`
	OnePort             bool     `yaml:"one-port"`
	Rate                Size     `yaml:"rate"`             // in a second
	RatePerAddress      Size     `yaml:"rate-per-address"` // likewise
	Transfers           int      `yaml:"transfers"`
	TransfersPerAddress int      `yaml:"transfers-per-address"`
	Uploads             *Uploads `yaml:"uploads"`
}

// Uploads is where files from machines go.
type Uploads struct {
	Dir       string `yaml:"dir"`
	MaxSize   Size   `yaml:"max-size"`
	Total     Size   `yaml:"total"` // of one machine
	Overwrite bool   `yaml:"overwrite"`
}

func (c *checker) tftp(t *TFTP) {
	c.listen(&t.Listen)
	for _, f := range []struct {
		key string
		n   *int
	}{{"transfers", &t.Transfers}, {"transfers-per-address", &t.TransfersPerAddress}} {
		if _, set := c.pos[f.n]; set && *f.n < 1 {
			c.errorf(f.n, "tftp.%s: %d is not a number of transfers; write 1 or more, or remove the key for its default", f.key, *f.n)
		}
	}
	u := t.Uploads
	if u == nil || !c.ServesTFTP() {
		return
	}
	info, err := os.Stat(u.Dir)
	switch {
	case u.Dir == "":
		c.errorf(&t.Uploads, "tftp.uploads: `dir` is missing: the directory that takes the files")
		return
	case err != nil:
		c.errorf(&u.Dir, "tftp.uploads: %v; create it", err)
		return
	case !info.IsDir():
		c.errorf(&u.Dir, "tftp.uploads: %s is not a directory", u.Dir)
		return
	}
	for _, m := range c.Files {
		if within(u.Dir, m.Dir) || within(m.Dir, u.Dir) {
			c.errorf(&u.Dir, "tftp.uploads: %s and what is served from %s are not apart: anybody could send what others boot; choose another directory", u.Dir, m.Dir)
		}
	}
}

// within says whether a directory is another one, or in it, whatever links lead
// there.
func within(dir, other string) bool {
	dir, err1 := filepath.EvalSymlinks(dir)
	other, err2 := filepath.EvalSymlinks(other)
	if err1 != nil || err2 != nil {
		return false // is reported as missing
	}
	rel, err := filepath.Rel(other, dir)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
