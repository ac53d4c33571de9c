package peer

import (
	"bytes"
	"encoding/json"
	"math"
	"time"
)

// Figure is a key of a report and its value; the unit is at the end of the key.
type Figure struct {
	Key   string
	Value any
}

// Real is a figure that is a ratio or a time. What is no number, such as a part of nothing, is 0.
func Real(key string, value float64) Figure {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		value = 0
	}
	return Figure{key, value}
}

// Outcome is what a workload has found out.
type Outcome struct {
	// Checksum is equal for all implementations of the workload with equal parameters.
	Checksum uint64
	// NoChecksum says that there is none, since the work depends on time.
	NoChecksum bool
	// Operation is the name of what was timed, if something was, and Latency the times.
	Operation string
	Latency   *Histogram
	// Figures are what it has found out besides.
	Figures []Figure
	// Rows are the reports of variants, where a workload has several in one process.
	Rows [][]Figure
}

// Workload is what is known about a workload before it runs.
type Workload struct {
	Name string
	Keys []Key
	// Settings changes what the runtime is told, if it is not nil.
	Settings func(*Params) error
	Run      func(*Params) (*Outcome, error)
}

// points of a distribution are reported, in parts of 10,000.
var points = []struct {
	name string
	part uint64
}{{"p50", 5_000}, {"p99", 9_900}, {"p999", 9_990}, {"p9999", 9_999}, {"max", 10_000}}

// Percentiles are the points of a distribution as figures, under names like push_p99_ns.
func Percentiles(prefix string, h *Histogram) []Figure {
	var figures []Figure
	for _, point := range points {
		figures = append(figures, Figure{prefix + "_" + point.name + "_ns", h.Quantile(point.part)})
	}
	return figures
}

// Measure runs a workload with the settings key=value, and returns its report as one line of JSON.
func Measure(w *Workload, settings []string) ([]byte, error) {
	p, err := Parse(w.Keys, settings)
	if err != nil {
		return nil, err
	}
	if w.Settings != nil {
		if err := w.Settings(p); err != nil {
			return nil, err
		}
	}
	defer apply(p)()
	user, system := Times()
	cycles, busy := Cycles(), NowBusy()
	started := time.Now()
	outcome, err := w.Run(p)
	if err != nil {
		return nil, err
	}
	wall := time.Since(started)
	userAfter, systemAfter := Times()
	cpu := userAfter - user + systemAfter - system
	collector := cpu.Seconds() * NowBusy().partOf(busy, wall)
	report := object{
		{"workload", w.Name},
		{"subject", subject(p)},
		{"params", p.object()},
		{"checksum", nil},
		{"wall_s", wall.Seconds()},
		{"user_s", (userAfter - user).Seconds()},
		{"sys_s", (systemAfter - system).Seconds()},
		{"peak_rss_bytes", PeakResident()},
		{"gc_cycles", Cycles() - cycles},
		{"gc_cpu_s", collector},
		{"longest_stall_ns", LongestStop().Nanoseconds()},
	}
	if !outcome.NoChecksum {
		report[3].Value = outcome.Checksum
	}
	if outcome.Latency != nil {
		report = append(report, Percentiles(outcome.Operation, outcome.Latency)...)
	}
	report = append(report, outcome.Figures...)
	if outcome.Rows != nil {
		report = append(report, Rows("rows", outcome.Rows))
	}
	return json.Marshal(report)
}

// subject is the name of what was measured.
func subject(p *Params) string {
	inArena := p.index("variant") >= 0 && p.Word("variant") == "arena" || p.index("arena") >= 0 && p.Get("arena") == 1
	if inArena {
		return "go-arena"
	}
	return "go"
}

// Rows is a figure that is a list of objects.
func Rows(key string, rows [][]Figure) Figure {
	var list []object
	for _, row := range rows {
		list = append(list, row)
	}
	return Figure{key, list}
}

// object is a JSON object whose keys stay in order.
type object []Figure

func (o object) MarshalJSON() ([]byte, error) {
	var text bytes.Buffer
	text.WriteByte('{')
	for i, figure := range o {
		if i > 0 {
			text.WriteByte(',')
		}
		key, err := json.Marshal(figure.Key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(figure.Value)
		if err != nil {
			return nil, err
		}
		text.Write(key)
		text.WriteByte(':')
		text.Write(value)
	}
	text.WriteByte('}')
	return text.Bytes(), nil
}
