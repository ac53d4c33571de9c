//! What `#[derive(Trace)]` makes of a type: its shape, and the edges that its trace function
//! reports.
//!
//! The pointers here are numbers: [`Edge`] implements `Trace` by hand and reports its number. So
//! these tests need no heap, and say of an implementation exactly what the collector would see of
//! it.
//!
//! # Safety
//! [`Edge`] holds no pointer, and no value here ever lies in a heap.
#![allow(dead_code, reason = "fields of test types are read by their trace functions only")]

use std::cell::Cell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::num::NonZeroUsize;
use std::rc::Rc;

use spanheap::{Shape, Trace, Tracer};
use spanheap_core::addr::Addr;
use spanheap_core::span::tracer::{EdgeSink, Reader};

/// Stands for a `Gc`: one word, never null, not a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
struct Edge<'gc>(NonZeroUsize, PhantomData<&'gc ()>);

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

/// The mask that has exactly the words at these byte offsets.
fn words(offsets: &[usize]) -> Shape {
    Shape::Words(offsets.iter().map(|offset| 1 << (offset / 8)).sum())
}

#[derive(Trace)]
struct Node<'gc> {
    key: u32,
    left: Option<Edge<'gc>>,
    name: String,
    right: Edge<'gc>,
}

#[test]
fn a_struct_has_its_pointers_where_its_fields_are() {
    assert_eq!(Node::SHAPE, words(&[offset_of!(Node<'_>, left), offset_of!(Node<'_>, right)]));
    const { assert!(!Node::LEAF && !Node::NULLABLE) };
    let mut node = Node { key: 1, left: Some(edge(7)), name: "n".into(), right: edge(8) };
    assert_eq!(edges(&node), [7, 8]);
    node.left = None;
    assert_eq!(edges(&node), [8]);
}

#[derive(Trace)]
#[repr(C)]
struct Nested<'gc> {
    before: u8,
    pair: (Edge<'gc>, Edge<'gc>),
    array: [Inner<'gc>; 2],
    after: [u16; 3],
}

#[derive(Trace)]
#[repr(C)]
struct Inner<'gc>(u64, Edge<'gc>, u8);

#[test]
fn nested_shapes_are_moved_to_their_place() {
    assert_eq!(Inner::SHAPE, Shape::Words(0b010));
    // `before` and padding, two words of `pair`, twice the three words of an `Inner`.
    assert_eq!(Nested::SHAPE, Shape::Words(0b110 | 0b010 << 3 | 0b010 << 6));
    let inner = |n| Inner(n, edge(n as usize), 0);
    let nested =
        Nested { before: 0, pair: (edge(1), edge(2)), array: [inner(3), inner(4)], after: [0; 3] };
    assert_eq!(edges(&nested), [1, 2, 3, 4]);
}

#[derive(Trace)]
struct Unit;

#[derive(Trace)]
struct Empty<'gc> {
    nothing: PhantomData<&'gc ()>,
}

#[derive(Trace)]
struct Plain(u8, Vec<Plain>, [f32; 4]);

#[test]
fn types_without_pointers_are_not_scanned() {
    assert_eq!(Unit::SHAPE, Shape::NoScan);
    assert_eq!(Plain::SHAPE, Shape::NoScan);
    assert_eq!(Empty::SHAPE, Shape::NoScan);
    const { assert!(Unit::LEAF && Plain::LEAF) };
    const { assert!(!Empty::LEAF) };
    assert_eq!(edges(&Plain(1, vec![Plain(2, Vec::new(), [0.0; 4])], [0.0; 4])), []);
}

#[derive(Trace)]
struct Pair<A, B = A> {
    a: A,
    b: B,
}

