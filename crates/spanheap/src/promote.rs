//! [`Promote`]: copying a value out of an arena into the heap.
//!
//! A value in an arena refers to others by `&`, and a value in the heap by [`Gc`], so the two have different types.
//! `Promote` says what the one becomes, and does it *deeply*: what a reference leads to is copied first, and the
//! reference becomes a `Gc` to the copy. A `Gc` stays what it is, for what it leads to is in the heap already.
//!
//! # Depth and sharing
//! A reference is followed by recursion, so a value that is nested deeply needs stack: some hundred bytes for each
//! level, and what the values at each level take, which pass over the stack. It is *measured*: beyond [`STACK`] the
//! promotion is refused, and the stack does not overflow. (It is measured from where the promotion begins; a thread
//! that has less left then overflows as it would by any other recursion.) A list of any length can be promoted from
//! its end, with a loop, by a program that knows that it is one.
//!
//! What several references lead to is copied for each of them: references without mutable cells between
//! them cannot form circles, so the copy ends, but two references on each of `n` levels make `2^n` copies. There is no
//! table of what has been copied already, because a lookup for each reference would cost more than most copies; a
//! program that shares structure keeps `Gc`s to it in the arena, which are not copied.

use crate::gc::Gc;
use crate::mutator::Mutator;
use crate::trace::Trace;
use crate::weak::Weak;
use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::num;
use core::time::Duration;
use spanheap_core::heap::OutOfMemory;
use std::sync::Arc;

/// How much stack a promotion may use, in bytes.
const STACK: usize = 512 << 10;

/// A type whose values can be copied from an arena into the heap: see [`Mutator::promote`].
///
/// | in the arena | in the heap |
/// |---|---|
/// | numbers, `bool`, `char`, `()`, `String`, times | the same |
/// | `&T`, `&mut T` | `Gc<T::Promoted>` |
/// | `&str`, `&mut str` | `Gc<str>` |
/// | `&[T]`, `&mut [T]` | `Gc<[T::Promoted]>` |
/// | `Gc<T>`, `Weak<T>`, `Arc<T>` | the same, and what it leads to is not copied |
/// | `Option`, `Result`, tuples, arrays, `Box`, `Vec` of such | the same of what these become |
///
/// Own types get it by a [derive](derive@crate::Promote), which is told the type that they become:
///
/// ```
/// use spanheap::{Gc, GcCell, Heap, Promote, PromoteError, Promotion, Trace};
///
/// #[derive(Promote)]
/// #[promote(into = Value<'gc>)]
/// enum Parsed<'a> {
///     Nothing,
///     Number(f64),
///     Text(&'a str),
///     List(&'a [Parsed<'a>]),
///     Named { kind: Kind, #[promote(with = in_cell)] value: Option<&'a u64> },
/// }
///
/// #[derive(Promote, Trace, Clone, Copy)]
/// #[promote(clone)]
/// enum Kind { Old, New }
///
/// #[derive(Trace)]
/// enum Value<'gc> {
///     Nothing,
///     Number(f64),
///     Text(Gc<'gc, str>),
///     List(Gc<'gc, [Value<'gc>]>),
///     Named { kind: Kind, value: GcCell<'gc, Option<Gc<'gc, u64>>> },
/// }
///
/// fn in_cell<'gc>(
///     value: &Option<&u64>,
///     heap: &Promotion<'_, 'gc>,
/// ) -> Result<GcCell<'gc, Option<Gc<'gc, u64>>>, PromoteError> {
///     Ok(GcCell::new(value.promote_to(heap)?))
/// }
///
/// Heap::new().enter(|mc| {
///     let value = mc.arena(|arena| {
///         let list = arena.alloc_slice_fill_iter([
///             Parsed::Text(arena.alloc_str("one")),
///             Parsed::Named { kind: Kind::New, value: Some(arena.alloc(2)) },
///         ]);
///         mc.promote(Parsed::List(list))
///     });
///     let Value::List(list) = value else { panic!("it was a list") };
///     assert!(matches!(list[0], Value::Text(text) if &*text == "one"));
///     assert!(matches!(&list[1], Value::Named { kind: Kind::New, value } if *value.get().unwrap() == 2));
/// });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement `Promote`, so it cannot be copied from an arena into the heap",
    label = "what this becomes in the heap is not known",
    note = "add `#[derive(Promote)]` with `#[promote(into = ..)]` to the type, or `#[promote(clone)]` if it is the same in the heap; a field of a foreign type can be marked `#[promote(clone)]`, or `#[promote(with = function)]`"
)]
pub trait Promote<'gc> {
    /// What a value becomes.
    type Promoted: 'gc;

    /// Copies the value with all that it leads to.
    ///
    /// # Errors
    /// [`PromoteError`], when the heap has no room or the value is nested too deeply. What has been copied then is
    /// garbage.
    fn promote_to(&self, heap: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError>;
}

