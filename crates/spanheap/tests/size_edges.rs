//! Sizes, alignments and layouts at every edge that a type of Rust can have: fault rows 57 to 64. What such
//! types cannot say is in the file of the same name in the core crate.

use spanheap::{Collected, Gc, GcCell, Heap, Root, Rootable, Trace};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

#[derive(Trace)]
struct Node<'gc> {
    key: u64,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
}

impl<'gc> Node<'gc> {
    fn new(key: u64) -> Node<'gc> {
        Node { key, next: GcCell::new(None) }
    }
}

type Numbers = Root<Rootable![[u64]]>;
type Nodes = Root<Rootable![[Gc<'_, Node<'_>>]]>;

fn is_aligned<T>(at: *const T, align: usize) -> bool {
    at as usize % align == 0
}

fn heap() -> Heap {
    Heap::builder().checkmark(true).poison(true).build().expect("memory")
}

fn collect(heap: &Heap) -> u64 {
    assert_eq!(heap.collect(), Collected::Complete);
    heap.stats().live_objects
}

/// Alignments of types have to be literals.
macro_rules! for_each_alignment {
    ($mc:ident, $body:ident) => {
        for_each_alignment!($mc, $body,
            1 2 4 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32768 65536 131072 262144 524288
            1048576 2097152)
    };
    ($mc:ident, $body:ident, $($align:literal)*) => {$({
        #[derive(Trace)]
        #[repr(align($align))]
        struct Aligned(u8);
        #[derive(Trace)]
        #[repr(align($align))]
        struct Empty;
        $body!($align, Aligned, Empty);
    })*};
}

static EMPTY_DROPS: AtomicUsize = AtomicUsize::new(0);

#[derive(Trace)]
struct EmptyThatDrops;

impl Drop for EmptyThatDrops {
    fn drop(&mut self) {
        EMPTY_DROPS.fetch_add(1, Ordering::Relaxed);
    }
}

/// A value without a size has an address of its own, and is dropped if its type says so.
#[test]
fn fault_57_values_without_size() {
    let heap = heap();
    let root: Root<Rootable![()]> = heap.enter(|mc| {
        let mut addresses = BTreeSet::new();
        let mut note = |at: *const u8, align: usize| {
            assert!(!at.is_null() && is_aligned(at, align));
            assert!(addresses.insert(at as usize), "two values at {at:?}");
        };
        macro_rules! body {
            ($align:literal, $aligned:ident, $empty:ident) => {
                for len in 0..3 {
                    note(mc.alloc($empty).as_ptr().cast(), $align);
                    note(mc.alloc_slice((0..len * 1000).map(|_| $empty)).as_ptr().cast(), $align);
                    note(mc.alloc_slice((0..0).map($aligned)).as_ptr().cast(), $align);
                }
            };
        }
        for_each_alignment!(mc, body);
        let (a, b) = (mc.alloc(()), mc.alloc(()));
        assert!(!Gc::ptr_eq(a, b) && Gc::ptr_eq(a, a));
        for _ in 0..10 {
            mc.alloc(EmptyThatDrops);
            mc.alloc_slice((0..99).map(|_| EmptyThatDrops));
        }
        mc.root(a)
    });
    assert_eq!(collect(&heap), 1);
    heap.enter(|mc| assert_eq!(*root.get(mc), ()));
    // The end of the heap waits for the destructors.
    drop(heap);
    assert_eq!(EMPTY_DROPS.load(Ordering::Relaxed), 1000);
}

/// An iterator that claims to be as long as you like.
struct Claim(usize);

impl Iterator for Claim {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        None
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0, Some(self.0))
    }
}

impl ExactSizeIterator for Claim {}

#[test]
fn fault_58_lengths_that_overflow() {
    let heap = Heap::new();
    heap.enter(|mc| {
        mc.alloc(1u64);
        let before = heap.stats();
        for len in [usize::MAX, usize::MAX / 8, usize::MAX / 8 + 1, isize::MAX as usize, 1 << 60] {
            let error = mc.try_alloc_slice(Claim(len)).unwrap_err();
            assert!(error.to_string().starts_with("out of memory"), "{error}");
        }
        let after = heap.stats();
        assert_eq!(after.mapped_bytes, before.mapped_bytes);
        assert_eq!(after.heap_bytes, before.heap_bytes);
        assert_eq!(after.allocated_bytes, before.allocated_bytes);
    });
}

