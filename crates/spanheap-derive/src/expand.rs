//! Writes the implementation.
//!
//! For `struct Node<'gc, T> { key: u64, #[trace(leaf)] tag: Tag, next: Gc<'gc, T> }` it is
//!
//! ```text
//! unsafe impl<'gc, T> Trace for Node<'gc, T> where T: Trace {
//!     const SHAPE: Shape = Shape::NoScan
//!         .with(offset_of!(Self, key), <u64 as Trace>::SHAPE)
//!         .with(offset_of!(Self, next), <Gc<'gc, T> as Trace>::SHAPE);
//!     const LEAF: bool = false;
//!     const EXACT: bool = true && <u64 as Trace>::EXACT && <Gc<'gc, T> as Trace>::EXACT;
//!     fn trace(&self, tracer: &mut Tracer<'_>) {
//!         let Self { key: _, tag: _, next: _ } = self;
//!         trait AssertStatic { fn assert_static() {} }
//!         impl<T: ?Sized + 'static> AssertStatic for T {}
//!         <Tag as AssertStatic>::assert_static();
//!         <u64 as Trace>::trace(&self.key, tracer);
//!         <Gc<'gc, T> as Trace>::trace(&self.next, tracer);
//!     }
//! }
//! const _: () = {
//!     trait TypesThatHoldGcMustNotImplementDrop {}
//!     impl<T: Drop + ?Sized> TypesThatHoldGcMustNotImplementDrop for T {}
//!     impl<'gc, T> TypesThatHoldGcMustNotImplementDrop for Node<'gc, T> {}
//! };
//! ```
//!
//! Two things in there look as if they could be had for less:
//!
//! - *The traits of the checks are in the expansion*, and not in the `spanheap` crate. Where that crate is, says the
//!   program, with `#[trace(crate = path)]`; and a module that passes on the real `Trace` with checks of its own,
//!   which let everything pass, would make a hole of it that nobody has to write `unsafe` for. What is left of
//!   that crate is its trait, and what belongs to the trait. (So the empty shape is that of `()`.)
//! - *The pattern with all fields*. The derive sees the item as it is when the derive is expanded. An attribute
//!   macro below it is expanded later, and may add a field or a variant; then the expansion does not compile.
//!
//! What mentions a field's type carries the span of that type, so a type that is not `Trace` is
//! pointed at where it stands; everything else carries the span of the derive.
//!
//! # Safety
//! The expansion is an `unsafe impl`, and nobody who derives reviews it. What it promises is the
//! contract of `Trace`; the table in the root of this crate says how each promise is kept.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Path, parse_quote};

use crate::item::{Field, Item, Treatment, Variant};
use crate::parameters::{bounded, is_used, may_be_unsized};

/// The paths of what the expansion uses.
struct Names {
    trace: Path,
    tracer: Path,
    private: Path,
}

