//! Which types have objects in a class: a sketch, kept where a class hands out memory.
//!
//! Types of equal layout share spans, and an object does not say what type it has. So each class notes for which
//! type it gave a span away, by its bytes: where several types share it, the one that allocates most needs
//! most of the spans. This costs the fast path nothing and a new span a few loads.
//!
//! There is room for [`TRACKED`] types, for values and slices each. One more takes the place of the one with
//! the fewest bytes and inherits them, so a type that has taken a large part is there in any case (this is
//! the *space-saving* sketch for frequent items), and what is said of it is never too little.
//!
//! # Locking
//! None. Two threads that note at once may lose one of the notes, or leave one with the wrong type: these are
//! estimates. Only the name itself is read through a pointer, and that always points to some description.
//!
//! # Safety
//! - E1. A pointer in an entry is null or came from a `&'static TypeInfo`.
#![allow(unsafe_code)]

use crate::addr::Bytes;
use crate::span::TypeInfo;
use crate::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};
use core::ptr;

/// How many types are told apart.
pub const TRACKED: usize = 6;

/// One type.
struct Entry {
    ty: AtomicPtr<TypeInfo>,
    bytes: AtomicU64,
}

impl Entry {
    const fn new() -> Entry {
        Entry { ty: AtomicPtr::new(ptr::null_mut()), bytes: AtomicU64::new(0) }
    }
}

/// The types of a class.
pub struct TypeNames {
    /// Those of which it has single values, and those of which it has slices.
    entries: [[Entry; TRACKED]; 2],
}

/// A type that has, or had, objects in a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Noted {
    /// Its name; of the elements, if these are slices.
    pub name: &'static str,
    /// Whether these are slices.
    pub is_slice: bool,
    /// Bytes of memory that the class has given away for it, about.
    pub bytes: u64,
}

impl TypeNames {
    /// No types.
    pub const fn new() -> TypeNames {
        TypeNames { entries: [const { [const { Entry::new() }; TRACKED] }; 2] }
    }

    /// The class gives `bytes` of memory away, for values of `ty` or slices of them.
    pub fn note(&self, ty: &'static TypeInfo, is_slice: bool, bytes: Bytes) {
        let entries = &self.entries[usize::from(is_slice)];
        let wanted = ptr::from_ref(ty).cast_mut();
        let mut least = &entries[0];
        for entry in entries {
            let found = entry.ty.load(Relaxed);
            if found == wanted || found.is_null() {
                least = entry;
                break;
            }
            if entry.bytes.load(Relaxed) < least.bytes.load(Relaxed) {
                least = entry;
            }
        }
        least.ty.store(wanted, Relaxed);
        least.bytes.store(least.bytes.load(Relaxed).saturating_add(bytes.get() as u64), Relaxed);
    }

    /// The types that are known, those first that have taken most.
    pub fn noted(&self) -> Vec<Noted> {
        let mut noted: Vec<Noted> = Vec::new();
        for (is_slice, entries) in [(false, &self.entries[0]), (true, &self.entries[1])] {
            for entry in entries {
                // SAFETY: E1: null, or a description that lives for ever and is never changed.
                let Some(ty) = (unsafe { entry.ty.load(Relaxed).as_ref() }) else { continue };
                let (name, bytes) = ((ty.name)(), entry.bytes.load(Relaxed));
                // A type may have several descriptions, one for each crate that allocates it.
                match noted.iter_mut().find(|n| n.name == name && n.is_slice == is_slice) {
                    Some(same) => same.bytes += bytes,
                    None => noted.push(Noted { name, is_slice, bytes }),
                }
            }
        }
        noted.sort_by_key(|noted| core::cmp::Reverse(noted.bytes));
        noted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::{Shape, Tracer};

    /// # Safety
    /// None is needed; the type demands the word.
    unsafe fn nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

    const fn ty(name: fn() -> &'static str) -> TypeInfo {
        TypeInfo::new(name, 32, 8, Shape::NoScan, nothing, None)
    }

    static FEW: [TypeInfo; 8] = [
        ty(|| "a"),
        ty(|| "b"),
        ty(|| "c"),
        ty(|| "d"),
        ty(|| "e"),
        ty(|| "f"),
        ty(|| "g"),
        ty(|| "h"),
    ];
    static A_AGAIN: TypeInfo = ty(|| "a");

    #[test]
    fn values_and_slices_are_told_apart_and_descriptions_of_one_type_are_not() {
        let names = TypeNames::new();
        names.note(&FEW[0], false, Bytes::new(10));
        names.note(&FEW[0], true, Bytes::new(100));
        names.note(&A_AGAIN, false, Bytes::new(1));
        let noted = names.noted();
        assert_eq!(noted.len(), 2);
        assert_eq!(noted[0], Noted { name: "a", is_slice: true, bytes: 100 });
        assert_eq!(noted[1], Noted { name: "a", is_slice: false, bytes: 11 });
    }

    #[test]
    fn a_type_that_takes_much_is_known_even_if_it_comes_late() {
        let names = TypeNames::new();
        for round in 0..1000 {
            // Six types take little, one after the other; a seventh takes as much as they all.
            names.note(&FEW[round % 6], false, Bytes::new(1));
            if round > 100 {
                names.note(&FEW[7], false, Bytes::new(6));
            }
        }
        let noted = names.noted();
        assert_eq!(noted.len(), TRACKED);
        assert_eq!(noted[0].name, "h");
        assert!(noted[0].bytes >= 6 * 899, "never too little: {noted:?}");
    }
}
