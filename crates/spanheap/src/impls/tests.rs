//! Shapes and edges of the types of the standard library, with a pointer that is a number.
//!
//! # Safety
//! The stand-in for a pointer implements `Trace` by hand. It is never followed and never allocated.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, OnceLock};

use spanheap_core::addr::Addr;
use spanheap_core::span::layout::Shape;
use spanheap_core::span::tracer::{EdgeSink, Reader};

use crate::{Trace, Tracer};

/// Stands for a `Gc`: one word, never null, not a leaf.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
struct Edge<'gc>(NonZeroUsize, PhantomData<&'gc ()>);

#[allow(unsafe_code)]
// SAFETY: it is no pointer at all; these tests allocate nothing. `None` is the zero of
// `NonZeroUsize`.
unsafe impl Trace for Edge<'_> {
    const SHAPE: Shape = Shape::Words(1);
    const NULLABLE: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        // SAFETY: the recorder below never looks at the address.
        unsafe { tracer.edge(Addr::new(self.0.get())) };
    }
}

fn edge<'gc>(number: usize) -> Edge<'gc> {
    Edge(NonZeroUsize::new(number).unwrap(), PhantomData)
}

#[derive(Default)]
struct Recorder(Vec<usize>);

impl EdgeSink for Recorder {
    fn edge(&mut self, target: Addr) {
        self.0.push(target.get());
    }
}

fn edges<T: Trace + ?Sized>(value: &T) -> Vec<usize> {
    let mut recorder = Recorder::default();
    // SAFETY: the value is this function's own.
    let mut tracer = unsafe { Tracer::new(&mut recorder, Reader::Everything) };
    value.trace(&mut tracer);
    recorder.0
}

/// The same for collections without an order.
fn sorted_edges<T: Trace>(value: &T) -> Vec<usize> {
    let mut found = edges(value);
    found.sort_unstable();
    found
}

fn shape<T: Trace>(_: &T) -> Shape {
    T::SHAPE
}

