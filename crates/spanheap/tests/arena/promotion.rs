//! What leaves an arena for the heap, and is the same there.

use crate::quiet;
use spanheap::{Gc, Heap, Promote, PromoteError, Promotion, Root, Rootable, Trace};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[derive(Promote)]
#[promote(into = Tree<'gc>)]
struct Draft<'a> {
    key: u64,
    name: &'a mut str,
    tags: &'a [(u8, &'a str)],
    left: Option<&'a Draft<'a>>,
    right: Option<&'a mut Draft<'a>>,
    owned: Vec<String>,
}

#[derive(Trace)]
struct Tree<'gc> {
    key: u64,
    name: Gc<'gc, str>,
    tags: Gc<'gc, [(u8, Gc<'gc, str>)]>,
    left: Option<Gc<'gc, Tree<'gc>>>,
    right: Option<Gc<'gc, Tree<'gc>>>,
    owned: Vec<String>,
}

fn draft<'a>(arena: &'a spanheap::Arena<'_>, depth: u32, key: u64) -> Draft<'a> {
    let child = |key| draft(arena, depth - 1, key);
    Draft {
        key,
        name: arena.alloc_str(&format!("node {key}")),
        tags: arena
            .alloc_slice_fill_with(key as usize % 4, |n| (n as u8, &*arena.alloc_str("tag"))),
        left: (depth > 0).then(|| &*leaked(arena, child(2 * key))),
        right: (depth > 0).then(|| leaked(arena, child(2 * key + 1))),
        owned: Vec::new(),
    }
}

/// A value with an empty `Vec` in an arena: there is nothing to drop.
fn leaked<'a, T>(arena: &'a spanheap::Arena<'_>, value: T) -> &'a mut T {
    let kept: &mut std::mem::ManuallyDrop<T> = arena.alloc(std::mem::ManuallyDrop::new(value));
    kept
}

fn check(tree: &Tree<'_>, key: u64) -> u64 {
    assert_eq!((tree.key, &*tree.name), (key, &*format!("node {key}")));
    assert_eq!(tree.tags.len(), key as usize % 4);
    assert!(
        tree.tags
            .iter()
            .enumerate()
            .all(|(n, (tag, text))| n == usize::from(*tag) && &**text == "tag")
    );
    assert!(tree.owned.is_empty());
    1 + tree.left.map_or(0, |left| check(&left, 2 * key))
        + tree.right.map_or(0, |right| check(&right, 2 * key + 1))
}

#[test]
fn a_tree_is_the_same_in_the_heap_and_outlives_its_arena() {
    let heap =
        Heap::builder().collect_continuously(true).checkmark(true).poison(true).build().unwrap();
    for _ in 0..10 {
        let root: Root<Rootable![Tree<'_>]> = heap.enter(|mc| {
            mc.arena(|arena| {
                let tree = draft(arena, 6, 1);
                mc.root(mc.promote(&tree))
            })
        });
        let _ = heap.collect();
        assert_eq!(heap.enter(|mc| check(&root.get(mc), 1)), 127);
    }
}

#[derive(Promote, Trace, Clone, Copy, PartialEq, Debug)]
#[promote(clone)]
enum Kind {
    Old,
    New { since: u16 },
}

/// Without `Trace` and `Promote`.
#[derive(Clone, PartialEq, Debug)]
struct Foreign(i8);

