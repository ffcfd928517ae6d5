package config

import (
	"net/url"
	"os"
	"strings"
)

// Etcd is where the leases are that several servers share.
type Etcd struct {
	Endpoints []string `yaml:"endpoints"`
	Prefix    string   `yaml:"prefix"`
	// Name tells the servers apart.
	Name string `yaml:"name"`
	// Servers are the addresses of the others.
	Servers      []Addr `yaml:"servers"`
	CA           string `yaml:"ca"`
	Cert         string `yaml:"cert"`
	Key          string `yaml:"key"`
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password-file"`
}

func (e *Etcd) paths() []*string { return []*string{&e.CA, &e.Cert, &e.Key, &e.PasswordFile} }

// etcd checks the section dhcp.etcd.
func (c *checker) etcd(e *Etcd) {
	if len(e.Endpoints) == 0 {
		c.errorf(e, "dhcp.etcd.endpoints is missing: where etcd listens for clients, such as [http://192.168.67.2:2379]")
	}
	secure := 0
	for i := range e.Endpoints {
		u, err := url.Parse(e.Endpoints[i])
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
			c.errorf(&e.Endpoints[i], "%q is not an endpoint of etcd; write it as https://192.168.67.2:2379", e.Endpoints[i])
		} else if u.Scheme == "https" {
			secure++
		}
	}
	for _, f := range []struct {
		key   string
		field *string
		with  string
		other string
	}{
		{"cert", &e.Cert, "key", e.Key}, {"key", &e.Key, "cert", e.Cert},
		{"user", &e.User, "password-file", e.PasswordFile}, {"password-file", &e.PasswordFile, "user", e.User},
	} {
		if *f.field != "" && f.other == "" {
			c.errorf(f.field, "dhcp.etcd.%s needs dhcp.etcd.%s too", f.key, f.with)
		}
	}
	for _, f := range []struct {
		key  string
		file *string
		tls  bool
	}{{"ca", &e.CA, true}, {"cert", &e.Cert, true}, {"key", &e.Key, true}, {"password-file", &e.PasswordFile, false}} {
		if *f.file == "" {
			continue
		}
		if f.tls && secure < len(e.Endpoints) {
			c.errorf(f.file, "dhcp.etcd.%s is for endpoints with https://, and not all are", f.key)
		}
		if _, err := os.Stat(*f.file); err != nil {
			c.errorf(f.file, "dhcp.etcd.%s: %v", f.key, err)
		}
	}
	for i := range e.Servers {
		if e.Servers[i] == c.Server.Address {
			c.errorf(&e.Servers[i], "dhcp.etcd.servers: %s is this server's own address; write those of the others", e.Servers[i])
		}
	}
	if strings.ContainsAny(e.Name, "/ ") {
		c.errorf(&e.Name, "dhcp.etcd.name: %q has a slash or a blank; write a name such as dhcp1", e.Name)
	}
}
