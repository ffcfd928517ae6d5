package nbd

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"strconv"
	"strings"
)

// A token is SEQ-MAC in lower-case letters and digits, because names pass
// through file systems and firmware that fold case. SEQ counts up and is the
// time of minting in milliseconds, in base 36; MAC has 65 bits.
const macDigits = 13

var tokenEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

func formatSeq(seq int64) string { return strconv.FormatInt(seq, 36) }

// parseSeq takes only what formatSeq makes, so that a sequence number has one
// form.
func parseSeq(s string) (int64, bool) {
	seq, err := strconv.ParseInt(s, 36, 64)
	return seq, err == nil && seq > 0 && formatSeq(seq) == s
}

func makeToken(secret []byte, n Name, kind Kind, seq int64) string {
	h := hmac.New(sha256.New, secret)
	// '|' is in no part of a name.
	for _, part := range []string{n.Image, n.Generation, n.Root, kind.String(), formatSeq(seq)} {
		h.Write([]byte(part))
		h.Write([]byte{'|'})
	}
	mac := strings.ToLower(tokenEncoding.EncodeToString(h.Sum(nil)))
	return formatSeq(seq) + "-" + mac[:macDigits]
}

// checkToken reports whether n's token was made with this secret for exactly
// this name, and for which kind.
func checkToken(secret []byte, n Name) (seq int64, kind Kind, ok bool) {
	s, _, _ := strings.Cut(n.Boot, "-")
	if seq, ok = parseSeq(s); !ok {
		return 0, 0, false
	}
	for _, kind := range []Kind{Ephemeral, Kept} {
		if hmac.Equal([]byte(makeToken(secret, n, kind, seq)), []byte(n.Boot)) {
			return seq, kind, true
		}
	}
	return 0, 0, false
}
