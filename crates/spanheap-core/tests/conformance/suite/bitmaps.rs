//! Suites about the bitmap of one chunk, about words, and about summaries.

use super::json::{self, Failure, exactly, number, numbers, tuple};
use serde_json::{Value, json};
use spanheap_core::addr::PageCount;
use spanheap_core::bitmap;
use spanheap_core::pages::bits::{self, PageBits};
use spanheap_core::pages::summary::{self, Summary};

/// `palloc_bits_ops`
pub(crate) fn ops(input: &Value) -> Result<Value, Failure> {
    let [before, ops] = exactly(input, ["before", "ops"])?;
    let mut bitmap: PageBits = json::runs(before)?;
    let mut results = Vec::new();
    for op in json::list(ops)? {
        let [name, start, n] = tuple(op)?;
        let (start, n) = (number(start)?, PageCount::new(number(n)?));
        results.push(match json::text(name)? {
            "alloc_range" => {
                bits::set(&mut bitmap, start, n);
                Value::Null
            }
            "free" => {
                bits::clear(&mut bitmap, start, n);
                Value::Null
            }
            "popcnt" => json!(bits::count(&bitmap, start, n).get()),
            _ => return Err(format!("unknown operation {op}")),
        });
    }
    Ok(json!({ "results": results, "after": json::of_words(&bitmap) }))
}

fn of_summary(sum: Summary) -> Value {
    json!({ "start": sum.start().get(), "max": sum.max().get(), "end": sum.end().get() })
}

/// `palloc_bits_summarize`
pub(crate) fn summarize(input: &Value) -> Result<Value, Failure> {
    let [bitmap] = exactly(input, ["bits"])?;
    Ok(of_summary(bits::summarize(&json::words(bitmap)?)))
}

/// `palloc_bits_find`
pub(crate) fn find(input: &Value) -> Result<Value, Failure> {
    match json::kind(input)? {
        "alloc_sequence" => {
            let [_, before, npages, count] = exactly(input, ["kind", "before", "npages", "count"])?;
            let mut bitmap: PageBits = json::runs(before)?;
            let n = PageCount::new(number(npages)?);
            let mut at = Vec::new();
            for _ in 0..number(count)? {
                let found = bits::find(&bitmap, n, 0);
                if let Some(found) = found {
                    bits::set(&mut bitmap, found.start, n);
                }
                at.push(found.map(|found| found.start));
            }
            Ok(json!({ "at": at, "after": json::of_words(&bitmap) }))
        }
        "queries" => {
            let [_, bitmap, queries] = exactly(input, ["kind", "bits", "queries"])?;
            let bitmap: PageBits = json::words(bitmap)?;
            let mut found = Vec::new();
            for query in json::list(queries)? {
                let [n, hint] = numbers(query)?;
                let answer = bits::find(&bitmap, PageCount::new(n), hint);
                found.push(answer.map(|found| [found.start, found.first_free]));
            }
            Ok(json!({ "found": found }))
        }
        kind => Err(format!("unknown kind {kind:?}")),
    }
}

/// `find_bit_range64`
pub(crate) fn find_bit_range64(input: &Value) -> Result<Value, Failure> {
    let [word, n] = exactly(input, ["word", "n"])?;
    let index = bitmap::find_bit_range64(json::word(word)?, number(n)?);
    Ok(json!({ "index": index }))
}

fn read_summary(value: &Value) -> Result<Summary, Failure> {
    let [start, max, end] = numbers(value)?.map(PageCount::new);
    Ok(Summary::new(start, max, end))
}

/// `summary_merge`. Summaries are packed as Go packs them, so the cases of kind `pack` hold as
/// well.
pub(crate) fn merge(input: &Value) -> Result<Value, Failure> {
    match json::kind(input)? {
        "merge" => {
            let [_, log_pages, sums] = exactly(input, ["kind", "log_pages", "sums"])?;
            let sums: Vec<Summary> =
                json::list(sums)?.iter().map(read_summary).collect::<Result<_, _>>()?;
            Ok(of_summary(summary::merge(sums, number(log_pages)? as u32)))
        }
        "pack" => {
            let [_, sum] = exactly(input, ["kind", "sum"])?;
            let packed = read_summary(sum)?.to_bits();
            let back = Summary::from_bits(packed);
            let unpacked = [back.start(), back.max(), back.end()].map(PageCount::get);
            Ok(json!({ "packed": json::of_word(packed), "unpacked": unpacked }))
        }
        kind => Err(format!("unknown kind {kind:?}")),
    }
}