#[derive(Trace)]
struct Table<'gc, K: Copy, const N: usize>
where
    K: Into<u64>,
{
    keys: [K; N],
    values: [Option<Edge<'gc>>; N],
}

#[derive(Trace)]
struct Owner<T> {
    values: Vec<T>,
}

#[test]
fn a_generic_type_has_a_shape_for_each_of_its_arguments() {
    assert_eq!(<Pair<u8, String>>::SHAPE, Shape::NoScan);
    type Half<'gc> = Pair<u64, Edge<'gc>>;
    assert_eq!(Half::SHAPE, words(&[offset_of!(Half<'_>, b)]));
    assert_eq!(<Pair<Edge<'_>>>::SHAPE, Shape::Words(0b11));
    assert_eq!(<Pair<Edge<'_>, Vec<Edge<'_>>>>::SHAPE, Shape::Opaque);
    assert_eq!(edges(&Pair { a: edge(1), b: vec![edge(2), edge(3)] }), [1, 2, 3]);

    type Small<'gc> = Table<'gc, u32, 2>;
    let values = offset_of!(Small<'_>, values);
    assert_eq!(Small::SHAPE, words(&[values, values + 8]));
    assert_eq!(<Table<'_, u64, 64>>::SHAPE, Shape::Opaque);
    assert_eq!(edges(&Table { keys: [1_u32, 2], values: [None, Some(edge(5))] }), [5]);
}

#[test]
fn a_generic_type_is_a_leaf_if_its_arguments_are() {
    const { assert!(<Pair<u8, Vec<String>>>::LEAF) };
    const { assert!(!<Pair<u8, Edge<'_>>>::LEAF) };
    assert_eq!(<Owner<u8>>::SHAPE, Shape::NoScan);
    assert_eq!(<Owner<Pair<u8>>>::SHAPE, Shape::NoScan);
    assert_eq!(<Owner<Edge<'_>>>::SHAPE, Shape::Opaque);
    assert_eq!(edges(&Owner { values: vec![edge(1), edge(2)] }), [1, 2]);
}

#[derive(Trace)]
enum Value<'gc> {
    Nil,
    Number(f64),
    Object(Edge<'gc>),
    Slice { of: Edge<'gc>, from: usize, cache: Option<Edge<'gc>> },
    Tuple(Vec<Value<'gc>>),
    Boxed(Box<Value<'gc>>, u8),
}

#[derive(Trace)]
enum Flat<'gc> {
    A(u8),
    B { text: String, of: PhantomData<&'gc ()> },
}

#[derive(Trace)]
enum Never<'gc> {
    #[allow(unused)]
    Always(PhantomData<&'gc ()>, std::convert::Infallible),
}

#[derive(Trace)]
enum Impossible {}

#[test]
fn an_enum_is_opaque_unless_no_variant_has_a_pointer() {
    assert_eq!(Value::SHAPE, Shape::Opaque);
    assert_eq!(Flat::SHAPE, Shape::NoScan);
    assert_eq!(Never::SHAPE, Shape::NoScan);
    assert_eq!(Impossible::SHAPE, Shape::NoScan);
    const { assert!(Impossible::LEAF && !Flat::LEAF) };
}

#[test]
fn an_enum_reports_the_fields_of_its_variant() {
    assert_eq!(edges(&Value::Nil), []);
    assert_eq!(edges(&Value::Number(1.0)), []);
    assert_eq!(edges(&Value::Object(edge(1))), [1]);
    assert_eq!(edges(&Value::Slice { of: edge(2), from: 9, cache: Some(edge(3)) }), [2, 3]);
    assert_eq!(edges(&Value::Slice { of: edge(2), from: 9, cache: None }), [2]);
    let tuple = Value::Tuple(vec![Value::Object(edge(4)), Value::Nil, Value::Object(edge(5))]);
    assert_eq!(edges(&Value::Boxed(Box::new(tuple), 0)), [4, 5]);
}

/// Types that own collections of themselves, alone and in a circle: the shape of none of them may
/// depend on itself.
#[derive(Trace)]
struct Tree<'gc, T> {
    value: T,
    root: Edge<'gc>,
    children: HashMap<String, Forest<'gc, T>>,
}

#[derive(Trace)]
struct Forest<'gc, T>(Vec<Tree<'gc, T>>);

#[derive(Trace)]
struct Rose<T> {
    value: T,
    children: Vec<Rose<T>>,
}

#[test]
fn recursive_types_have_a_shape() {
    assert_eq!(<Tree<'_, u8>>::SHAPE, Shape::Opaque);
    assert_eq!(<Forest<'_, u8>>::SHAPE, Shape::Opaque);
    assert_eq!(<Rose<u8>>::SHAPE, Shape::NoScan);
    assert_eq!(<Rose<Edge<'_>>>::SHAPE, Shape::Opaque);
    let tree = |n| Tree { value: (), root: edge(n), children: HashMap::new() };
    let mut root = tree(1);
    root.children.insert("a".into(), Forest(vec![tree(2), tree(3)]));
    assert_eq!(edges(&root), [1, 2, 3]);
    let rose = Rose { value: edge(4), children: vec![Rose { value: edge(5), children: vec![] }] };
    assert_eq!(edges(&rose), [4, 5]);
}

/// Not `Trace`, and with a destructor.
struct Foreign(Rc<Cell<u32>>);

impl Drop for Foreign {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[derive(Trace)]
struct WithLeaves<'gc, T, U> {
    #[trace(leaf)]
    foreign: Foreign,
    #[trace(leaf)]
    generic: Vec<U>,
    traced: T,
    edge: Edge<'gc>,
}

#[derive(Trace)]
#[trace(leaf)]
struct Handle<T> {
    contents: *mut T,
    closed: Rc<Cell<u32>>,
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        self.closed.set(self.closed.get() + 1);
    }
}

#[derive(Trace)]
#[trace(leaf)]
#[repr(C, packed)]
struct Packed(u8, u64);

#[derive(Trace)]
enum SomeLeaves<'gc> {
    Leaf(#[trace(leaf)] Foreign),
    Both {
        edge: Edge<'gc>,
        #[trace(leaf)]
        leaf: Foreign,
    },
}

#[test]
fn leaves_are_not_looked_into() {
    struct NotTrace;
    type Mixed<'gc> = WithLeaves<'gc, u8, NotTrace>;
    assert_eq!(Mixed::SHAPE, words(&[offset_of!(Mixed<'_>, edge)]));
    let drops = Rc::new(Cell::new(0));
    let foreign = || Foreign(drops.clone());
    let mixed =
        WithLeaves { foreign: foreign(), generic: vec![NotTrace], traced: edge(1), edge: edge(2) };
    assert_eq!(edges(&mixed), [1, 2]);
    assert_eq!(SomeLeaves::SHAPE, Shape::Opaque);
    assert_eq!(edges(&SomeLeaves::Leaf(foreign())), []);
    assert_eq!(edges(&SomeLeaves::Both { edge: edge(3), leaf: foreign() }), [3]);
    drop(mixed);
    assert_eq!(drops.get(), 3, "the leaves are dropped with what they are in");
}

#[test]
fn a_leaf_type_may_have_a_destructor() {
    assert_eq!(<Handle<Rc<u8>>>::SHAPE, Shape::NoScan);
    assert_eq!(Packed::SHAPE, Shape::NoScan);
    const { assert!(<Handle<Rc<u8>>>::LEAF) };
    let closed = Rc::new(Cell::new(0));
    let handle = Handle { contents: std::ptr::null_mut::<u8>(), closed: closed.clone() };
    assert_eq!(edges(&handle), []);
    drop(handle);
    assert_eq!(closed.get(), 1);
}

/// Without parameters nothing in it can be a pointer, so it may implement `Drop` without being
/// marked.
#[derive(Trace)]
struct Closes {
    count: u32,
}

impl Drop for Closes {
    fn drop(&mut self) {
        self.count = 0;
    }
}

#[test]
fn a_type_without_parameters_may_have_a_destructor() {
    const { assert!(Closes::LEAF) };
    assert_eq!(<Vec<Closes>>::SHAPE, Shape::NoScan);
}

#[derive(Trace, Clone, Copy)]
#[repr(transparent)]
struct Wrapper<'gc>(Edge<'gc>);

#[derive(Trace, Clone, Copy)]
struct NotTransparent<'gc>(Edge<'gc>);

#[test]
fn an_option_of_a_transparent_wrapper_is_a_nullable_word() {
    const { assert!(Wrapper::NULLABLE) };
    assert_eq!(<Option<Wrapper<'_>>>::SHAPE, Shape::Words(1));
    assert_eq!(edges(&Some(Wrapper(edge(1)))), [1]);
    const { assert!(!NotTransparent::NULLABLE) };
    assert_eq!(<Option<NotTransparent<'_>>>::SHAPE, Shape::Opaque);
}

#[derive(Trace)]
struct Native<'gc, T> {
    call: fn(&mut u8, Edge<'gc>, T) -> Edge<'gc>,
    this: Edge<'gc>,
}

#[test]
fn a_function_pointer_holds_nothing_whatever_it_takes() {
    struct NotTrace;
    type Call<'gc> = Native<'gc, NotTrace>;
    assert_eq!(Call::SHAPE, words(&[offset_of!(Call<'_>, this)]));
    let native: Call<'_> = Native { call: |_, edge, _| edge, this: edge(1) };
    assert_eq!(edges(&native), [1]);
}

#[derive(Trace)]
struct Items<I: Iterator> {
    rest: I,
    peeked: I::Item,
    all: Vec<<I as Iterator>::Item>,
}

#[derive(Clone, Trace)]
struct Counter<'gc>(Edge<'gc>);

impl<'gc> Iterator for Counter<'gc> {
    type Item = Edge<'gc>;

    fn next(&mut self) -> Option<Edge<'gc>> {
        Some(self.0)
    }
}

#[derive(Trace)]
#[repr(C)]
struct Tail<'gc, T: ?Sized> {
    head: Edge<'gc>,
    tail: T,
}

#[test]
fn an_unsized_tail_is_opaque_unless_it_has_no_pointers() {
    assert_eq!(<Tail<'_, [u8]>>::SHAPE, Shape::Words(1));
    assert_eq!(<Tail<'_, [Edge<'_>]>>::SHAPE, Shape::Opaque);
    let sized = Tail { head: edge(1), tail: [edge(2), edge(3)] };
    let tail: &Tail<'_, [Edge<'_>]> = &sized;
    assert_eq!(edges(tail), [1, 2, 3]);
}

/// Field names that the expansion could trip over.
#[derive(Trace)]
enum Awkward<'gc> {
    Named { tracer: Edge<'gc>, r#type: Edge<'gc>, field_0: Edge<'gc>, _self: u8 },
}

#[test]
fn names_of_the_expansion_do_not_collide() {
    let awkward = Awkward::Named { tracer: edge(1), r#type: edge(2), field_0: edge(3), _self: 0 };
    assert_eq!(edges(&awkward), [1, 2, 3]);
}

mod elsewhere {
    /// A crate that re-exports the heap under a name of its own.
    pub(crate) mod vm {
        pub(crate) use ::spanheap as gc;
    }

    // Names that the expansion must not use.
    #[allow(non_camel_case_types)]
    pub(crate) struct Option;
    #[allow(unused)]
    pub(crate) trait Tracer {}
    #[allow(unused)]
    pub(crate) trait Shape {}

    #[derive(vm::gc::Trace)]
    #[trace(crate = self::vm::gc)]
    pub(crate) struct Here<'gc>(pub(crate) super::Edge<'gc>);
}

#[test]
fn the_crate_may_be_elsewhere() {
    assert_eq!(elsewhere::Here::SHAPE, Shape::Words(1));
    assert_eq!(edges(&elsewhere::Here(edge(1))), [1]);
}

macro_rules! define {
    ($name:ident, $field:ident: $ty:ty) => {
        #[derive(Trace)]
        struct $name<'gc> {
            $field: $ty,
            edge: Edge<'gc>,
        }
    };
}

define!(FromMacro, other: u64);

#[test]
fn a_derive_in_a_macro_sees_its_fields() {
    assert_eq!(FromMacro::SHAPE, words(&[offset_of!(FromMacro<'_>, edge)]));
    assert_eq!(edges(&FromMacro { other: 1, edge: edge(2) }), [2]);
}
