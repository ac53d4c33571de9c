package main

import (
	"encoding/json"
	"strings"
	"testing"

	"spanheap/bench/peers/go/peer"
)

// field is a value of a report, as it is written.
func field(t *testing.T, line []byte, name string) string {
	t.Helper()
	var report map[string]json.RawMessage
	if err := json.Unmarshal(line, &report); err != nil {
		t.Fatalf("%s is no JSON: %v", line, err)
	}
	return string(report[name])
}

// The checksums are those of spanheap bench at the same parameters.
func TestChecksums(t *testing.T) {
	for _, test := range []struct{ arguments, checksum string }{
		{"binary-trees depth=14", "3156655"},
		{"binary-trees depth=14 threads=3", "3156655"},
		{"binary-trees depth=14 gc_percent=off limit=64MiB", "3156655"},
		{"gcbench stretch=14 longlived=12 array=1000 max=12", "40771"},
		{"gcbench stretch=14 longlived=12 array=1000 max=12 threads=2", "40771"},
		{"marking shape=0 objects=5000 rounds=2", "12502500"},
		{"marking shape=1 objects=5000 rounds=2", "12214297"},
		{"marking shape=2 objects=5000 rounds=2", "12502500"},
		{"marking shape=3 objects=5000 rounds=2", "12502500"},
		{"marking shape=4 objects=5000 rounds=2", "12502500"},
		{"marking shape=5 objects=5000 rounds=2", "12502500"},
		{"message-bus window=1000 messages=10000 size=100", "64128180"},
		{"message-bus window=1000 messages=10000 size=100 rate=1000000", "64128180"},
		{"message-bus window=1000 messages=10000 size=100 threads=3", "32325995"},
		{"lru entries=10000 keys=20000 operations=100000", "3751512800"},
		{"lru entries=10000 keys=20000 operations=100000 threads=3", "1227283463"},
		{"limits entries=10000 keys=20000 operations=100000 percent=300", "3751512800"},
		{"spatial-index points=3000 operations=3000", "32616550329308917"},
		{"spatial-index points=20000 operations=20000 threads=2", "63163193456714510"},
		{"spatial-index points=50 operations=1000 k=100", "10967778524062992542"},
		{"spatial-index points=1 operations=100", "4404234415028656"},
		{"request-arena requests=20 rounds=2 size=2048 document=requestarena/testdata/order.json", "9594276142838237793"},
		{"arena-objects objects=1000 arenas=4 rounds=2", "125253"},
		{"write-storm slots=100000 nodes=1000 stores=1200000", "2496001306469"},
		{"write-storm slots=100000 nodes=1000 stores=1200000 threads=2", "1245988685577"},
		{"phases phase_seconds=0.1 cycles=1 small=1MiB large=4MiB", "null"},
		{"start-up rounds=10", "5040000"},
	} {
		line, err := run(strings.Fields(test.arguments))
		if err != nil {
			t.Errorf("%s: %v", test.arguments, err)
		} else if found := field(t, line, "checksum"); found != test.checksum {
			t.Errorf("%s: checksum %s, and not %s", test.arguments, found, test.checksum)
		}
	}
}

func TestArenasHaveTheSameChecksums(t *testing.T) {
	document := "size=2048 document=requestarena/testdata/order.json"
	for _, test := range []struct{ arguments, checksum string }{
		{"binary-trees depth=14 arena=1", "3156655"},
		{"request-arena requests=20 rounds=2 variant=heap,arena " + document, "9594276142838237793"},
		{"arena-objects objects=1000 arenas=4 rounds=2 variant=heap,arena", "125253"},
	} {
		line, err := run(strings.Fields(test.arguments))
		if !peer.HaveArenas {
			if err == nil {
				t.Errorf("%s: not refused by a program without arenas", test.arguments)
			}
		} else if err != nil {
			t.Errorf("%s: %v", test.arguments, err)
		} else if found := field(t, line, "checksum"); found != test.checksum {
			t.Errorf("%s: checksum %s, and not %s", test.arguments, found, test.checksum)
		}
	}
}

func TestTheCommonKeysAreInOrder(t *testing.T) {
	line, err := run(strings.Fields("message-bus window=100 messages=1000 threads=2 gc_percent=off limit=1GiB"))
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(line)))
	var keys []string
	depth := 0
	for isKey := false; decoder.More() || depth > 0; {
		token, err := decoder.Token()
		if err != nil {
			t.Fatal(err)
		}
		switch token {
		case json.Delim('{'):
			depth++
			isKey = true
		case json.Delim('}'):
			depth--
			isKey = true
		default:
			if isKey && depth == 1 {
				keys = append(keys, token.(string))
			}
			isKey = !isKey
		}
	}
	wanted := "workload subject params checksum wall_s user_s sys_s peak_rss_bytes gc_cycles gc_cpu_s longest_stall_ns " +
		"push_p50_ns push_p99_ns push_p999_ns push_p9999_ns push_max_ns"
	if found := strings.Join(keys, " "); found != wanted {
		t.Errorf("keys %s, and not %s", found, wanted)
	}
	settings := `{"window":100,"messages":1000,"size":1024,"rate":0,"threads":2,"gc_percent":null,"limit":1073741824}`
	if found := field(t, line, "params"); found != settings {
		t.Errorf("params %s, and not %s", found, settings)
	}
}

func TestMistakesAreRefused(t *testing.T) {
	for _, arguments := range []string{
		"",
		"no-such-workload",
		"binary-trees depth",
		"binary-trees depth=3",
		"binary-trees depth=1x",
		"binary-trees depth=99999999999999999999",
		"binary-trees size=3",
		"binary-trees threads=0",
		"marking objects=1023",
		"gcbench min=5 max=4",
		"lru entries=10 shards=64",
		"message-bus window=1 threads=2",
		"request-arena",
		"request-arena document=main.go variant=nowhere",
		"phases phase_seconds=x",
		"binary-trees limit=0",
	} {
		if line, err := run(strings.Fields(arguments)); err == nil {
			t.Errorf("%q is not refused: %s", arguments, line)
		}
	}
}