/// Why a value was not promoted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PromoteError {
    /// The heap has no room.
    OutOfMemory(OutOfMemory),
    /// References lead to references so far down that following them would take too much stack.
    TooDeep,
}

impl fmt::Display for PromoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PromoteError::OutOfMemory(error) => error.fmt(f),
            PromoteError::TooDeep => write!(
                f,
                "a value is nested too deeply to be promoted: following its references takes more than {STACK} bytes of \
                 stack; promote its innermost parts first, and keep them as `Gc`s"
            ),
        }
    }
}

impl std::error::Error for PromoteError {}

impl From<OutOfMemory> for PromoteError {
    fn from(error: OutOfMemory) -> PromoteError {
        PromoteError::OutOfMemory(error)
    }
}

/// A promotion under way: where copies go. Implementations of [`Promote`] pass it on.
pub struct Promotion<'m, 'gc> {
    mc: &'m Mutator<'gc>,
    /// Where the stack was when it began.
    stack: usize,
}

/// Where the stack is.
#[inline(always)]
fn stack_now() -> usize {
    let here = Cell::new(0_u8);
    // The address is looked at by nobody but the subtraction below.
    core::hint::black_box(&here).as_ptr().addr()
}

impl<'m, 'gc> Promotion<'m, 'gc> {
    #[inline]
    fn begin(mc: &'m Mutator<'gc>) -> Self {
        Promotion { mc, stack: stack_now() }
    }

    /// The mutator of the heap that takes the copies.
    #[inline]
    pub fn mutator(&self) -> &'m Mutator<'gc> {
        self.mc
    }

    /// Refuses to follow another reference if the stack may not have room.
    #[inline]
    fn descend(&self) -> Result<(), PromoteError> {
        match self.stack.abs_diff(stack_now()) > STACK {
            true => Err(PromoteError::TooDeep),
            false => Ok(()),
        }
    }

    /// Copies what a reference leads to into an object of its own.
    ///
    /// # Errors
    /// As [`Promote::promote_to`].
    pub fn object<T>(&self, value: &T) -> Result<Gc<'gc, T::Promoted>, PromoteError>
    where
        T: Promote<'gc>,
        T::Promoted: Trace + Send + Sync,
    {
        self.descend()?;
        self.keep(value.promote_to(self)?)
    }

    /// Allocates a copy. Not in line: promoting goes down one frame for each reference, and what allocating needs of
    /// the stack is not to be in each of them.
    #[inline(never)]
    fn keep<T: Trace + Send + Sync + 'gc>(&self, copy: T) -> Result<Gc<'gc, T>, PromoteError> {
        Ok(self.mc.try_alloc(copy)?)
    }

    /// The same for elements.
    #[inline(never)]
    fn keep_all<T>(&self, copies: Vec<T>) -> Result<Gc<'gc, [T]>, PromoteError>
    where
        T: Trace + Send + Sync + 'gc,
    {
        Ok(self.mc.try_alloc_slice(copies)?)
    }

    /// Copies the elements of a slice into an object. They are collected in a `Vec` on the way.
    ///
    /// # Errors
    /// As [`Promote::promote_to`].
    pub fn slice<T>(&self, values: &[T]) -> Result<Gc<'gc, [T::Promoted]>, PromoteError>
    where
        T: Promote<'gc>,
        T::Promoted: Trace + Send + Sync,
    {
        self.descend()?;
        self.keep_all(values.promote_each(self)?)
    }
}

impl fmt::Debug for Promotion<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Promotion(to heap {})", self.mc.core().heap_number())
    }
}

/// Promoting the elements of a slice, one after the other.
trait PromoteEach<'gc, T: Promote<'gc>> {
    fn promote_each(&self, heap: &Promotion<'_, 'gc>) -> Result<Vec<T::Promoted>, PromoteError>;
}

