//! The suite about the histogram of durations.

use super::json::{self, Failure, exactly};
use serde_json::{Value, json};
use spanheap_core::sync::{TIME_COUNTERS, TimeBucket, TimeHistogram, time_edges};

/// `time_histogram`
pub(crate) fn time(input: &Value) -> Result<Value, Failure> {
    match json::kind(input)? {
        "edges" => {
            let [_] = exactly(input, ["kind"])?;
            Ok(json!({ "seconds": time_edges().map(of_float).to_vec() }))
        }
        "record" => {
            let [_, duration] = exactly(input, ["kind", "duration"])?;
            let nanos = duration.as_i64().ok_or("a signed number of nanoseconds is expected")?;
            Ok(json!({ "index": recorded(nanos)? }))
        }
        unknown => Err(format!("unknown kind {unknown:?}")),
    }
}

/// Records a duration, and reads from the counts where it went.
fn recorded(nanos: i64) -> Result<Value, Failure> {
    let histogram = TimeHistogram::new();
    histogram.record_nanos(nanos);
    let counts = histogram.snapshot();
    if counts.total() != 1 {
        return Err(format!("one record was counted {} times", counts.total()));
    }
    match TimeBucket::of(nanos) {
        TimeBucket::Underflow if counts.underflow == 1 => Ok(json!("underflow")),
        TimeBucket::Overflow if counts.overflow == 1 => Ok(json!("overflow")),
        TimeBucket::Counter(index) if index < TIME_COUNTERS && counts.counters[index] == 1 => {
            Ok(json!(index))
        }
        other => Err(format!("{other:?} is not what was counted")),
    }
}

/// A float as the files write it.
fn of_float(value: f64) -> Value {
    match value {
        f64::INFINITY => json!("+Inf"),
        f64::NEG_INFINITY => json!("-Inf"),
        value => json!(value),
    }
}
