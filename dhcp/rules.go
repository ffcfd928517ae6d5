package dhcp

import (
	"context"
	"fmt"
	"io/fs"
)

// BootRule says what to tell the clients that it matches.
type BootRule struct {
	// Name is for logs and [Explain]; it may be empty.
	Name string
	Match
	// Boot is what the client is told.
	Boot Boot
}

// BootRules are rules of which the first that matches decides. iPXE asks for
// a boot file once more after it was loaded, with the architecture that its
// loader had: put the rules for [PlatformIPXE] before those that load it.
type BootRules []BootRule

// Boot returns the Boot of the first rule that matches, or an error that is
// [fs.ErrNotExist]. It is made for [BootPolicy.Boot].
func (rules BootRules) Boot(_ context.Context, r *Request) (Boot, error) {
	for i := range rules {
		if rules[i].Matches(r) {
			r.notef("boot rule %d %s (%v) gives %q", i+1, rules[i].Name, &rules[i].Match, rules[i].Boot.File)
			return rules[i].Boot, nil
		}
	}
	return Boot{}, fmt.Errorf("dhcp: no boot rule matches %v: %w", r.machine(), fs.ErrNotExist)
}
