package peer

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Key is a parameter of a workload. It is a whole number, unless it has a Text: then it is any text, and this the
// default.
type Key struct {
	Name    string
	Default uint64
	Min     uint64
	Max     uint64
	Text    string
}

// MaxThreads bounds the parameter threads. More are a typing error.
const MaxThreads = 1024

// common are the parameters that every workload has.
var common = []Key{{Name: "threads", Default: 1, Min: 1, Max: MaxThreads}}

// Params has a value for each key of a workload, in their order.
type Params struct {
	keys    []Key
	numbers []uint64
	words   []string
	// Threads is how many goroutines share the work.
	Threads int
	// GCPercent is how much the heap may grow before the next cycle; negative if it may grow for ever.
	GCPercent int
	// Limit is what the runtime holds its memory to, in bytes.
	Limit int64
}

// Parse takes the defaults of keys, and then each key=value of settings; the last one counts. What is the
// runtime's own, gc_percent and limit, is what it was told through its environment, unless there is a setting.
func Parse(keys []Key, settings []string) (*Params, error) {
	all := append(slices.Clone(keys), common...)
	p := &Params{keys: all, GCPercent: currentPercent(), Limit: currentLimit()}
	for _, key := range all {
		p.numbers = append(p.numbers, key.Default)
		p.words = append(p.words, key.Text)
	}
	for _, setting := range settings {
		name, text, ok := strings.Cut(setting, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not key=value", setting)
		}
		if err := p.set(name, text); err != nil {
			return nil, err
		}
	}
	p.Threads = int(p.Get("threads"))
	return p, nil
}

func (p *Params) set(name, text string) error {
	switch name {
	case "gc_percent":
		if text == "off" {
			p.GCPercent = -1
			return nil
		}
		percent, err := number(Key{Name: name, Max: math.MaxInt32}, text)
		p.GCPercent = int(percent)
		return err
	case "limit":
		limit, err := number(Key{Name: name, Min: 1, Max: math.MaxInt64}, text)
		p.Limit = int64(limit)
		return err
	}
	at := p.index(name)
	if at < 0 {
		var names []string
		for _, key := range p.keys {
			names = append(names, key.Name)
		}
		return fmt.Errorf("there is no key %q; there are %s, gc_percent and limit", name, strings.Join(names, ", "))
	}
	key := p.keys[at]
	if key.Text != "" {
		p.words[at] = text
		return nil
	}
	value, err := number(key, text)
	p.numbers[at] = value
	return err
}

func (p *Params) index(name string) int {
	return slices.IndexFunc(p.keys, func(key Key) bool { return key.Name == name })
}

// Get returns the value of a key that is a number. A workload that asks for one that it has not declared is wrong.
func (p *Params) Get(name string) uint64 {
	return p.numbers[p.index(name)]
}

// Word returns the value of a key that is a text.
func (p *Params) Word(name string) string {
	return p.words[p.index(name)]
}

// object has all parameters, for the report.
func (p *Params) object() object {
	var all object
	for i, key := range p.keys {
		if key.Text != "" {
			all = append(all, Figure{key.Name, wordOrNumber(p.words[i])})
		} else {
			all = append(all, Figure{key.Name, p.numbers[i]})
		}
	}
	percent, limit := Figure{"gc_percent", nil}, Figure{"limit", nil}
	if p.GCPercent >= 0 {
		percent.Value = p.GCPercent
	}
	if p.Limit != math.MaxInt64 {
		limit.Value = p.Limit
	}
	return append(all, percent, limit)
}

// wordOrNumber is a text as it is in a report: a number, if it is one.
func wordOrNumber(text string) any {
	if _, err := strconv.ParseFloat(text, 64); err != nil {
		return text
	}
	return json.Number(text)
}

var units = []struct {
	name   string
	factor float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// number reads a whole number; a number of bytes may have a unit, and a switch may be on or off.
func number(key Key, text string) (uint64, error) {
	if key.Max == 1 && (text == "on" || text == "off") {
		text = map[string]string{"on": "1", "off": "0"}[text]
	}
	value, err := strconv.ParseUint(text, 10, 64)
	for _, unit := range units {
		if rest, ok := strings.CutSuffix(text, unit.name); ok && err != nil {
			var real float64
			if real, err = strconv.ParseFloat(strings.TrimSpace(rest), 64); err == nil {
				value = uint64(real * unit.factor)
			}
			break
		}
	}
	if err != nil {
		return 0, fmt.Errorf("%s=%q is not a whole number", key.Name, text)
	}
	if value < key.Min || value > key.Max {
		return 0, fmt.Errorf("%s is %d, it must be %d to %d", key.Name, value, key.Min, key.Max)
	}
	return value, nil
}
