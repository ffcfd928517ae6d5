package ltsconf

// What is read of shell code: POSIX.1-2017, XCU 2, in the dialect of dash, the
// shell of the clients (with local; without arrays, [[ and $'...').

type nodeKind byte

const (
	simpleNode nodeKind = iota
	chainNode           // list[0] && list[1] || ...
	notNode
	ifNode    // list: condition, body, condition, body, ..., else body
	caseNode  // words[0], arms
	groupNode // list[0]
	forNode   // name, words, list[0]
	loopNode  // list: condition, body; name: while or until
	subNode   // list[0] in a shell of its own: a subshell, or behind it &
	pipeNode  // list, each in a shell of its own
	funcNode  // name, list[0]
	listNode
)

type node struct {
	kind    nodeKind
	off     int // in the shell code of the file
	assigns []assign
	words   [][]part
	redirs  []*redir
	list    []*node
	arms    []arm
	ors     []bool // beside list[1:] of a chain: || rather than &&
	name    string
	all     bool // a for without in: loops over "$@"
	async   bool // a subshell that nobody waits for
}

type assign struct {
	off  int
	name string
	val  []part
}

type arm struct {
	patterns [][]part
	body     *node
}

type redir struct {
	fd   int // -1: the usual one
	op   string
	word []part
	here []part // the text of <<
}

type partKind byte

const (
	textPart    partKind = iota
	paramPart            // $name, ${name op arg}
	commandPart          // $(body), `body`
	arithPart            // $((arg))
)

type part struct {
	kind   partKind
	quoted bool
	text   string // of a parameter: its name
	op     string
	arg    []part
	body   *node
	source string // of all but text, as written
}

type shellError struct {
	off int
	msg string
}

func (e *shellError) Error() string { return e.msg }

// plainText is the text of a word without substitutions.
func plainText(w []part) string {
	if len(w) == 1 {
		return w[0].text
	}
	s := ""
	for _, t := range w {
		if t.kind == textPart {
			s += t.text
		}
	}
	return s
}

// literalWord is the text of a word without quotes and substitutions; empty
// for others.
func literalWord(w []part) string {
	if len(w) == 1 && w[0].kind == textPart && !w[0].quoted {
		return w[0].text
	}
	return ""
}

// walk calls do for a node and all below it, but for what is inside of words.
func walk(n *node, do func(*node)) {
	if n == nil {
		return
	}
	do(n)
	for _, c := range n.list {
		walk(c, do)
	}
	for _, a := range n.arms {
		walk(a.body, do)
	}
}
