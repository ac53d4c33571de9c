//! Suites about address ranges and sets of them.

use super::json::{self, Failure, exactly, list, number, numbers};
use serde_json::{Value, json};
use spanheap_core::addr::{Addr, AddrRange, Bytes};
use spanheap_core::offheap::AddrRanges;
use spanheap_core::os::{Category, Os, SimOs};

/// `addr_range`
pub(crate) fn one(input: &Value) -> Result<Value, Failure> {
    match json::text(input.get("op").ok_or("the field \"op\" is missing")?)? {
        "subtract" => {
            let [_, a, b] = exactly(input, ["op", "a", "b"])?;
            let left = read(a)?.subtract(read(b)?);
            Ok(json!({ "result": of_range(left), "size": left.bytes().get() }))
        }
        "remove_greater_equal" => {
            let [_, a, addr] = exactly(input, ["op", "a", "addr"])?;
            let left = read(a)?.remove_greater_equal(read_addr(addr)?);
            Ok(json!({ "result": of_range(left) }))
        }
        "contains" => {
            let [_, a, addr] = exactly(input, ["op", "a", "addr"])?;
            Ok(json!({ "result": read(a)?.contains(read_addr(addr)?) }))
        }
        "take_from_front" => take(input, AddrRange::take_from_front),
        "take_from_back" => take(input, AddrRange::take_from_back),
        unknown => Err(format!("unknown operation {unknown:?}")),
    }
}

type Take = fn(&mut AddrRange, Bytes, usize) -> Option<Addr>;

fn take(input: &Value, take: Take) -> Result<Value, Failure> {
    let [_, a, n, align] = exactly(input, ["op", "a", "n", "align"])?;
    let mut rest = read(a)?;
    let start = take(&mut rest, Bytes::new(number(n)?), number(align)?);
    Ok(json!({ "result": start.map(Addr::get), "rest": of_range(rest) }))
}

/// `addr_ranges_find_succ`
pub(crate) fn find_succ(input: &Value) -> Result<Value, Failure> {
    let [ranges, addr] = exactly(input, ["ranges", "addr"])?;
    let (ranges, addr) = (list(ranges)?, read_addr(addr)?);
    with_set(|os, set| {
        for range in ranges {
            add(os, set, read(range)?)?;
        }
        Ok(json!({ "index": set.find_succ(addr) }))
    })
}

/// `addr_ranges_script`
pub(crate) fn script(input: &Value) -> Result<Value, Failure> {
    let [ops] = exactly(input, ["ops"])?;
    let ops = list(ops)?;
    with_set(|os, set| {
        let mut before = of_set(set);
        let mut steps = Vec::new();
        for op in ops {
            let result = apply(os, set, op).map_err(|failure| format!("{op}: {failure}"))?;
            let after = of_set(set);
            let changed = if after == before { Value::Null } else { after.clone() };
            steps.push(json!([result, set.total().get(), changed]));
            before = after;
        }
        Ok(json!({ "steps": steps }))
    })
}

fn apply(os: &Os, set: &mut AddrRanges, op: &Value) -> Result<Value, Failure> {
    let (name, arguments) = list(op)?.split_first().ok_or("an empty operation")?;
    match (json::text(name)?, arguments) {
        ("add", [base, end]) => {
            add(os, set, AddrRange::new(read_addr(base)?, read_addr(end)?))?;
            Ok(Value::Null)
        }
        ("remove_last", [n]) => {
            let removed = set.remove_last(Bytes::new(number(n)?));
            Ok(removed.map_or(Value::Null, of_range))
        }
        ("remove_greater_equal", [addr]) => {
            set.remove_greater_equal(read_addr(addr)?);
            Ok(Value::Null)
        }
        ("find_succ", [addr]) => Ok(json!(set.find_succ(read_addr(addr)?))),
        ("find_addr_greater_equal", [addr]) => {
            Ok(json!(set.find_addr_greater_equal(read_addr(addr)?).map(Addr::get)))
        }
        ("contains", [addr]) => Ok(json!(set.contains(read_addr(addr)?))),
        ("clone_add", [base, end]) => {
            let range = AddrRange::new(read_addr(base)?, read_addr(end)?);
            with_set(|copy_os, copy| {
                set.clone_into(copy_os, copy).map_err(|error| error.to_string())?;
                add(copy_os, copy, range)?;
                Ok(json!([of_set(copy), copy.total().get()]))
            })
        }
        _ => Err("unknown operation".to_string()),
    }
}

/// More ranges than any case has.
const CAPACITY: usize = 4096;

/// Lends a set out, and gives its memory back.
fn with_set(
    run: impl FnOnce(&Os, &mut AddrRanges) -> Result<Value, Failure>,
) -> Result<Value, Failure> {
    let os = Os::simulated(SimOs::builder().build());
    let mut set =
        AddrRanges::new(&os, CAPACITY, Category::PageTables).map_err(|error| error.to_string())?;
    let outcome = run(&os, &mut set);
    set.release(&os);
    outcome
}

fn add(os: &Os, set: &mut AddrRanges, range: AddrRange) -> Result<(), Failure> {
    set.commit(os).map_err(|error| error.to_string())?;
    set.add(range);
    Ok(())
}

fn read_addr(value: &Value) -> Result<Addr, Failure> {
    number(value).map(Addr::new)
}

fn read(value: &Value) -> Result<AddrRange, Failure> {
    let [base, end] = numbers(value)?;
    if end < base {
        return Err(format!("the range {value} ends below its base"));
    }
    Ok(AddrRange::new(Addr::new(base), Addr::new(end)))
}

/// A range as the files write it; `null` when it is empty.
fn of_range(range: AddrRange) -> Value {
    if range.is_empty() {
        return Value::Null;
    }
    json!([range.base().get(), range.end().get()])
}

fn of_set(set: &AddrRanges) -> Value {
    set.iter().map(of_range).collect()
}
