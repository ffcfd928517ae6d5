package nbd

import "time"

// Delay holds requests up, as a slow disk or a long way does; it is for tests.
// Its method Filter is a [Filter]. What is 0 is not held up. The time of
// requests under way at the same time passes at the same time.
type Delay struct {
	Read  time.Duration // of ReadAt
	Write time.Duration // of WriteAt, Trim and Zero
	Sync  time.Duration // of Sync
}

// Filter returns dev, held up. It has dev's abilities.
func (d Delay) Filter(dev Device) Device { return &filtered{Pass{dev}, d} }

func (d Delay) before(op Op, _, _ int64) error {
	switch op {
	case OpRead:
		time.Sleep(d.Read)
	case OpWrite, OpTrim, OpZero:
		time.Sleep(d.Write)
	case OpSync:
		time.Sleep(d.Sync)
	}
	return nil
}

func (d Delay) after(Op, int64, time.Duration, error) {}
func (d Delay) slow() bool                            { return true }
func (d Delay) closed()                               {}
