//! The hand that a trace function writes the pointers of an object into.
//!
//! The same function serves three readers: the collector, which marks what is reported; a mutator that
//! is about to change a locked container, which buffers it; and checkmark mode, which compares. They
//! differ in the [`EdgeSink`] and in the [`Reader`] that the tracer names.
//!
//! # Safety
//! Making a tracer is the caller's promise about who he is, and reporting an edge one about what is at
//! the address: sinks look for an object there. Nothing unsafe is done here.
#![allow(unsafe_code)]

use super::alone::{Alone, Busy};
use super::ephemeron::EphemeronCell;
use crate::addr::Addr;

/// Reports the pointers of `count` values that lie one behind the other at `object`.
///
/// # Safety
/// `object` points to `count` initialised values of the type that the function was made for, and they
/// stay valid and are not written to, other than through their own interior mutability, meanwhile.
pub type TraceFn = unsafe fn(object: *const u8, count: usize, tracer: &mut Tracer<'_>);

/// Where reported pointers go.
pub trait EdgeSink {
    /// Takes the address of an object that the traced object points to. Only tracers call it, with what
    /// was promised to [`Tracer::edge`].
    fn edge(&mut self, target: Addr);

    /// Takes what a trace function claims to be such an address, and believes nothing.
    fn claim(&mut self, target: Addr) {
        self.edge(target);
    }

    /// Takes an ephemeron. Who marks has to do better; for everybody else both words are pointers like any
    /// other.
    fn ephemeron(&mut self, cell: &EphemeronCell) {
        for target in [cell.key(), cell.value()] {
            if !target.is_null() {
                self.edge(target);
            }
        }
    }
}

/// Who traces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reader {
    /// The collector in the given cycle. A container that this cycle has scanned may be passed over.
    Collector(u32),
    /// A mutator that holds the container's lock, or checkmark mode: everything has to be reported.
    Everything,
}

/// Receives the pointers of an object from its trace function.
pub struct Tracer<'a> {
    sink: &'a mut dyn EdgeSink,
    reader: Reader,
    deferred: bool,
    /// While a mutator or checkmark mode traces. (The collector says so for a page at a time.)
    _alone: Option<Alone>,
}

impl<'a> Tracer<'a> {
    /// A tracer that writes to `sink`.
    ///
    /// # Safety
    /// The tracer is used by whom `reader` names: the collector in the cycle that runs now; or one who has
    /// everything that he traces to himself, since containers are read without their lock for him.
    pub unsafe fn new(sink: &'a mut dyn EdgeSink, reader: Reader) -> Tracer<'a> {
        let alone = match reader {
            Reader::Everything => Some(Alone::begin(Busy::Trace)),
            Reader::Collector(_) => None,
        };
        Tracer { sink, reader, deferred: false, _alone: alone }
    }

    /// Reports a pointer: the address of an object's start, or 0 for none.
    ///
    /// The collector looks whether there is an object at the address. What is none (an address of another heap,
    /// of no heap, inside an object or beside one, of a free slot) is ignored. Debug builds and checkmark mode
    /// end the process with the name of the type that was traced.
    ///
    /// A slot that a mutator has taken in advance, and has not used yet, cannot be told from an object.
    ///
    /// # Safety
    /// - E1. `target` is 0 or the address of an object's start, in the heap of the traced object; or it is a
    ///   mistake that is found as above. (A mutator that traces under a container's lock believes what it is
    ///   told, and hands it on to the collector, which believes it too.)
    /// - E2. The traced object holds that pointer now, or held it when the trace began.
    #[inline]
    pub unsafe fn edge(&mut self, target: Addr) {
        if !target.is_null() {
            self.sink.claim(target);
        }
    }

    /// The same, and what is reported is believed: for pointers that cannot be wrong. Costs a memory access or
    /// two less.
    ///
    /// # Safety
    /// - E1. `target` is 0 or the address of an object's start, in the heap of the traced object.
    /// - E2. As [`Tracer::edge`].
    #[inline]
    pub unsafe fn edge_unchecked(&mut self, target: Addr) {
        if !target.is_null() {
            self.sink.edge(target);
        }
    }

    /// Reports the ephemeron that is traced.
    ///
    /// # Safety
    /// E1 and E2 hold for its key and its value, and the ephemeron is the traced object.
    #[inline]
    pub(crate) unsafe fn ephemeron(&mut self, cell: &EphemeronCell) {
        self.sink.ephemeron(cell);
    }

    /// Who asks.
    pub fn reader(&self) -> Reader {
        self.reader
    }

    /// Says that a part of the object could not be read because somebody holds its lock. The collector
    /// puts the object aside and traces all of it again later.
    pub fn defer(&mut self) {
        self.deferred = true;
    }

    /// Whether [`Tracer::defer`] has been called.
    pub fn is_deferred(&self) -> bool {
        self.deferred
    }
}
