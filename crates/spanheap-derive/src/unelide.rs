//! `Rootable![Node<'_>]` has to become `dyn for<'gc> Rootable<'gc, Root = Node<'gc>>`, and
//! `macro_rules!` cannot look into a type. So this puts a lifetime where the user left it out.
//!
//! `fn(&T)` and `Fn(&T)` have a scope of their own for the lifetimes that are left out in them, so
//! they are passed over.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::parse::{Parse, ParseStream};
use syn::visit_mut::{self, VisitMut};
use syn::{Lifetime, ParenthesizedGenericArguments, Token, Type, TypeBareFn, TypeReference};

/// `'a; Type`
pub(crate) struct Input {
    lifetime: Lifetime,
    ty: Type,
}

impl Parse for Input {
    fn parse(input: ParseStream<'_>) -> syn::Result<Input> {
        let lifetime = input.parse()?;
        input.parse::<Token![;]>()?;
        Ok(Input { lifetime, ty: input.parse()? })
    }
}

/// The type with every lifetime named.
pub(crate) fn expand(input: Input) -> TokenStream {
    let Input { lifetime, mut ty } = input;
    Unelide(lifetime).visit_type_mut(&mut ty);
    ty.into_token_stream()
}

/// Puts its lifetime in place of `'_` and of none.
struct Unelide(Lifetime);

impl VisitMut for Unelide {
    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident == "_" {
            *lifetime = self.0.clone();
        }
    }

    fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
        reference.lifetime.get_or_insert_with(|| self.0.clone());
        visit_mut::visit_type_reference_mut(self, reference);
    }

    fn visit_type_bare_fn_mut(&mut self, _: &mut TypeBareFn) {}

    fn visit_parenthesized_generic_arguments_mut(&mut self, _: &mut ParenthesizedGenericArguments) {
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;
    use syn::parse_quote;

    fn unelided(input: Input) -> String {
        expand(input).to_string()
    }

    #[test]
    fn places_without_a_lifetime_are_filled() {
        let input = parse_quote!('gc; (Node<'_, 'a>, &mut [&'static str], Box<dyn Any + '_>));
        let expected = quote!((Node<'gc, 'a>, &'gc mut [&'static str], Box<dyn Any + 'gc>));
        assert_eq!(unelided(input), expected.to_string());
    }

    #[test]
    fn functions_keep_their_own_scope() {
        let input = parse_quote!('gc; (fn(&u8, Gc<'_>) -> &u8, Box<dyn Fn(&u8) -> &u8 + '_>));
        let expected = quote!((fn(&u8, Gc<'_>) -> &u8, Box<dyn Fn(&u8) -> &u8 + 'gc>));
        assert_eq!(unelided(input), expected.to_string());
    }

    #[test]
    fn types_without_lifetimes_stay_as_they_are() {
        assert_eq!(unelided(parse_quote!('gc; [u64])), quote!([u64]).to_string());
        assert_eq!(unelided(parse_quote!('gc; str)), quote!(str).to_string());
    }
}
