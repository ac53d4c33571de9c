//! Serving requests: a loop for each place.
//!
//! A request is `decode`, `sum`, drop, and what a program has to do around it: a closure of the heap, an arena, a
//! reset. Everything between two requests is in the time of one of them.

use std::hint::black_box;
use std::time::Instant;

use spanheap::Heap;

use super::arenas::{Promoted, Scoped, ScopedReset};
use super::document::{Look, Scratch, sum};
use super::places::{Boxes, InBoxes, InClosure, InHeap, InNothing, Nothing};
use super::shared::Shared;
use super::{Document, Options, decode};
use crate::bench::histogram::Histogram;
use crate::failure::Result;

/// A way to serve requests.
pub(super) trait Variant {
    /// Serves so many requests. Returns the sum of what they found, which is [`Variant::proof`] each time.
    fn serve(&mut self, text: &str, requests: u64, times: &mut Histogram) -> u64;

    /// What a request finds.
    fn proof(&self, document: &Document) -> u64 {
        document.sum
    }

    /// Whether what is left at the end is what it should be.
    fn verify(&mut self, _document: &Document) -> Result<()> {
        Ok(())
    }

    /// The heap that it has for itself, if it has one.
    fn heap(&self) -> Option<&Heap> {
        None
    }
}

/// A variant and its name.
pub(super) struct Named {
    pub(super) name: &'static str,
    pub(super) variant: Box<dyn Variant>,
}

impl Named {
    pub(super) fn new(name: &'static str, variant: impl Variant + 'static) -> Named {
        Named { name, variant: Box::new(variant) }
    }
}

/// All variants without the peers.
pub(super) fn all(options: &Options) -> Result<Vec<Named>> {
    Ok(vec![
        Named::new("parse", Parse { scratch: Scratch::new() }),
        Named::new("heap", OnHeap { heap: heap(options)?, scratch: Scratch::new() }),
        Named::new("scoped", Scoped::new(heap(options)?)),
        Named::new("scoped-reset", ScopedReset(Scoped::new(heap(options)?))),
        Named::new("shared", Shared::new(heap(options)?, 1)),
        Named::new("shared-64", Shared::new(heap(options)?, 64)),
        Named::new("promoted", Promoted::new(heap(options)?, options.promote)),
        Named::new("box", Boxed { scratch: Scratch::new() }),
    ])
}

fn heap(options: &Options) -> Result<Heap> {
    Ok(Heap::builder().from_env().gc_percent(options.gc_percent).build()?)
}

/// Runs `request` so many times. One reading of the clock for each: where one ends the next begins.
#[inline]
pub(super) fn timed(requests: u64, times: &mut Histogram, mut request: impl FnMut() -> u64) -> u64 {
    let (mut sum, mut before) = (0_u64, Instant::now());
    for _ in 0..requests {
        sum = sum.wrapping_add(request());
        let now = Instant::now();
        times.record(now.duration_since(before).as_nanos() as u64);
        before = now;
    }
    sum
}

/// Decodes the document and walks it. It was decoded before, so it is well-formed; else the sum is wrong.
#[inline]
pub(super) fn request<P: Look>(place: &mut P, text: &str, scratch: &mut Scratch<P::Kind>) -> u64 {
    match decode(black_box(text), place, scratch) {
        Ok(value) => sum(place, &value),
        Err(_) => 0,
    }
}

struct Parse {
    scratch: Scratch<InNothing>,
}

impl Variant for Parse {
    fn serve(&mut self, text: &str, requests: u64, times: &mut Histogram) -> u64 {
        timed(requests, times, || {
            let mut place = Nothing { objects: 0 };
            let value = decode(black_box(text), &mut place, &mut self.scratch);
            u64::from(black_box(value).is_ok()) * place.objects
        })
    }

    /// How much memory was asked for.
    fn proof(&self, document: &Document) -> u64 {
        document.census.objects
    }
}

struct Boxed {
    scratch: Scratch<InBoxes>,
}

impl Variant for Boxed {
    fn serve(&mut self, text: &str, requests: u64, times: &mut Histogram) -> u64 {
        timed(requests, times, || request(&mut Boxes, text, &mut self.scratch))
    }
}

struct OnHeap {
    heap: Heap,
    scratch: Scratch<InHeap<'static>>,
}

impl Variant for OnHeap {
    fn serve(&mut self, text: &str, requests: u64, times: &mut Histogram) -> u64 {
        timed(requests, times, || {
            self.heap
                .enter(|mc| self.scratch.lend(|scratch| request(&mut InClosure(mc), text, scratch)))
        })
    }

    fn heap(&self) -> Option<&Heap> {
        Some(&self.heap)
    }
}
