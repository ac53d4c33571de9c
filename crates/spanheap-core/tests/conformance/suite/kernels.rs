//! Suites about reading the pointers of a page: every kernel that the processor has must give the answer.
//!
//! All cases can be asked. What is done in another way here: objects are named by the granule in which they begin
//! instead of by their index, so objects of 8 bytes, of which two begin in a granule, are no objects here; in these
//! cases the words of the mask are the objects, and only reading them is tested. A kernel drops zeros in the same
//! step, so the zeros of a list are dropped by reading it as a page.
//!
//! # Safety
//! Kernels read pages of the test.
#![allow(unsafe_code)]

use super::json::{self, Failure, exactly, list, number};
use serde_json::{Value, json};
use spanheap_core::addr::{Addr, Bytes};
use spanheap_core::collect::kernel::{Found, Kernel, PAGE_WORDS, Pattern, WordMask};

/// Bytes of a word.
const WORD: usize = 8;

/// Bytes of a granule.
const GRANULE: usize = 16;

/// The value of word 0 of a page; that of the others follows.
const FIRST: usize = 8193;

/// What all kernels read of `page` under `mask`; an error if they differ.
fn read(page: &[usize; PAGE_WORDS], mask: &WordMask) -> Result<Vec<usize>, Failure> {
    let mut answer: Option<Vec<usize>> = None;
    for kernel in Kernel::all() {
        let mut found = Found::new();
        // SAFETY: all words of the page can be read, and nobody changes them.
        unsafe { kernel.gather(Addr::of(page.as_ptr()), mask, &mut found) };
        let before = answer.get_or_insert_with(|| found.values().to_vec());
        if *before != found.values() {
            return Err(format!("the kernel {kernel:?} reads {:?}", found.values()));
        }
    }
    answer.ok_or_else(|| "there is no kernel".to_string())
}

/// Up to 16 words, the rest of which is 0.
fn mask(value: &Value) -> Result<WordMask, Failure> {
    let words = list(value)?;
    let mut mask: WordMask = [0; 16];
    if words.len() > mask.len() {
        return Err(format!("{} words are more than a page has", words.len()));
    }
    for (place, word) in mask.iter_mut().zip(words) {
        *place = json::word(word)?;
    }
    Ok(mask)
}

/// A mask without the zeros at its end.
fn of_mask(mask: &WordMask) -> Value {
    let len = mask.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1);
    json::of_words(&mask[..len])
}

/// The words of the objects of `size` bytes whose indices are in `objects`.
fn expand(size: usize, objects: &WordMask) -> Result<WordMask, Failure> {
    if size == WORD {
        return Ok(*objects);
    }
    let pattern = Pattern::new(size, 0, 0).ok_or_else(|| format!("no slot has {size} bytes"))?;
    let pattern = pattern.with_pointers([u64::MAX; 16]);
    let mut granules = [0u64; 8];
    for index in (0..PAGE_WORDS).filter(|&index| objects[index / 64] >> (index % 64) & 1 == 1) {
        let granule = index * size / GRANULE;
        *granules.get_mut(granule / 64).ok_or("an object behind the page")? |= 1 << (granule % 64);
    }
    Ok(pattern.expand(&granules))
}

/// `scan_span_packed`
pub(crate) fn scan(input: &Value) -> Result<Value, Failure> {
    let fields = ["size_class", "size", "object_mask", "pointer_mask", "zero_words"];
    let [class, size, objects, pointers, zeros] = exactly(input, fields)?;
    let (class, size) = (number(class)?, number(size)?);
    let known = spanheap_core::span::size_class::SizeClass::from_index(class);
    if known.map(|class| class.size()) != Some(Bytes::new(size)) {
        return Err(format!("class {class} has no slots of {size} bytes"));
    }
    let mut page = Box::new([0; PAGE_WORDS]);
    page.iter_mut().enumerate().for_each(|(index, word)| *word = FIRST + index);
    for zero in list(zeros)? {
        *page.get_mut(number(zero)?).ok_or("a word behind the page")? = 0;
    }
    let words = expand(size, &mask(objects)?)?;
    let (pointers, mut found) = (mask(pointers)?, [0u64; 16]);
    let values = read(&page, &core::array::from_fn(|index| words[index] & pointers[index]))?;
    if !values.is_sorted() {
        return Err("the values are not in the order of their words".to_string());
    }
    for value in &values {
        let index = value - FIRST;
        found[index / 64] |= 1 << (index % 64);
    }
    Ok(json!({
        "word_mask": of_mask(&words), "found_mask": of_mask(&found), "count": values.len(),
    }))
}

/// `filter_nil`
pub(crate) fn filter_nil(input: &Value) -> Result<Value, Failure> {
    let [values] = exactly(input, ["values"])?;
    let values = list(values)?.iter().map(number).collect::<Result<Vec<usize>, _>>()?;
    let mut left = Vec::new();
    for part in values.chunks(PAGE_WORDS) {
        let mut page = Box::new([0; PAGE_WORDS]);
        page[..part.len()].copy_from_slice(part);
        // What is behind the list is not asked for, and must not be found.
        page[part.len()..].fill(usize::MAX);
        let is_asked = |word: usize| u64::from(word < part.len());
        let mask = core::array::from_fn(|index| {
            (0..64).fold(0, |all, bit| all | is_asked(index * 64 + bit) << bit)
        });
        left.extend(read(&page, &mask)?);
    }
    left.sort_unstable();
    Ok(json!({ "values": left }))
}