/// The implementation of `Trace`, and the guard against `Drop`.
pub(crate) fn implementation(item: &Item<'_>) -> TokenStream {
    let krate = &item.krate;
    let names = Names {
        trace: parse_quote!(#krate::Trace),
        tracer: parse_quote!(#krate::Tracer),
        private: parse_quote!(#krate::__private),
    };
    let Names { trace, tracer, private } = &names;
    let name = item.name;
    let generics = bounded(item, trace);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let shape = shape(item, &names);
    let leaf = leaf(item, &names);
    let exact = exact(item, &names);
    let nullable = nullable(item, &names);
    let body = if item.leaf { TokenStream::new() } else { body(item, &names) };
    let guard = drop_guard(item);
    quote! {
        // SAFETY: every field that is not a leaf is passed on to its own `trace`; the shape is folded
        // from the same fields; a leaf is asserted to be 'static; and the guard refuses `Drop` for a
        // type that may hold a `Gc`.
        #[automatically_derived]
        #[allow(deprecated)]
        unsafe impl #impl_generics #trace for #name #ty_generics #where_clause {
            const SHAPE: #private::Shape = #shape;
            const LEAF: bool = #leaf;
            const EXACT: bool = #exact;
            #nullable

            #[inline]
            #[allow(unused_variables, clippy::all, clippy::pedantic)]
            fn trace(&self, tracer: &mut #tracer<'_>) {
                #body
            }
        }
        #guard
    }
}

/// The value of `SHAPE`.
fn shape(item: &Item<'_>, names: &Names) -> TokenStream {
    let trace = &names.trace;
    let nothing = quote!(<() as #trace>::SHAPE);
    if item.leaf || item.is_always_static() {
        return nothing;
    }
    let last = item.fields().count().wrapping_sub(1);
    let fields = item.fields().enumerate().filter(|(_, f)| f.treatment == Treatment::Traced);
    let steps = fields.map(|(index, field)| {
        let Field { member, ty, .. } = field;
        let field_shape = item_of(field, names, "SHAPE");
        if item.is_enum || (index == last && may_be_unsized(ty, item.generics)) {
            quote!(.maybe(#field_shape))
        } else {
            quote!(.with(::core::mem::offset_of!(Self, #member), #field_shape))
        }
    });
    quote!(#nothing #(#steps)*)
}

/// The value of `LEAF`: known from the parameters alone, so that it never depends on itself.
fn leaf(item: &Item<'_>, names: &Names) -> TokenStream {
    if item.leaf {
        return quote!(true);
    }
    if item.generics.lifetimes().next().is_some() {
        return quote!(false);
    }
    let trace = &names.trace;
    let parameters = item.generics.type_params().map(|parameter| &parameter.ident);
    // A parameter that only leaf fields mention is bound to be 'static; one in a function pointer
    // that is mentioned nowhere else is not bound at all.
    let mut terms = Vec::new();
    for parameter in parameters {
        if is_used(item, parameter, Treatment::Traced) {
            terms.push(quote!(<#parameter as #trace>::LEAF));
        } else if !is_used(item, parameter, Treatment::Leaf) {
            return quote!(false);
        }
    }
    quote!(true #(&& #terms)*)
}

/// The value of `EXACT`: what is derived is as right as the fields' implementations are.
fn exact(item: &Item<'_>, names: &Names) -> TokenStream {
    if item.leaf || item.is_always_static() {
        return quote!(true);
    }
    let fields = item.fields().filter(|field| field.treatment == Treatment::Traced);
    let terms = fields.map(|field| item_of(field, names, "EXACT"));
    quote!(true #(&& #terms)*)
}

/// `NULLABLE`, where it differs from the default: a transparent wrapper has the representation of
/// what it wraps, and so has an `Option` of it.
fn nullable(item: &Item<'_>, names: &Names) -> Option<TokenStream> {
    let mut fields = item.fields();
    match (item.transparent && !item.leaf && !item.is_enum, fields.next(), fields.next()) {
        (true, Some(field), None) if field.treatment == Treatment::Traced => {
            let inner = item_of(field, names, "NULLABLE");
            Some(quote!(const NULLABLE: bool = #inner;))
        }
        _ => None,
    }
}

/// `<Type as Trace>::NAME`, blamed on the field's type.
fn item_of(field: &Field<'_>, names: &Names, name: &str) -> TokenStream {
    let (ty, trace) = (field.ty, &names.trace);
    let (first, last) = blame(field);
    let name = format_ident!("{name}", span = last);
    let path = quote_spanned!(first=> <#ty as #trace>::);
    quote!(#path #name)
}

/// The body of `trace`.
fn body(item: &Item<'_>, names: &Names) -> TokenStream {
    let checks = leaf_checks(item);
    let arms = item.variants.iter().map(|variant| arm(item, variant, names));
    let visits = match (item.is_enum, item.variants.is_empty()) {
        (false, _) => struct_visits(item, names),
        (true, true) => quote!(match *self {}),
        (true, false) => quote!(match self { #(#arms)* }),
    };
    quote!(#checks #visits)
}

/// Calls that compile only if the types of all leaf fields are `'static`. The function belongs to a trait, so that the
/// call begins and ends with the field's type in the user's source, which is then what the compiler's
/// message underlines.
fn leaf_checks(item: &Item<'_>) -> Option<TokenStream> {
    let assert_static = quote!(__SpanheapAssertStatic);
    let checks = item.fields().filter(|f| f.treatment == Treatment::Leaf).map(|field| {
        let ty = field.ty;
        let (first, last) = blame(field);
        let start = quote_spanned!(first=> <#ty as #assert_static>::);
        let call = quote_spanned!(last=> assert_static());
        quote!(#start #call;)
    });
    let checks: TokenStream = checks.collect();
    (!checks.is_empty()).then(|| {
        quote! {
            trait #assert_static {
                #[inline(always)]
                fn assert_static() {}
            }
            impl<T: ?Sized + 'static> #assert_static for T {}
            #checks
        }
    })
}

fn struct_visits(item: &Item<'_>, names: &Names) -> TokenStream {
    let members = item.fields().map(|field| &field.member);
    let fields = item.fields().filter(|f| f.treatment == Treatment::Traced);
    let visits = fields.map(|field| {
        let member = &field.member;
        visit(field, names, &quote!(&self.#member))
    });
    quote! {
        let Self { #(#members: _,)* } = self;
        #(#visits)*
    }
}

/// The arm that visits the fields of a variant.
fn arm(item: &Item<'_>, variant: &Variant<'_>, names: &Names) -> TokenStream {
    let (name, variant_name) = (item.name, variant.name);
    let (mut patterns, mut visits) = (TokenStream::new(), TokenStream::new());
    for (index, field) in variant.fields.iter().enumerate() {
        let member = &field.member;
        if field.treatment == Treatment::Traced {
            let binding = format_ident!("field_{index}", span = Span::mixed_site());
            patterns.extend(quote!(#member: #binding,));
            visits.extend(visit(field, names, &quote!(#binding)));
        } else {
            patterns.extend(quote!(#member: _,));
        }
    }
    quote!(#name::#variant_name { #patterns } => { #visits })
}

fn visit(field: &Field<'_>, names: &Names, place: &TokenStream) -> TokenStream {
    let path = item_of(field, names, "trace");
    quote!(#path(#place, tracer);)
}

/// An implementation that collides with one for every type that implements `Drop`: a destructor runs when the
/// collector has found the object dead, and the objects that it points to may be gone by then. The compiler's
/// message tells the trait's name.
fn drop_guard(item: &Item<'_>) -> Option<TokenStream> {
    if item.leaf || item.is_always_static() {
        return None;
    }
    let name = item.name;
    let (impl_generics, ty_generics, where_clause) = item.generics.split_for_impl();
    Some(quote! {
        const _: () = {
            #[allow(dead_code)]
            trait TypesThatHoldGcMustNotImplementDrop {}
            // The bound is meant literally: it asks for an `impl Drop`.
            #[allow(drop_bounds)]
            impl<T: ::core::ops::Drop + ?Sized> TypesThatHoldGcMustNotImplementDrop for T {}
            #[automatically_derived]
            impl #impl_generics TypesThatHoldGcMustNotImplementDrop
                for #name #ty_generics #where_clause {}
        };
    })
}

/// Where an error about the field's type points to: its first and its last token, with names
/// resolved as at the derive. The compiler underlines an expression from its first token to its
/// last.
fn blame(field: &Field<'_>) -> (Span, Span) {
    let here = Span::call_site();
    let first = field.ty.span();
    let last = field.ty.to_token_stream().into_iter().last().map_or(first, |token| token.span());
    (first.resolved_at(here), last.resolved_at(here))
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::DeriveInput;

    fn expanded(input: &DeriveInput) -> String {
        let Ok(item) = Item::read(input) else { panic!("the item is well-formed") };
        implementation(&item).to_string()
    }

    #[track_caller]
    fn assert_has(expansion: &str, part: &TokenStream) {
        assert!(expansion.contains(&part.to_string()), "no `{part}` in:\n{expansion}");
    }

    /// A field that an attribute macro adds after the derive would not be traced.
    #[test]
    fn a_field_that_the_derive_has_not_seen_does_not_compile() {
        let input = parse_quote! {
            struct Node<'gc> { key: u64, #[trace(leaf)] tag: Tag, call: fn(), next: Gc<'gc, u64> }
        };
        let pattern = quote!(let Self { key: _, tag: _, call: _, next: _, } = self;);
        assert_has(&expanded(&input), &pattern);
        let input = parse_quote!(
            struct Pair<'gc>(u64, Gc<'gc, u64>);
        );
        assert_has(&expanded(&input), &quote!(let Self { 0: _, 1: _, } = self;));
        let input = parse_quote! {
            enum Value<'gc> { Empty, Mixed(fn(), Gc<'gc, u64>), Leaf { #[trace(leaf)] tag: Tag } }
        };
        let expansion = expanded(&input);
        assert!(!expansion.contains(".."), "a pattern that passes over fields: {expansion}");
        assert_has(&expansion, &quote!(Value::Empty {} => {}));
        assert_has(&expansion, &quote!(Value::Leaf { tag: _, } => {}));
    }

    /// What a program names as the crate can be anything that has the trait.
    #[test]
    fn no_check_is_taken_from_the_crate_that_is_named() {
        let input = parse_quote! {
            #[trace(crate = elsewhere)]
            struct Node<'gc> { #[trace(leaf)] tag: Tag, next: Gc<'gc, u64> }
        };
        let expansion = expanded(&input);
        let used = expansion.split("elsewhere :: ").skip(1);
        let mut names: Vec<&str> = used.filter_map(|rest| rest.split(' ').next()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names, ["Trace", "Tracer", "__private"]);
        assert_eq!(expansion.matches("__private").count(), 1, "it is the type of `SHAPE`");
    }
}