#[test]
fn fault_59_alignments() {
    let heap = heap();
    heap.enter(|mc| {
        macro_rules! body {
            ($align:literal, $aligned:ident, $empty:ident) => {
                for n in 0..3 {
                    let object = mc.alloc($aligned(n));
                    assert!(is_aligned(object.as_ptr(), $align), "alignment {}", $align);
                    assert_eq!(object.0, n);
                    let slice = mc.alloc_slice((0..3).map($aligned));
                    assert!(is_aligned(slice.as_ptr().cast::<u8>(), $align));
                    assert_eq!([slice[0].0, slice[1].0, slice[2].0], [0, 1, 2]);
                }
                let _ = mc.alloc($empty);
                // A field behind the aligned one, and a pointer that is to be found.
                #[derive(Trace)]
                struct Holder<'gc>($aligned, Gc<'gc, Node<'gc>>, u8);
                let holder = mc.alloc(Holder($aligned(7), mc.alloc(Node::new($align)), 9));
                assert!(is_aligned(&raw const holder.0, $align));
                assert_eq!((holder.0.0, holder.1.key, holder.2), (7, $align, 9));
            };
        }
        for_each_alignment!(mc, body);
        let _ = mc.alloc([7u8; 4096]);
    });
    assert_eq!(collect(&heap), 0);
}

#[test]
fn fault_60_sixteen_tebibytes() {
    let heap = Heap::new();
    heap.enter(|mc| {
        mc.alloc(1u64);
        let before = heap.stats();
        for _ in 0..10 {
            let error = mc.try_alloc_slice(Claim(1 << 41)).unwrap_err();
            assert_eq!(error.requested.get(), 16 << 40);
        }
        assert_eq!(heap.stats().mapped_bytes, before.mapped_bytes);
        assert_eq!(heap.stats().heap_bytes, before.heap_bytes);
        assert_eq!(*mc.alloc(2u64), 2);
    });
}

/// Ten million cells, of which the last one alone holds a pointer; and 256 MiB of numbers.
#[test]
fn fault_61_large_slices() {
    const LEN: usize = 10_000_000;
    type Cells<'gc> = [GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>];
    let heap = Heap::builder().poison(true).build().unwrap();
    let cells: Root<Rootable![Cells<'_>]> = heap.enter(|mc| {
        let cells = mc.alloc_slice((0..LEN).map(|_| GcCell::new(None)));
        cells[LEN - 1].set(mc, Some(mc.alloc(Node::new(41))));
        mc.root(cells)
    });
    let numbers: Numbers =
        heap.enter(|mc| mc.root(mc.alloc_slice((0..32u32 << 20).map(u64::from))));
    for round in 0..3 {
        let begun = Instant::now();
        assert_eq!(collect(&heap), 3);
        println!("a cycle over {LEN} cells and 256 MiB: {:?}", begun.elapsed());
        heap.enter(|mc| {
            let last = &cells.get(mc)[LEN - 1];
            assert_eq!(last.get().map(|node| node.key), Some(41 + round));
            last.set(mc, Some(mc.alloc(Node::new(42 + round))));
            let numbers = numbers.get(mc);
            assert_eq!((numbers.len(), numbers[(32 << 20) - 1]), (32 << 20, (32 << 20) - 1));
        });
    }
    drop((cells, numbers));
    assert_eq!(collect(&heap), 0);
    assert_eq!(heap.stats().heap_bytes, 0);
}

#[test]
fn fault_62_sizes_around_classes() {
    let heap = heap();
    let edges = [8, 16, 24, 32, 48, 512, 513, 1024, 2048, 4096, 8192, 16384, 32768, 40960, 1 << 20];
    let lens: BTreeSet<usize> = edges.into_iter().flat_map(|n| [n - 1, n, n + 1]).collect();
    heap.enter(|mc| {
        let mut kept = Vec::new();
        for round in 0..5u8 {
            for &len in &lens {
                kept.push((mc.alloc_slice((0..len).map(|n| n as u8 ^ round)), len, round));
            }
        }
        for (bytes, len, round) in kept {
            assert_eq!(bytes.len(), len);
            assert!(bytes.iter().enumerate().all(|(n, &byte)| byte == n as u8 ^ round));
        }
    });
    assert_eq!(collect(&heap), 0);
    // Slices of pointers that end before their slots do: nothing of what was there before is followed.
    for _ in 0..3 {
        let kept: Vec<Nodes> = heap.enter(|mc| {
            let slices = (0..600u32)
                .map(|len| mc.alloc_slice((0..len).map(|n| mc.alloc(Node::new(n.into())))));
            slices.map(|slice| mc.root(slice)).collect()
        });
        assert_eq!(collect(&heap), 600 + 600 * 599 / 2);
        heap.enter(|mc| {
            for (len, slice) in kept.iter().enumerate() {
                let slice = slice.get(mc);
                assert_eq!(slice.len(), len);
                assert!(slice.iter().zip(0..).all(|(node, n)| node.key == n));
            }
        });
        drop(kept);
        assert_eq!(collect(&heap), 0);
    }
}