impl<'gc, T: Promote<'gc>> PromoteEach<'gc, T> for [T] {
    #[inline]
    fn promote_each(&self, heap: &Promotion<'_, 'gc>) -> Result<Vec<T::Promoted>, PromoteError> {
        let mut copies = Vec::with_capacity(self.len());
        for value in self {
            copies.push(value.promote_to(heap)?);
        }
        Ok(copies)
    }
}

impl<'gc> Mutator<'gc> {
    /// Copies a value from an arena into the heap, with all that it leads to: what is to outlive the arena. A
    /// reference becomes a [`Gc`].
    ///
    /// ```
    /// use spanheap::{Gc, Heap, Promote, Root, Rootable, Trace};
    ///
    /// #[derive(Promote)]
    /// #[promote(into = Entry<'gc>)]
    /// struct Parsed<'a> {
    ///     name: &'a str,
    ///     numbers: &'a [u32],
    ///     next: Option<&'a Parsed<'a>>,
    /// }
    ///
    /// #[derive(Trace)]
    /// struct Entry<'gc> {
    ///     name: Gc<'gc, str>,
    ///     numbers: Gc<'gc, [u32]>,
    ///     next: Option<Gc<'gc, Entry<'gc>>>,
    /// }
    ///
    /// let heap = Heap::new();
    /// let kept: Root<Rootable![Entry<'_>]> = heap.enter(|mc| {
    ///     mc.arena(|arena| {
    ///         let mut list = None;
    ///         for line in ["a 1 2", "b", "c 3"] {
    ///             let (name, numbers) = line.split_at(1);
    ///             let numbers = numbers.split_whitespace().flat_map(str::parse);
    ///             let numbers = arena.alloc_slice_fill_iter(numbers);
    ///             list = Some(&*arena.alloc(Parsed { name: arena.alloc_str(name), numbers, next: list }));
    ///         }
    ///         let found = list.and_then(|entry| entry.next).expect("three entries");
    ///         mc.root(mc.promote(found))
    ///     })
    /// });
    /// heap.enter(|mc| {
    ///     let entry = kept.get(mc);
    ///     assert_eq!((&*entry.name, entry.numbers.len()), ("b", 0));
    ///     assert_eq!(&*entry.next.expect("the first one").numbers, [1, 2]);
    /// });
    /// ```
    ///
    /// # Panics
    /// When there is no room, or the value is nested too deeply: see [`Mutator::try_promote`].
    #[track_caller]
    pub fn promote<P: Promote<'gc>>(&self, value: P) -> P::Promoted {
        match self.try_promote(value) {
            Ok(copy) => copy,
            Err(error) => panic!("{error}"),
        }
    }

    /// Copies a value from an arena into the heap, if there is room: see [`Mutator::promote`].
    ///
    /// What several references lead to is copied for each of them; what a `Gc` leads to is not copied.
    ///
    /// # Errors
    /// [`PromoteError`]: the heap has no room; or following references takes more than half a mebibyte of stack,
    /// which are some thousands of levels in an optimised program, and hundreds in another. What has been copied then
    /// is garbage.
    pub fn try_promote<P: Promote<'gc>>(&self, value: P) -> Result<P::Promoted, PromoteError> {
        value.promote_to(&Promotion::begin(self))
    }
}

impl<'gc, T> Promote<'gc> for &T
where
    T: Promote<'gc>,
    T::Promoted: Trace + Send + Sync,
{
    type Promoted = Gc<'gc, T::Promoted>;

    #[inline]
    fn promote_to(&self, heap: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        heap.object(*self)
    }
}

impl<'gc, T> Promote<'gc> for &mut T
where
    T: Promote<'gc>,
    T::Promoted: Trace + Send + Sync,
{
    type Promoted = Gc<'gc, T::Promoted>;

    #[inline]
    fn promote_to(&self, heap: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        heap.object(&**self)
    }
}

impl<'gc, T> Promote<'gc> for &[T]
where
    T: Promote<'gc>,
    T::Promoted: Trace + Send + Sync,
{
    type Promoted = Gc<'gc, [T::Promoted]>;

    #[inline]
    fn promote_to(&self, heap: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        heap.slice(self)
    }
}

impl<'gc, T> Promote<'gc> for &mut [T]
where
    T: Promote<'gc>,
    T::Promoted: Trace + Send + Sync,
{
    type Promoted = Gc<'gc, [T::Promoted]>;

    #[inline]
    fn promote_to(&self, heap: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        heap.slice(self)
    }
}

impl<'gc> Promote<'gc> for &str {
    type Promoted = Gc<'gc, str>;

