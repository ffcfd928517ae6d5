package takeover

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

func (t *taker) hostTable() map[string]*hostDecl {
	hosts := make(map[string]*hostDecl)
	for _, h := range t.hosts {
		key := "hw" + string(h.hw)
		if h.hw == nil {
			key = "id" + string(h.id)
		}
		if hosts[key] == nil {
			hosts[key] = h
		}
	}
	return hosts
}

// evaluate runs the statements for one request in a subnet.
func (t *taker) evaluate(d *subnetDecl, hosts map[string]*hostDecl, r *dhcp.Request) (*result, *hostDecl) {
	res := newResult()
	res.run(r, d.scope.chain())
	for _, c := range t.classes {
		if c.match(r) {
			r.Note("class %q", c.name)
			res.run(r, c.scope.chain()[1:]) // the global scope has been seen to
			if m := c.member(r); m != nil {
				res.run(r, []*scope{m})
			}
		}
	}
	h := find(hosts, r)
	if h != nil {
		r.Note("host %s", h.name)
		res.run(r, h.scope.chain()[1:])
	}
	return res, h
}

// boot is what the statements say about booting.
func (t *taker) boot(d *subnetDecl, hosts map[string]*hostDecl) func(context.Context, *dhcp.Request) (dhcp.Boot, error) {
	return func(_ context.Context, r *dhcp.Request) (dhcp.Boot, error) {
		res, h := t.evaluate(d, hosts, r)
		if h != nil {
			if v, ok := h.scope.param("booting"); ok && v.text == "false" {
				return dhcp.Boot{}, nil
			}
		}
		if res.boot.File == "" && res.boot.RootPath == "" && r.Platform().WantsFile() {
			return dhcp.Boot{}, fmt.Errorf("no filename for %v: %w", r.ClientHWAddr, fs.ErrNotExist)
		}
		return res.boot, nil
	}
}

// chain is the scopes from the outermost.
func (s *scope) chain() (list []*scope) {
	for ; s != nil; s = s.parent {
		list = append(list, s)
	}
	slices.Reverse(list)
	return list
}

func newResult() *result { return &result{options: make(map[uint8]optionValue)} }

// outside runs the statements of a scope and those around it that no condition
// guards.
func outside(s *scope) *result {
	res := newResult()
	res.run(nil, s.chain())
	return res
}

func (res *result) run(r *dhcp.Request, scopes []*scope) {
	for _, s := range scopes {
		res.steps(r, s.steps)
	}
}

func (res *result) steps(r *dhcp.Request, steps []step) {
	for _, st := range steps {
		switch {
		case st.when == nil:
			st.set(res)
		case r != nil:
			res.depth++
			if st.when(r) {
				res.steps(r, st.then)
			} else {
				res.steps(r, st.otherwise)
			}
			res.depth--
		}
	}
}

// plain is the options that no condition guards.
func (res *result) plain() dhcpv4.Options {
	o := make(dhcpv4.Options)
	for code, v := range res.options {
		if !v.conditional {
			o[code] = v.data
		}
	}
	return o
}

// own is what differs from the outer result.
func (res *result) own(outer *result) dhcpv4.Options {
	o := res.plain()
	maps.DeleteFunc(o, func(code uint8, v []byte) bool {
		was, ok := outer.options[code]
		return ok && string(was.data) == string(v)
	})
	return o
}