#[derive(Promote)]
#[promote(into = HeapNode<'gc, <T as Promote<'gc>>::Promoted>)]
enum Node<'gc, 'a, T> {
    Unit,
    Tuple(Kind, &'a T, [u8; 3]),
    Fields {
        kept: Gc<'gc, u64>,
        #[promote(clone)]
        foreign: Foreign,
        #[promote(with = length)]
        text: &'a str,
        both: (Option<&'a [T]>, Result<T, Box<Kind>>),
    },
}

#[derive(Trace)]
enum HeapNode<'gc, T> {
    Unit,
    Tuple(Kind, Gc<'gc, T>, [u8; 3]),
    Fields {
        kept: Gc<'gc, u64>,
        #[trace(leaf)]
        foreign: Foreign,
        text: usize,
        both: (Option<Gc<'gc, [T]>>, Result<T, Box<Kind>>),
    },
}

fn length(text: &&str, _: &Promotion<'_, '_>) -> Result<usize, PromoteError> {
    Ok(text.len())
}

#[derive(Promote)]
#[promote(into = HeapUnit)]
struct Unit;

#[derive(Trace)]
struct HeapUnit;

#[derive(Promote)]
#[promote(into = HeapPair<'gc>)]
struct Pair<'a>(&'a Unit, &'a mut [Kind]);

#[derive(Trace)]
struct HeapPair<'gc>(Gc<'gc, HeapUnit>, Gc<'gc, [Kind]>);

#[test]
fn enums_parameters_and_attributes() {
    quiet().enter(|mc| {
        mc.arena(|arena| {
            let kept = mc.alloc(5_u64);
            let unit: Node<'_, '_, u8> = Node::Unit;
            assert!(matches!(mc.promote(unit), HeapNode::Unit));
            let kind = Kind::New { since: 3 };
            match mc.promote(Node::Tuple(kind, arena.alloc("text"), [1, 2, 3])) {
                HeapNode::Tuple(copy, text, bytes) => {
                    assert_eq!((copy, &**text, bytes), (kind, "text", [1, 2, 3]));
                }
                _ => panic!("another variant"),
            }
            let both = (Some(arena.alloc_slice_copy(&[7, 8]) as &[_]), Err(Box::new(Kind::Old)));
            let node =
                leaked(arena, Node::Fields { kept, foreign: Foreign(-1), text: "four", both });
            let object: Gc<'_, HeapNode<'_, i32>> = mc.promote(&*node);
            match &*object {
                HeapNode::Fields { kept: same, foreign, text, both: (Some(list), Err(kind)) } => {
                    assert!(Gc::ptr_eq(kept, *same));
                    assert_eq!((foreign, *text, &**list), (&Foreign(-1), 4, &[7, 8][..]));
                    assert_eq!(**kind, Kind::Old);
                }
                _ => panic!("another variant"),
            }
            let pair =
                mc.promote(Pair(arena.alloc(Unit), arena.alloc_slice_copy(&[kind, Kind::Old])));
            let HeapPair(unit, kinds) = pair;
            assert_eq!((size_of_val(&*unit), kinds[1]), (0, Kind::Old));
            assert_eq!(&*mc.promote("text"), "text");
            assert_eq!(&*mc.promote(arena.alloc_str("more")), "more");
            assert_eq!((mc.promote(3), mc.promote(String::from("owned"))), (3, "owned".into()));
        });
    });
}

#[derive(Promote)]
#[promote(into = HeapLink<'gc>)]
struct Link<'a> {
    number: usize,
    next: Option<&'a Link<'a>>,
}

#[derive(Trace)]
struct HeapLink<'gc> {
    number: usize,
    next: Option<Gc<'gc, HeapLink<'gc>>>,
}

fn chain<'a>(arena: &'a spanheap::Arena<'_>, length: usize) -> Option<&'a Link<'a>> {
    (0..length).fold(None, |next, number| Some(&*arena.alloc(Link { number, next })))
}

/// A chain that is too long for recursion is an error, and not the end of the process; a thousand links are not too long.
#[test]
fn depth_is_bounded_by_the_stack_that_it_takes() {
    let heap = quiet();
    heap.enter(|mc| {
        mc.arena(|arena| {
            let mut link = mc.promote(chain(arena, 1000));
            for number in (0..1000).rev() {
                let Some(here) = link else { panic!("the chain ends before {number}") };
                assert_eq!(here.number, number);
                link = here.next;
            }
            assert!(link.is_none());
            let long = chain(arena, 1_000_000);
            assert_eq!(mc.try_promote(long).err(), Some(PromoteError::TooDeep));
            let outcome = catch_unwind(AssertUnwindSafe(|| mc.promote(long).is_some()));
            let text = *outcome.unwrap_err().downcast::<String>().unwrap();
            assert!(text.starts_with("a value is nested too deeply to be promoted"), "{text}");
            // From its end, with a loop, it can be done.
            let links: Vec<&Link<'_>> = std::iter::successors(long, |link| link.next).collect();
            let mut copy = None;
            for link in links.into_iter().rev() {
                copy = Some(mc.alloc(HeapLink { number: link.number, next: copy }));
            }
            assert_eq!(copy.map(|copy| copy.number), Some(999_999));
        });
    });
}

#[test]
fn a_heap_without_room_is_an_error() {
    let heap = Heap::builder().hard_limit(16 << 20).build().unwrap();
    heap.enter(|mc| {
        mc.arena(|arena| {
            let long: Vec<_> =
                (0..100).map(|n| &*arena.alloc_slice_fill_with(10_000, |i| i + n)).collect();
            let slices = arena.alloc_slice_copy(&long);
            let slices: Vec<&[&[usize]]> = vec![slices; 100];
            let error = mc.try_promote(slices).err().expect("80 MB do not fit");
            assert!(matches!(error, PromoteError::OutOfMemory(_)), "{error}");
            assert!(error.to_string().contains("limit"), "{error}");
        });
    });
}
