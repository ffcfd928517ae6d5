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

// boot evaluates the statements for one request in a subnet.
func (t *taker) boot(d *subnetDecl) func(context.Context, *dhcp.Request) (dhcp.Boot, error) {
	hosts := make(map[string]*hostDecl)
	for _, h := range t.hosts {
		if h.hw != nil {
			hosts["hw"+string(h.hw)] = h
		} else {
			hosts["id"+string(h.id)] = h
		}
	}
	return func(_ context.Context, r *dhcp.Request) (dhcp.Boot, error) {
		res := newResult()
		res.run(r, d.scope.chain())
		for _, c := range t.classes {
			if c.match(r) {
				r.Note("class %q", c.name)
				res.run(r, c.scope.chain()[1:]) // the global scope has been seen to
			}
		}
		h := hosts["hw"+string(r.ClientHWAddr)]
		if h == nil {
			h = hosts["id"+string(r.Options.Get(dhcpv4.OptionClientIdentifier))]
		}
		if h != nil {
			r.Note("host %s", h.name)
			res.run(r, h.scope.chain()[1:])
			if v, ok := h.scope.param("booting"); ok && v.text == "false" {
				return dhcp.Boot{}, nil
			}
		}
		if res.boot.File == "" && res.boot.RootPath == "" && r.Platform().WantsFile() {
			return dhcp.Boot{}, fmt.Errorf("no filename for %v: %w", r.ClientHWAddr, fs.ErrNotExist)
		}
		res.boot.Options = res.conditional()
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

// evaluate runs the statements of a scope and those around it; without a
// request those that no condition guards.
func evaluate(s *scope, r *dhcp.Request) *result {
	res := newResult()
	res.run(r, s.chain())
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

func (res *result) conditional() dhcpv4.Options {
	o := make(dhcpv4.Options)
	for code, v := range res.options {
		if v.conditional {
			o[code] = v.data
		}
	}
	return o
}
