//! Reads `#[trace(..)]`, and `#[repr(..)]` as far as it matters.
//!
//! All mistakes in an item are reported at once, so nothing here returns at the first error: they
//! go to an [`Errors`], and reading goes on with what could be understood.

use proc_macro2::{Span, TokenStream};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Path, Token};

/// Collects errors in the order of their discovery.
#[derive(Default)]
pub(crate) struct Errors(Option<syn::Error>);

impl Errors {
    /// Adds an error with a message of our own.
    pub(crate) fn add(&mut self, span: Span, message: &str) {
        self.push(syn::Error::new(span, message));
    }

    /// Adds an error of the parser.
    pub(crate) fn push(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// `value`, if there was no error.
    pub(crate) fn unless_any<T>(self, value: T) -> syn::Result<T> {
        match self.0 {
            None => Ok(value),
            Some(errors) => Err(errors),
        }
    }
}

/// What `#[trace(..)]` says about a whole type.
#[derive(Default)]
pub(crate) struct TypeOptions {
    /// The type holds no pointer at all.
    pub(crate) leaf: bool,
    /// Where the `spanheap` crate is, if not at `::spanheap`.
    pub(crate) krate: Option<Path>,
}

impl TypeOptions {
    pub(crate) fn read(attributes: &[Attribute], errors: &mut Errors) -> TypeOptions {
        let mut options = TypeOptions::default();
        for_each_argument(attributes, errors, |argument, errors| {
            if argument.path.is_ident("leaf") {
                set_leaf(&mut options.leaf, &argument, errors);
            } else if argument.path.is_ident("crate") {
                let path = argument.value()?.call(Path::parse_mod_style)?;
                if options.krate.replace(path).is_some() {
                    errors.add(argument.path.span(), "`crate` is given twice");
                }
            } else {
                unknown(
                    &argument,
                    errors,
                    "a type may be marked `#[trace(leaf)]` or `#[trace(crate = path)]`",
                )?;
            }
            Ok(())
        });
        options
    }
}

/// Whether `#[trace(leaf)]` is on a field.
pub(crate) fn field_is_leaf(attributes: &[Attribute], errors: &mut Errors) -> bool {
    let mut leaf = false;
    for_each_argument(attributes, errors, |argument, errors| {
        if argument.path.is_ident("leaf") {
            set_leaf(&mut leaf, &argument, errors);
            Ok(())
        } else {
            unknown(&argument, errors, "a field may be marked `#[trace(leaf)]`")
        }
    });
    leaf
}

/// Complains about `#[trace(..)]` on an enum's variant, where it means nothing.
pub(crate) fn refuse_on_variant(attributes: &[Attribute], errors: &mut Errors) {
    for attribute in attributes.iter().filter(|a| a.path().is_ident("trace")) {
        errors.add(
            attribute.span(),
            "`#[trace(..)]` is not used on a variant; mark the fields of the variant, or the enum",
        );
    }
}

/// What `#[repr(..)]` says, as far as it matters.
#[derive(Default)]
pub(crate) struct Repr {
    /// Where it says `packed`.
    pub(crate) packed: Option<Span>,
    pub(crate) transparent: bool,
}

impl Repr {
    pub(crate) fn read(attributes: &[Attribute]) -> Repr {
        let mut repr = Repr::default();
        for attribute in attributes.iter().filter(|a| a.path().is_ident("repr")) {
            // The compiler reports a malformed `repr` itself.
            let _ = attribute.parse_nested_meta(|argument| {
                if argument.path.is_ident("packed") {
                    repr.packed = Some(argument.path.span());
                } else if argument.path.is_ident("transparent") {
                    repr.transparent = true;
                }
                skip_value(&argument)
            });
        }
        repr
    }
}

/// Calls `read` with every argument of every `#[trace(..)]`.
fn for_each_argument(
    attributes: &[Attribute],
    errors: &mut Errors,
    mut read: impl FnMut(ParseNestedMeta<'_>, &mut Errors) -> syn::Result<()>,
) {
    for attribute in attributes.iter().filter(|a| a.path().is_ident("trace")) {
        if let Err(error) = attribute.parse_nested_meta(|argument| read(argument, errors)) {
            errors.push(error);
        }
    }
}

fn set_leaf(leaf: &mut bool, argument: &ParseNestedMeta<'_>, errors: &mut Errors) {
    if *leaf {
        errors.add(argument.path.span(), "`leaf` is given twice");
    }
    *leaf = true;
}

fn unknown(argument: &ParseNestedMeta<'_>, errors: &mut Errors, allowed: &str) -> syn::Result<()> {
    let path = &argument.path;
    let name = quote::quote!(#path).to_string();
    errors.add(path.span(), &format!("unknown argument `{name}`: {allowed}"));
    skip_value(argument)
}

/// Steps over `= value` or `(..)`, so that the arguments behind it are read too.
fn skip_value(argument: &ParseNestedMeta<'_>) -> syn::Result<()> {
    if argument.input.peek(Token![=]) {
        argument.value()?.parse::<syn::Expr>()?;
    } else if argument.input.peek(syn::token::Paren) {
        let content;
        syn::parenthesized!(content in argument.input);
        content.parse::<TokenStream>()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    fn messages(errors: Errors) -> Vec<String> {
        match errors.0 {
            None => Vec::new(),
            Some(error) => error.into_iter().map(|e| e.to_string()).collect(),
        }
    }

    #[test]
    fn every_mistake_of_a_type_is_reported() {
        let mut errors = Errors::default();
        let attributes: [Attribute; 3] = [
            parse_quote!(#[trace(no_drop = "x", leaf, bound(T: Trace))]),
            parse_quote!(#[trace(leaf)]),
            parse_quote!(#[trace]),
        ];
        let options = TypeOptions::read(&attributes, &mut errors);
        assert!(options.leaf);
        let messages = messages(errors);
        assert_eq!(messages.len(), 4, "{messages:?}");
        assert!(messages[0].starts_with("unknown argument `no_drop`"), "{messages:?}");
        assert!(messages[1].starts_with("unknown argument `bound`"), "{messages:?}");
        assert_eq!(messages[2], "`leaf` is given twice");
        assert!(messages[3].contains("#[trace(...)]"), "{messages:?}");
    }

    #[test]
    fn the_crate_may_be_elsewhere() {
        let mut errors = Errors::default();
        let attributes: [Attribute; 1] = [parse_quote!(#[trace(crate = ::vm::gc)])];
        let options = TypeOptions::read(&attributes, &mut errors);
        assert!(messages(errors).is_empty());
        assert!(!options.leaf);
        let path = options.krate.map(|path| quote::quote!(#path).to_string());
        assert_eq!(path.as_deref(), Some(":: vm :: gc"));
    }

    #[test]
    fn other_attributes_are_none_of_our_business() {
        let mut errors = Errors::default();
        let attributes: [Attribute; 2] =
            [parse_quote!(#[serde(skip)]), parse_quote!(#[doc = "leaf"])];
        assert!(!field_is_leaf(&attributes, &mut errors));
        refuse_on_variant(&attributes, &mut errors);
        assert!(messages(errors).is_empty());
    }

    #[test]
    fn a_field_is_not_told_where_the_crate_is() {
        let mut errors = Errors::default();
        let attributes: [Attribute; 1] = [parse_quote!(#[trace(crate = gc, leaf)])];
        assert!(field_is_leaf(&attributes, &mut errors));
        assert_eq!(
            messages(errors),
            ["unknown argument `crate`: a field may be marked `#[trace(leaf)]`"]
        );
    }

    #[test]
    fn repr_is_read_through_its_other_arguments() {
        let repr = Repr::read(&[parse_quote!(#[repr(C, packed(2), align(8))])]);
        assert!(repr.packed.is_some() && !repr.transparent);
        let repr =
            Repr::read(&[parse_quote!(#[repr(align(16))]), parse_quote!(#[repr(transparent)])]);
        assert!(repr.packed.is_none() && repr.transparent);
    }
}
