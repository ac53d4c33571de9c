//! `#[derive(Trace)]` for spanheap. Use it through the `spanheap` crate, which re-exports it and
//! whose documentation says what may be derived.
//!
//! # What the derive has to get right
//!
//! `Trace` is an unsafe trait, and the derive is what makes it safe to use, so each promise of an
//! implementation is kept by construction or checked by the compiler in the expansion:
//!
//! | promise | kept by |
//! |---|---|
//! | every pointer is reported | `trace` calls `Trace::trace` on every field that is not a leaf |
//! | the shape is true | it is folded from the shapes of the fields and their offsets |
//! | a leaf holds no pointer | its type is asserted to be `'static`, which a `Gc<'gc, _>` never is |
//! | no destructor sees a pointer | an impl that overlaps with one for all types with `Drop` |
//!
//! The third row is the argument that everything rests on. A `Gc` carries the lifetime of the
//! closure it was made in, and that lifetime is never `'static`. So a type that outlives `'static`
//! cannot hold one, however deeply it hides it, and a type without lifetime and type parameters is
//! `'static`.
//!
//! # Modules
//!
//! `attributes` reads `#[trace(..)]`; `item` turns the parsed item into fields with a treatment
//! each; `parameters` decides on bounds; `expand` writes the implementation; `unelide` is the
//! helper of the `Rootable!` macro. `promote` is the derive of `Promote`, which is safe code.

mod attributes;
mod expand;
mod item;
mod parameters;
mod promote;
mod unelide;

use proc_macro::TokenStream;

/// Implements `spanheap::Trace`: tells the collector where the pointers of a type are.
///
/// Works for structs and enums with any parameters. Every type parameter that a traced field
/// mentions must be `Trace`.
///
/// # Attributes
/// - `#[trace(leaf)]` on a field: the field holds no `Gc`. Its type has to be `'static`, which
///   proves it, but it need not be `Trace`. Type parameters in it have to be `'static`.
/// - `#[trace(leaf)]` on the type: no field holds a `Gc`. The implementation applies where the
///   whole type is `'static`. Such a type may implement `Drop`, even when it is generic.
/// - `#[trace(crate = path)]` on the type: where the `spanheap` crate is, for crates that re-export
///   it.
///
/// # What it refuses
/// - A type with a lifetime or type parameter that implements `Drop` (unless it is a leaf): when it
///   dies, the objects that its pointers lead to may be gone already. Put what needs a destructor
///   in a field with a type of its own, one that holds no `Gc`.
/// - Unions: nothing says which field is alive.
/// - `#[repr(packed)]`: the collector could not read a misaligned pointer atomically.
#[proc_macro_derive(Trace, attributes(trace))]
pub fn derive_trace(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    match item::Item::read(&input) {
        Ok(item) => expand::implementation(&item).into(),
        Err(error) => error.into_compile_error().into(),
    }
}

/// Implements `spanheap::Promote`: how a value is copied out of an arena into the heap.
///
/// # Attributes
/// - `#[promote(into = Type<'gc>)]` on the type: what it becomes. That is a type with the same fields, or the same variants,
///   in which each has the type that the field becomes: `Gc<'gc, str>` for `&str`, `Gc<'gc, B>` for `&A` where `A` becomes
///   `B`. The lifetime of the heap is called `'gc` here; if the type has a lifetime of that name, it is the same one.
/// - `#[promote(clone)]` on the type: it is the same in the heap. It has to be `Clone`, and to hold no reference.
/// - `#[promote(clone)]` on a field: it is cloned, and need not be `Promote`.
/// - `#[promote(with = function)]` on a field: the function is called with a reference to the field and the
///   `&Promotion<'_, 'gc>`, and returns what becomes of it, as a `Result<_, PromoteError>`.
/// - `#[promote(crate = path)]` on the type: where the `spanheap` crate is.
///
/// A type parameter that a promoted field mentions has to be `Promote`, and what it becomes must be able to live in the
/// heap.
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
#[proc_macro_derive(Promote, attributes(promote))]
pub fn derive_promote(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    promote::implementation(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// `unelide_lifetimes!('a; Type)` is `Type` with `'_` and left-out lifetimes of references replaced
/// by `'a`.
#[doc(hidden)]
#[proc_macro]
pub fn unelide_lifetimes(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as unelide::Input);
    unelide::expand(input).into()
}