/// Strings and slices carry their length beside the pointer, through roots and fields.
#[test]
fn fault_63_strings_and_slices() {
    #[derive(Trace)]
    struct Unsized<'gc> {
        text: Gc<'gc, str>,
        names: Gc<'gc, [String]>,
        nodes: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
        inner: Gc<'gc, [Gc<'gc, [u16]>]>,
    }
    let heap = heap();
    for len in [0, 1, 2, 7, 8, 15, 16, 17, 1000, 40_000] {
        let text: String = "aé√𝄞".chars().cycle().take(len).collect();
        let kept: Root<Rootable![Unsized<'_>]> = heap.enter(|mc| {
            let inner = (0..len.min(50)).map(|n| mc.alloc_slice((0..n).map(|n| n as u16)));
            let inner = mc.alloc_slice(inner.collect::<Vec<_>>());
            mc.root(mc.alloc(Unsized {
                text: mc.alloc_str(&text),
                names: mc.alloc_slice((0..len.min(1000)).map(|n| n.to_string())),
                nodes: GcCell::new(Some(mc.alloc(Node::new(len as u64)))),
                inner,
            }))
        });
        // Short ones without pointers share blocks, so it may be fewer than there are slices.
        assert!(collect(&heap) >= 4);
        heap.enter(|mc| {
            let kept = kept.get(mc);
            assert_eq!(&*kept.text, text);
            assert_eq!(kept.names.len(), len.min(1000));
            assert!(kept.names.iter().enumerate().all(|(n, name)| *name == n.to_string()));
            assert_eq!(kept.nodes.get().map(|node| node.key), Some(len as u64));
            for (n, slice) in kept.inner.iter().enumerate() {
                assert!(
                    slice.len() == n && slice.iter().enumerate().all(|(n, &v)| v as usize == n)
                );
            }
        });
        drop(kept);
        assert_eq!(collect(&heap), 0);
    }
}

/// What looks like a pointer and is none retains nothing: numbers in variants, in padding, in unions.
#[test]
fn fault_64_numbers_that_look_like_pointers() {
    #[derive(Trace)]
    enum Value<'gc> {
        Number(usize),
        Pointer(Gc<'gc, Node<'gc>>),
        Maybe(Option<Gc<'gc, Node<'gc>>>),
        Text(Box<[usize]>),
    }
    #[derive(Clone, Copy)]
    #[repr(C)]
    union Bits {
        number: usize,
        bytes: [u8; 8],
    }
    #[derive(Trace)]
    #[expect(dead_code, reason = "some fields are there for the collector to look at")]
    struct Padded<'gc> {
        small: u8,
        value: Value<'gc>,
        option: Option<Option<Gc<'gc, Node<'gc>>>>,
        #[trace(leaf)]
        bits: Bits,
        #[trace(leaf)]
        uninitialised: std::mem::MaybeUninit<usize>,
        pair: (u8, usize),
    }
    type Slice<'gc> = [Padded<'gc>];
    let heap = heap();
    let kept: Root<Rootable![Slice<'_>]> = heap.enter(|mc| {
        let make = |index: usize| {
            let node = mc.alloc(Node::new(index as u64));
            let number = node.as_ptr() as usize;
            Padded {
                small: index as u8,
                value: match index % 4 {
                    0 => Value::Number(number),
                    1 => Value::Pointer(node),
                    2 => Value::Maybe((index % 8 == 2).then_some(node)),
                    _ => Value::Text(Box::new([number])),
                },
                option: if index % 3 == 0 { Some(None) } else { None },
                bits: Bits { number },
                uninitialised: std::mem::MaybeUninit::new(number),
                pair: (1, number),
            }
        };
        mc.root(mc.alloc_slice((0..80).map(make)))
    });
    for _ in 0..3 {
        // The slice, 20 pointers, and half of 20.
        assert_eq!(collect(&heap), 1 + 20 + 10);
        heap.enter(|mc| {
            for (index, padded) in kept.get(mc).iter().enumerate() {
                assert_eq!(usize::from(padded.small), index);
                assert_eq!(padded.option.is_some(), index % 3 == 0);
                assert_eq!(padded.pair.0, 1);
                match &padded.value {
                    Value::Number(number) => assert_eq!(*number, padded.pair.1),
                    Value::Pointer(node) | Value::Maybe(Some(node)) => {
                        assert_eq!(node.key, index as u64);
                    }
                    Value::Maybe(None) => assert_eq!(index % 8, 6),
                    Value::Text(text) => assert_eq!(text[0], padded.pair.1),
                }
            }
        });
    }
    drop(kept);
    assert_eq!(collect(&heap), 0);
}