#[test]
fn an_option_of_a_pointer_is_a_nullable_word() {
    type Maybe = Option<Edge<'static>>;
    assert_eq!(Maybe::SHAPE, Shape::Words(1));
    assert_eq!(edges(&Some(edge(3))), [3]);
    assert_eq!(edges(&None::<Edge<'_>>), []);
    // One level further there is a tag, and the word may hold anything.
    assert_eq!(<Option<Maybe>>::SHAPE, Shape::Opaque);
    assert_eq!(edges(&Some(Some(edge(4)))), [4]);
    assert_eq!(<Option<u64>>::SHAPE, Shape::NoScan);
}

#[test]
fn a_choice_is_opaque_unless_nothing_in_it_is_a_pointer() {
    type Answer<'gc> = Result<Edge<'gc>, String>;
    assert_eq!(Answer::SHAPE, Shape::Opaque);
    assert_eq!(edges(&Answer::Ok(edge(5))), [5]);
    assert_eq!(edges(&Answer::Err("no".into())), []);
    assert_eq!(edges(&Result::<u8, _>::Err(edge(6))), [6]);
    assert_eq!(<Result<u8, String>>::SHAPE, Shape::NoScan);
    assert_eq!(edges(&Bound::Excluded(edge(7))), [7]);
    assert_eq!(edges(&ControlFlow::<Edge<'_>, u8>::Break(edge(8))), [8]);
}

#[test]
fn arrays_and_tuples_say_which_words() {
    let array = [Some(edge(1)), None, Some(edge(3))];
    assert_eq!(shape(&array), Shape::Words(0b111));
    assert_eq!(edges(&array), [1, 3]);
    assert_eq!(edges(array.as_slice()), [1, 3]);
    assert_eq!(<[Edge<'_>; 64]>::SHAPE, Shape::Words(u64::MAX));
    assert_eq!(<[Edge<'_>; 65]>::SHAPE, Shape::Opaque);
    assert_eq!(<[Edge<'_>; 0]>::SHAPE, Shape::NoScan);
    assert_eq!(<[u8; 4096]>::SHAPE, Shape::NoScan);
    assert_eq!(<[Edge<'_>]>::SHAPE, Shape::Opaque);
    assert_eq!(<[u16]>::SHAPE, Shape::NoScan);

    let tuple = (1_u8, edge(9), "static", (edge(10), 2.5_f32));
    let Shape::Words(mask) = shape(&tuple) else { panic!("all parts are words or no pointers") };
    assert_eq!(mask.count_ones(), 2);
    assert_eq!(words(&tuple, mask), [9, 10]);
    assert_eq!(edges(&tuple), [9, 10]);
    assert_eq!(<(u8, char, String)>::SHAPE, Shape::NoScan);
}

/// The words of `value` that `mask` names, lowest first. The compiler may lay out a tuple as it
/// likes, so the test reads what the collector would read.
fn words<T>(value: &T, mask: u64) -> Vec<usize> {
    let start = std::ptr::from_ref(value).cast::<usize>();
    let mut found: Vec<usize> = (0..size_of::<T>() / 8)
        .filter(|index| mask >> index & 1 == 1)
        .map(|index| {
            let word = start.wrapping_add(index);
            // SAFETY: the word lies in `value`, and is aligned as `value` is. That it is an `Edge`,
            // and not padding, is what the mask says, and is checked before: it has as many words
            // as the value has edges.
            #[allow(unsafe_code)]
            unsafe {
                word.read()
            }
        })
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn ranges_and_wrappers_keep_their_parts() {
    use std::cmp::Reverse;
    use std::num::Wrapping;
    assert_eq!(<Reverse<Edge<'_>>>::SHAPE, Shape::Words(1));
    assert_eq!(edges(&Reverse(edge(1))), [1]);
    assert_eq!(<Wrapping<u64>>::SHAPE, Shape::NoScan);
    assert_eq!(shape(&(edge(1)..edge(2))), Shape::Words(0b11));
    assert_eq!(edges(&(edge(1)..edge(2))), [1, 2]);
    assert_eq!(edges(&(edge(1)..=edge(2))), [1, 2]);
    assert_eq!(edges(&(..edge(2))), [2]);
    assert_eq!(<std::ops::RangeInclusive<Edge<'_>>>::SHAPE, Shape::Opaque);
}

#[test]
fn collections_report_every_element() {
    let three = [edge(1), edge(2), edge(3)];
    assert_eq!(edges(&Vec::from(three)), [1, 2, 3]);
    assert_eq!(edges(&Box::new(three)), [1, 2, 3]);
    assert_eq!(edges::<Box<[Edge<'_>]>>(&Box::from(three)), [1, 2, 3]);
    assert_eq!(edges(&LinkedList::from(three)), [1, 2, 3]);
    assert_eq!(edges(&BTreeSet::from(three)), [1, 2, 3]);
    assert_eq!(sorted_edges(&BinaryHeap::from(three)), [1, 2, 3]);
    assert_eq!(sorted_edges(&HashSet::from(three)), [1, 2, 3]);
    // Around the end of the ring.
    let mut ring = VecDeque::with_capacity(4);
    ring.extend([edge(9), edge(9), edge(1), edge(2)]);
    ring.drain(..2);
    ring.extend([edge(3), edge(4)]);
    assert_eq!(edges(&ring), [1, 2, 3, 4]);
}

#[test]
fn maps_report_keys_and_values() {
    let pairs = [(edge(1), Some(edge(2))), (edge(3), None)];
    assert_eq!(edges(&BTreeMap::from(pairs)), [1, 2, 3]);
    assert_eq!(sorted_edges(&HashMap::from(pairs)), [1, 2, 3]);
    assert_eq!(edges(&BTreeMap::from([(1, edge(2))])), [2]);
    assert_eq!(edges(&HashMap::from([(edge(2), String::new())])), [2]);
}

#[test]
fn collections_of_leaves_are_not_scanned() {
    assert_eq!(<Vec<u8>>::SHAPE, Shape::NoScan);
    assert_eq!(<Box<[Vec<String>]>>::SHAPE, Shape::NoScan);
    assert_eq!(<Box<str>>::SHAPE, Shape::NoScan);
    assert_eq!(<HashMap<String, BTreeMap<u8, Vec<f64>>>>::SHAPE, Shape::NoScan);
    assert_eq!(<Vec<Edge<'_>>>::SHAPE, Shape::Opaque);
    assert_eq!(<HashMap<String, Edge<'_>>>::SHAPE, Shape::Opaque);
    assert_eq!(<HashMap<Edge<'_>, String>>::SHAPE, Shape::Opaque);
    assert_eq!(<Box<Option<Edge<'_>>>>::SHAPE, Shape::Opaque);
}

#[test]
fn cells_and_other_foreign_leaves_hold_nothing() {
    fn check<T: Trace>() {
        assert!(T::LEAF);
        assert_eq!(T::SHAPE, Shape::NoScan);
    }
    check::<Mutex<Vec<u64>>>();
    check::<Arc<dyn Fn() + Send + Sync>>();
    check::<OnceLock<String>>();
    check::<std::cell::RefCell<String>>();
    check::<&'static [u8]>();
    check::<Cow<'static, str>>();
    check::<std::sync::atomic::AtomicU32>();
    check::<(u8, [Option<String>; 3], Result<(), std::convert::Infallible>)>();
    assert_eq!(<fn(Edge<'static>, u8) -> Edge<'static>>::SHAPE, Shape::NoScan);
    assert_eq!(<unsafe extern "C" fn(u8)>::SHAPE, Shape::NoScan);
    assert_eq!(<PhantomData<Edge<'_>>>::SHAPE, Shape::NoScan);
}

#[test]
fn what_may_hold_a_pointer_is_no_leaf() {
    fn check<T: Trace>() {
        assert!(!T::LEAF);
    }
    check::<Edge<'_>>();
    check::<Option<Edge<'_>>>();
    check::<Result<u8, Edge<'_>>>();
    check::<[Edge<'_>; 0]>();
    check::<(u8, Edge<'_>)>();
    check::<Vec<Edge<'_>>>();
    check::<BTreeMap<u8, Edge<'_>>>();
    check::<HashMap<Edge<'_>, u8>>();
    check::<PhantomData<Edge<'_>>>();
}
