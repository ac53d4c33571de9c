//! `#[derive(Promote)]`: what a type becomes when it is copied out of an arena.
//!
//! For `#[promote(into = Entry<'gc>)] struct Parsed<'a> { name: &'a str, #[promote(clone)] kind: Kind }` it is
//!
//! ```text
//! impl<'a, 'gc> Promote<'gc> for Parsed<'a> {
//!     type Promoted = Entry<'gc>;
//!     fn promote_to(&self, heap: &Promotion<'_, 'gc>) -> Result<Entry<'gc>, PromoteError> {
//!         let Parsed { name, kind } = self;
//!         Ok(Entry {
//!             name: <&'a str as Promote<'gc>>::promote_to(name, heap)?,
//!             kind: <Kind as Clone>::clone(kind),
//!         })
//!     }
//! }
//! ```
//!
//! and an arm for each variant of an enum. The type that it becomes has fields, or variants, with the same names; that it
//! has them, and that their types are what the fields become, is left to the compiler, which then points at the field.
//!
//! Nothing here has to be trusted: the expansion is safe code.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Fields, Generics, Index, Lifetime, Member, Path, Type, TypePath,
    parse_quote,
};

use crate::attributes::Errors;
use crate::parameters::mentions;

/// The lifetime of the closure of the heap, by its name.
const HEAP: &str = "'gc";

/// What becomes of a field.
enum Treatment {
    /// Its type is `Promote`.
    Promoted,
    /// Marked `#[promote(clone)]`.
    Cloned,
    /// Marked `#[promote(with = function)]`.
    With(Path),
}

/// What `#[promote(..)]` says about a type.
#[derive(Default)]
struct Options {
    into: Option<TypePath>,
    clone: bool,
    krate: Option<Path>,
}

struct Field<'a> {
    member: Member,
    ty: &'a Type,
    treatment: Treatment,
}

/// Calls `read` with every argument of every `#[promote(..)]`.
fn for_each_argument(
    attributes: &[Attribute],
    errors: &mut Errors,
    mut read: impl FnMut(ParseNestedMeta<'_>) -> syn::Result<()>,
) {
    for attribute in attributes.iter().filter(|a| a.path().is_ident("promote")) {
        if let Err(error) = attribute.parse_nested_meta(&mut read) {
            errors.push(error);
        }
    }
}

impl Options {
    fn read(input: &DeriveInput, errors: &mut Errors) -> Options {
        let mut options = Options::default();
        for_each_argument(&input.attrs, errors, |argument| {
            if argument.path.is_ident("into") {
                options.into = Some(argument.value()?.parse()?);
            } else if argument.path.is_ident("clone") {
                options.clone = true;
            } else if argument.path.is_ident("crate") {
                options.krate = Some(argument.value()?.call(Path::parse_mod_style)?);
            } else {
                return Err(argument.error(
                    "a type is marked `#[promote(into = Type<'gc>)]`, with what it becomes in the heap, or \
                     `#[promote(clone)]`, if it is the same there; and `#[promote(crate = path)]`",
                ));
            }
            Ok(())
        });
        if options.into.is_some() == options.clone {
            errors.add(
                input.ident.span(),
                "say what this becomes in the heap, with `#[promote(into = Type<'gc>)]` (a type with the same fields, \
                 where each has the type that it becomes), or `#[promote(clone)]` if it is the same there",
            );
        }
        options
    }
}

fn treatment_of(attributes: &[Attribute], errors: &mut Errors) -> Treatment {
    let mut treatment = Treatment::Promoted;
    for_each_argument(attributes, errors, |argument| {
        if argument.path.is_ident("clone") {
            treatment = Treatment::Cloned;
        } else if argument.path.is_ident("with") {
            treatment = Treatment::With(argument.value()?.parse()?);
        } else {
            return Err(argument.error(
                "a field may be marked `#[promote(clone)]`, or `#[promote(with = function)]` with a function from \
                 `(&Field, &Promotion<'_, 'gc>)` to a `Result` of what it becomes",
            ));
        }
        Ok(())
    });
    treatment
}

fn fields_of<'a>(fields: &'a Fields, errors: &mut Errors) -> Vec<Field<'a>> {
    let read = |(index, field): (usize, &'a syn::Field)| Field {
        member: match &field.ident {
            Some(name) => Member::Named(name.clone()),
            None => Member::Unnamed(Index::from(index)),
        },
        ty: &field.ty,
        treatment: treatment_of(&field.attrs, errors),
    };
    fields.iter().enumerate().map(read).collect()
}

