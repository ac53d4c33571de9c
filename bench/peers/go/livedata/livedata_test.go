package livedata

import "testing"

func TestItGrowsShrinksAndStaysWhatItWas(t *testing.T) {
	d := New(5)
	d.GrowTo(4 << 20)
	full, err := d.Verify()
	if err != nil || full%slots != 0 || d.bytes < 4<<20 || d.bytes > 6<<20 {
		t.Fatalf("%d objects, %d bytes, %v", full, d.bytes, err)
	}
	for range 20 {
		if err := d.Renew(100_000); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := d.Verify(); left != full || err != nil {
		t.Errorf("%d objects and not %d, %v", left, full, err)
	}
	d.ShrinkTo(1 << 20)
	if d.bytes < 1<<20 || d.bytes > 2<<20 {
		t.Errorf("%d bytes", d.bytes)
	}
	d.segments[0].slots[0].payload[0]++
	if _, err := d.Verify(); err == nil {
		t.Error("an object that was changed is not found")
	}
}
