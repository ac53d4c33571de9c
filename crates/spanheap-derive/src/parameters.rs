//! Which parameters a field's type mentions, and what follows for the bounds of the implementation.
//!
//! - A type parameter in a traced field has to be `Trace`.
//! - A type parameter in a leaf field has to be `'static`; else the field could not be.
//! - A traced field whose type is an associated type of a parameter (`T::Item`) has to be `Trace`
//!   too; the bound on the parameter does not say so.
//!
//! Mentions are looked for in the tokens of the type. That may find one too many (`other::T` where
//! `T` is also a parameter), and then a bound is stricter than need be; it never finds one too few,
//! not even in the arguments of a macro.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{GenericParam, Generics, Path, Type, TypeParamBound, TypePath, parse_quote};

use crate::item::{Item, Treatment};

/// The generics of the item with the bounds that its `Trace` implementation needs.
pub(crate) fn bounded(item: &Item<'_>, trace: &Path) -> Generics {
    let mut generics = item.generics.clone();
    let parameters: Vec<Ident> = item.generics.type_params().map(|p| p.ident.clone()).collect();
    let where_clause = generics.make_where_clause();
    if item.leaf {
        where_clause.predicates.push(parse_quote!(Self: 'static));
        return generics;
    }
    for parameter in &parameters {
        if is_used(item, parameter, Treatment::Traced) {
            where_clause.predicates.push(parse_quote!(#parameter: #trace));
        }
        if is_used(item, parameter, Treatment::Leaf) {
            where_clause.predicates.push(parse_quote!(#parameter: 'static));
        }
    }
    for field in item.fields().filter(|f| f.treatment == Treatment::Traced) {
        if is_associated_type(field.ty, &parameters) {
            let ty = field.ty;
            where_clause.predicates.push(parse_quote!(#ty: #trace));
        }
    }
    generics
}

/// Whether a field of the given treatment mentions `parameter`.
pub(crate) fn is_used(item: &Item<'_>, parameter: &Ident, treatment: Treatment) -> bool {
    item.fields()
        .filter(|field| field.treatment == treatment)
        .any(|field| mentions(field.ty.to_token_stream(), parameter))
}

/// Whether the last field of a struct with these generics may be unsized: its type is a slice,
/// `str`, a trait object, or a parameter that is `?Sized`.
pub(crate) fn may_be_unsized(ty: &Type, generics: &Generics) -> bool {
    match ty {
        Type::Slice(_) | Type::TraitObject(_) => true,
        Type::Group(group) => may_be_unsized(&group.elem, generics),
        Type::Paren(paren) => may_be_unsized(&paren.elem, generics),
        Type::Path(TypePath { qself: None, path }) => {
            path.is_ident("str") || path.get_ident().is_some_and(|name| is_relaxed(name, generics))
        }
        _ => false,
    }
}

/// Whether `name` is a type parameter declared `?Sized`.
fn is_relaxed(name: &Ident, generics: &Generics) -> bool {
    let relaxes = |bound: &TypeParamBound| match bound {
        TypeParamBound::Trait(bound) => {
            matches!(bound.modifier, syn::TraitBoundModifier::Maybe(_))
        }
        _ => false,
    };
    let inline = generics.params.iter().any(|parameter| match parameter {
        GenericParam::Type(parameter) => {
            parameter.ident == *name && parameter.bounds.iter().any(relaxes)
        }
        _ => false,
    });
    let predicates = generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    inline
        || predicates.into_iter().any(|predicate| match predicate {
            syn::WherePredicate::Type(predicate) => match &predicate.bounded_ty {
                Type::Path(ty) => ty.path.is_ident(name) && predicate.bounds.iter().any(relaxes),
                _ => false,
            },
            _ => false,
        })
}

/// Whether `ty` is an associated type of one of the parameters.
fn is_associated_type(ty: &Type, parameters: &[Ident]) -> bool {
    let Type::Path(TypePath { qself, path }) = ty else { return false };
    match qself {
        Some(qself) => parameters.iter().any(|name| mentions(qself.ty.to_token_stream(), name)),
        None => path.segments.len() > 1 && parameters.contains(&path.segments[0].ident),
    }
}

/// Whether the tokens name something like `name`.
pub(crate) fn mentions(tokens: TokenStream, name: &Ident) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == *name,
        TokenTree::Group(group) => mentions(group.stream(), name),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;
    use syn::DeriveInput;

    fn predicates(input: &DeriveInput) -> Vec<String> {
        let Ok(item) = Item::read(input) else { panic!("the item is well-formed") };
        bounded(&item, &parse_quote!(Trace))
            .where_clause
            .map(|clause| clause.predicates)
            .iter()
            .flatten()
            .map(|predicate| quote!(#predicate).to_string())
            .collect()
    }

    #[test]
    fn a_parameter_is_bound_by_how_it_is_used() {
        let input = parse_quote! {
            struct Mixed<'gc, A, B, C: Iterator, const N: usize> where A: Clone {
                a: Vec<[A; N]>,
                #[trace(leaf)] b: Option<B>,
                item: C::Item,
                full: <C as Iterator>::Item,
                call: fn(D) -> &'gc B,
            }
        };
        assert_eq!(
            predicates(&input),
            [
                "A : Clone",
                "A : Trace",
                "B : 'static",
                "C : Trace",
                "C :: Item : Trace",
                "< C as Iterator > :: Item : Trace",
            ]
        );
    }

    #[test]
    fn a_leaf_type_only_has_to_be_static() {
        let input = parse_quote! { #[trace(leaf)] struct Handle<T>(Vec<T>, *mut T); };
        assert_eq!(predicates(&input), ["Self : 'static"]);
    }

    #[test]
    fn only_some_tails_may_be_unsized() {
        let generics: DeriveInput =
            parse_quote! { struct S<A: ?Sized, B, C>(A, B, C) where C: ?Sized + Copy; };
        let may = |ty: Type| may_be_unsized(&ty, &generics.generics);
        assert!(may(parse_quote!([u8])));
        assert!(may(parse_quote!(str)));
        assert!(may(parse_quote!(dyn Send)));
        assert!(may(parse_quote!(A)));
        assert!(!may(parse_quote!(B)));
        assert!(may(parse_quote!(C)));
        assert!(!may(parse_quote!(Box<A>)));
        assert!(!may(parse_quote!([A; 3])));
    }
}
