//! Suites about size classes.

use super::json::{self, Failure, exactly, flag, number};
use serde_json::{Value, json};
use spanheap_core::addr::{Bytes, PAGE_SHIFT};
use spanheap_core::span::size_class::{
    self, CLASS_COUNT, COARSE_STEP, FINE_MAX, FINE_STEP, SizeClass, go_compat,
};

/// `size_classes`
pub(crate) fn classes(input: &Value) -> Result<Value, Failure> {
    match json::kind(input)? {
        "classes" => {
            let [_] = exactly(input, ["kind"])?;
            let mut rows = Vec::new();
            let mut previous = 0;
            for class in table() {
                rows.push(row(class, previous));
                previous = class.size().get();
            }
            Ok(json!({ "classes": rows }))
        }
        "lookup" => {
            let [_] = exactly(input, ["kind"])?;
            let largest = size_class::MAX_SMALL_SIZE.get();
            let fine = (0..=FINE_MAX).step_by(FINE_STEP);
            let coarse = (FINE_MAX..=largest).step_by(COARSE_STEP);
            Ok(json!({
                "lookup_8": lookup(fine, FINE_STEP)?,
                "lookup_128": lookup(coarse, COARSE_STEP)?,
            }))
        }
        "object_index" => {
            let [_, class, offsets] = exactly(input, ["kind", "class", "offsets"])?;
            let class = SizeClass::from_index(number(class)?).ok_or("no such class")?;
            let mut index = Vec::new();
            for offset in json::list(offsets)? {
                index.push(class.object_index(Bytes::new(number(offset)?)));
            }
            Ok(json!({ "index": index }))
        }
        "constants" => {
            let [_] = exactly(input, ["kind"])?;
            let tiny = SizeClass::for_size(go_compat::TINY_SIZE).ok_or("no tiny class")?;
            Ok(json!({
                "max_small_size": size_class::MAX_SMALL_SIZE.get(),
                "small_size_max": FINE_MAX,
                "small_size_div": FINE_STEP,
                "large_size_div": COARSE_STEP,
                "num_classes": CLASS_COUNT,
                "page_shift": PAGE_SHIFT,
                "max_objects_per_span": size_class::MAX_OBJECTS_PER_SPAN,
                "max_pages_per_span": size_class::MAX_PAGES_PER_SPAN.get(),
                "tiny_size": go_compat::TINY_SIZE.get(),
                "tiny_class": tiny.index(),
                "header_size": go_compat::HEADER_SIZE.get(),
                "min_size_for_header": go_compat::MIN_SIZE_FOR_HEADER.get(),
            }))
        }
        kind => Err(format!("unknown kind {kind:?}")),
    }
}

/// Every class of the table, also the one that is not handed out.
fn table() -> impl Iterator<Item = SizeClass> {
    (1..CLASS_COUNT).filter_map(SizeClass::from_index)
}

fn row(class: SizeClass, previous_size: usize) -> Value {
    let (size, span) = (class.size().get(), class.pages().bytes().get());
    let waste = (size - previous_size - 1) * class.objects() + class.tail_waste().get();
    let percent = (waste as f64 / span as f64 * 10_000.0).round() / 100.0;
    json!([
        class.index(),
        size,
        class.pages().get(),
        class.objects(),
        class.tail_waste().get(),
        percent,
        class.div_magic(),
    ])
}

/// The class of every size of a lookup table. Its entry i stands for the sizes up to the i-th and
/// above the one before, all of which must agree.
fn lookup(sizes: impl Iterator<Item = usize>, step: usize) -> Result<Vec<usize>, Failure> {
    let class = |size| SizeClass::table_entry_for(Bytes::new(size)).map_or(0, SizeClass::index);
    let mut classes = Vec::new();
    for (i, top) in sizes.enumerate() {
        let answer = class(top);
        if i > 0 && (top - step + 1..=top).any(|size| class(size) != answer) {
            return Err(format!("the sizes up to {top} have several classes"));
        }
        classes.push(answer);
    }
    Ok(classes)
}

/// `round_up_size`
pub(crate) fn round_up_size(input: &Value) -> Result<Value, Failure> {
    match json::kind(input)? {
        "segment" => {
            let [_, noscan, lo, hi] = exactly(input, ["kind", "noscan", "lo", "hi"])?;
            let (noscan, lo, hi) = (flag(noscan)?, number(lo)?, number(hi)?);
            if lo > hi {
                return Err(format!("no size is between {lo} and {hi}"));
            }
            let size = go_compat::round_up_size(Bytes::new(lo), noscan);
            for other in lo..=hi {
                if go_compat::round_up_size(Bytes::new(other), noscan) != size {
                    return Err(format!("{lo} and {other} bytes get different blocks"));
                }
            }
            Ok(json!({ "size": size.get() }))
        }
        "value" => {
            let [_, noscan, size] = exactly(input, ["kind", "noscan", "size"])?;
            let size = Bytes::new(number(size)?);
            Ok(json!({ "size": go_compat::round_up_size(size, flag(noscan)?).get() }))
        }
        kind => Err(format!("unknown kind {kind:?}")),
    }
}