/// The implementation, or everything that is wrong with the item.
pub(crate) fn implementation(input: &DeriveInput) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    let options = Options::read(input, &mut errors);
    let mut variants = Vec::new();
    match &input.data {
        Data::Struct(data) => variants.push((None, fields_of(&data.fields, &mut errors))),
        Data::Enum(data) => {
            for variant in &data.variants {
                for attribute in variant.attrs.iter().filter(|a| a.path().is_ident("promote")) {
                    errors.add(attribute.span(), "`#[promote(..)]` is not used on a variant");
                }
                variants.push((Some(&variant.ident), fields_of(&variant.fields, &mut errors)));
            }
        }
        Data::Union(data) => errors.add(
            data.union_token.span,
            "`Promote` cannot be derived for a union: nothing says which of its fields is alive",
        ),
    }
    errors.unless_any(())?;
    Ok(expand(input, &options, &variants))
}

fn expand(
    input: &DeriveInput,
    options: &Options,
    variants: &[(Option<&Ident>, Vec<Field<'_>>)],
) -> TokenStream {
    let krate = options.krate.clone().unwrap_or_else(|| parse_quote!(::spanheap));
    let heap = Lifetime::new(HEAP, Span::call_site());
    let name = &input.ident;
    let (_, ty_generics, _) = input.generics.split_for_impl();
    let fields = || variants.iter().flat_map(|(_, fields)| fields);
    let generics = generics(&input.generics, &heap, &krate, options.clone, &mut fields());
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let (promoted, body) = match &options.into {
        None => {
            (quote!(Self), quote!(::core::result::Result::Ok(::core::clone::Clone::clone(self))))
        }
        Some(into) => {
            let target = without_arguments(into);
            let arms = variants
                .iter()
                .map(|(variant, fields)| arm(name, &target, *variant, fields, &krate));
            let body = match (variants.is_empty(), arms.collect::<TokenStream>()) {
                (true, _) => quote!(match *self {}),
                (false, arms) => quote!(::core::result::Result::Ok(match self { #arms })),
            };
            (into.to_token_stream(), body)
        }
    };
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #impl_generics #krate::Promote<#heap> for #name #ty_generics #where_clause {
            type Promoted = #promoted;

            #[inline]
            #[allow(unused_variables, clippy::all, clippy::pedantic)]
            fn promote_to(
                &self,
                heap: &#krate::Promotion<'_, #heap>,
            ) -> ::core::result::Result<Self::Promoted, #krate::PromoteError> {
                #body
            }
        }
    }
}

/// The generics of the item, with the lifetime of the heap, and the bounds on type parameters.
fn generics<'a>(
    generics: &Generics,
    heap: &Lifetime,
    krate: &Path,
    is_clone: bool,
    fields: &mut dyn Iterator<Item = &'a Field<'a>>,
) -> Generics {
    let mut bounded = generics.clone();
    let parameters: Vec<Ident> = generics.type_params().map(|p| p.ident.clone()).collect();
    if generics.lifetimes().all(|lifetime| lifetime.lifetime != *heap) {
        bounded.params.insert(0, parse_quote!(#heap));
    }
    let where_clause = bounded.make_where_clause();
    if is_clone {
        where_clause.predicates.push(parse_quote!(Self: ::core::clone::Clone + #heap));
        return bounded;
    }
    for Field { ty, treatment, .. } in fields {
        for parameter in parameters.iter().filter(|name| mentions(ty.to_token_stream(), name)) {
            match treatment {
                Treatment::Promoted => {
                    where_clause.predicates.push(parse_quote!(#parameter: #krate::Promote<#heap>));
                    // It may lie behind a reference, and then it becomes an object.
                    where_clause.predicates.push(parse_quote!(
                        <#parameter as #krate::Promote<#heap>>::Promoted:
                            #krate::Trace + ::core::marker::Send + ::core::marker::Sync
                    ));
                }
                Treatment::Cloned => {
                    where_clause.predicates.push(parse_quote!(#parameter: ::core::clone::Clone));
                }
                Treatment::With(_) => {}
            }
        }
    }
    bounded
}

/// A type as it is written in front of a literal of it.
fn without_arguments(ty: &TypePath) -> Path {
    let mut path = ty.path.clone();
    for segment in &mut path.segments {
        segment.arguments = syn::PathArguments::None;
    }
    path
}

/// The arm that promotes the fields of a struct or a variant.
fn arm(
    name: &Ident,
    target: &Path,
    variant: Option<&Ident>,
    fields: &[Field<'_>],
    krate: &Path,
) -> TokenStream {
    let (mut patterns, mut values) = (TokenStream::new(), TokenStream::new());
    for (index, Field { member, ty, treatment }) in fields.iter().enumerate() {
        let binding = format_ident!("field_{index}", span = Span::mixed_site());
        patterns.extend(quote!(#member: #binding,));
        let span = ty.span().resolved_at(Span::call_site());
        let value = match treatment {
            Treatment::Promoted => {
                quote_spanned!(span=> <#ty as #krate::Promote<'gc>>::promote_to(#binding, heap)?)
            }
            Treatment::Cloned => {
                quote_spanned!(span=> <#ty as ::core::clone::Clone>::clone(#binding))
            }
            Treatment::With(function) => quote_spanned!(span=> #function(#binding, heap)?),
        };
        values.extend(quote!(#member: #value,));
    }
    let variant = variant.map(|variant| quote!(::#variant));
    quote!(#name #variant { #patterns } => #target #variant { #values },)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(input: &DeriveInput) -> String {
        match implementation(input) {
            Ok(tokens) => tokens.to_string(),
            Err(error) => error.into_iter().map(|e| e.to_string()).collect::<Vec<_>>().join("\n"),
        }
    }

    #[track_caller]
    fn assert_has(expansion: &str, part: &TokenStream) {
        assert!(expansion.contains(&part.to_string()), "no `{part}` in:\n{expansion}");
    }

    #[test]
    fn the_heaps_lifetime_is_added_unless_it_is_there() {
        let with: DeriveInput = parse_quote! {
            #[promote(into = B<'gc>)] struct A<'gc, 'a> { x: Gc<'gc, u8>, y: &'a u8 }
        };
        assert_has(
            &expanded(&with),
            &quote!(impl<'gc, 'a> ::spanheap::Promote<'gc> for A<'gc, 'a>),
        );
        let without: DeriveInput =
            parse_quote! { #[promote(into = m::B<'gc>)] struct A<'a>(&'a u8); };
        let expansion = expanded(&without);
        assert_has(&expansion, &quote!(impl<'gc, 'a> ::spanheap::Promote<'gc> for A<'a>));
        assert_has(&expansion, &quote!(=> m::B));
    }

    #[test]
    fn parameters_are_bound_by_how_they_are_used() {
        let input: DeriveInput = parse_quote! {
            #[promote(into = B<'gc, T::Promoted>, crate = gc)]
            enum A<'a, T, U, V> {
                X(&'a T),
                Y { #[promote(clone)] u: Option<U>, #[promote(with = f)] v: V },
            }
        };
        let expansion = expanded(&input);
        assert_has(&expansion, &quote!(T: gc::Promote<'gc>));
        assert_has(&expansion, &quote!(U: ::core::clone::Clone));
        assert_eq!(expansion.matches("V :").count(), 0, "{expansion}");
    }

    #[test]
    fn every_mistake_is_reported() {
        let input: DeriveInput = parse_quote! {
            #[promote(onto = B)]
            enum A { #[promote(clone)] X(#[promote(skip)] u8), Y }
        };
        let messages = expanded(&input);
        for part in [
            "a type is marked",
            "say what this becomes",
            "not used on a variant",
            "a field may be marked",
        ] {
            assert!(messages.contains(part), "{messages}");
        }
    }
}