    #[inline]
    fn promote_to(&self, heap: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        Ok(heap.mc.try_alloc_str(self)?)
    }
}

impl<'gc> Promote<'gc> for &mut str {
    type Promoted = Gc<'gc, str>;

    #[inline]
    fn promote_to(&self, heap: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        Ok(heap.mc.try_alloc_str(self)?)
    }
}

impl<'gc, T: ?Sized + 'gc> Promote<'gc> for Gc<'gc, T> {
    type Promoted = Gc<'gc, T>;

    #[inline]
    fn promote_to(&self, _: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        Ok(*self)
    }
}

impl<'gc, T: ?Sized + 'gc> Promote<'gc> for Weak<'gc, T> {
    type Promoted = Weak<'gc, T>;

    #[inline]
    fn promote_to(&self, _: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        Ok(*self)
    }
}

impl<'gc, T: ?Sized + 'gc> Promote<'gc> for Arc<T> {
    type Promoted = Arc<T>;

    #[inline]
    fn promote_to(&self, _: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        Ok(self.clone())
    }
}

impl<'gc, T: Promote<'gc>> Promote<'gc> for Option<T> {
    type Promoted = Option<T::Promoted>;

    #[inline]
    fn promote_to(&self, heap: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        self.as_ref().map(|value| value.promote_to(heap)).transpose()
    }
}

impl<'gc, T: Promote<'gc>, E: Promote<'gc>> Promote<'gc> for Result<T, E> {
    type Promoted = Result<T::Promoted, E::Promoted>;

    #[inline]
    fn promote_to(&self, heap: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        Ok(match self {
            Ok(value) => Ok(value.promote_to(heap)?),
            Err(error) => Err(error.promote_to(heap)?),
        })
    }
}

impl<'gc, T: Promote<'gc>> Promote<'gc> for Box<T> {
    type Promoted = Box<T::Promoted>;

    #[inline]
    fn promote_to(&self, heap: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        heap.descend()?;
        Ok(Box::new((**self).promote_to(heap)?))
    }
}

impl<'gc, T: Promote<'gc>> Promote<'gc> for Vec<T> {
    type Promoted = Vec<T::Promoted>;

    #[inline]
    fn promote_to(&self, heap: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        heap.descend()?;
        self.promote_each(heap)
    }
}

impl<'gc, T: Promote<'gc>, const N: usize> Promote<'gc> for [T; N] {
    type Promoted = [T::Promoted; N];

    #[inline]
    fn promote_to(&self, heap: &Promotion<'_, 'gc>) -> Result<Self::Promoted, PromoteError> {
        let copies = self.promote_each(heap)?;
        // As many as there were.
        Ok(copies.try_into().unwrap_or_else(|_| unreachable!("an array has its length")))
    }
}

macro_rules! tuples {
    ($(($($part:ident)*))*) => {
        $(
            impl<'gc, $($part: Promote<'gc>),*> Promote<'gc> for ($($part,)*) {
                type Promoted = ($($part::Promoted,)*);

                #[inline]
                #[allow(non_snake_case)]
                fn promote_to(
                    &self,
                    heap: &Promotion<'_, 'gc>,
                ) -> Result<Self::Promoted, PromoteError> {
                    let ($($part,)*) = self;
                    Ok(($($part.promote_to(heap)?,)*))
                }
            }
        )*
    };
}

tuples! { (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) }

macro_rules! clones {
    ($($ty:ty),* $(,)?) => {
        $(
            impl<'gc> Promote<'gc> for $ty {
                type Promoted = $ty;

                #[inline]
                fn promote_to(&self, _: &Promotion<'_, 'gc>) -> Result<Self, PromoteError> {
                    Ok(self.clone())
                }
            }
        )*
    };
}

clones! {
    (), bool, char, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64,
    num::NonZeroU8, num::NonZeroU16, num::NonZeroU32, num::NonZeroU64, num::NonZeroU128,
    num::NonZeroUsize, num::NonZeroI8, num::NonZeroI16, num::NonZeroI32, num::NonZeroI64,
    num::NonZeroI128, num::NonZeroIsize,
    String, Box<str>, Duration, std::time::Instant, std::time::SystemTime,
}

impl<'gc, T: ?Sized + 'gc> Promote<'gc> for PhantomData<T> {
    type Promoted = PhantomData<T>;

    #[inline]
    fn promote_to(&self, _: &Promotion<'_, 'gc>) -> Result<Self, PromoteError> {
        Ok(PhantomData)
    }
}
