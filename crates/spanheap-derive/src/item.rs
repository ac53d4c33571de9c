//! The item under the derive, read once: its fields, and how each is to be treated.

use proc_macro2::{Ident, Span};
use syn::{Data, DeriveInput, Fields, Generics, Index, Member, Path, Type, parse_quote};

use crate::attributes::{Errors, Repr, TypeOptions, field_is_leaf, refuse_on_variant};

/// How the implementation treats a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Treatment {
    /// Its type is `Trace`, and is asked.
    Traced,
    /// Marked `#[trace(leaf)]`: its type is checked to be `'static`, and not asked.
    Leaf,
    /// A function pointer. It is the address of code and holds nothing, whatever its arguments are.
    /// It gets a treatment of its own because `for<'a> fn(&'a A)` can neither be matched by an
    /// implementation of `Trace` for `fn(A)`, nor be a leaf when it mentions the lifetime of the
    /// heap.
    Code,
}

/// A field of a struct or of a variant.
pub(crate) struct Field<'a> {
    pub(crate) member: Member,
    pub(crate) ty: &'a Type,
    pub(crate) treatment: Treatment,
}

/// A struct's fields, or a variant's.
pub(crate) struct Variant<'a> {
    /// `None` for a struct.
    pub(crate) name: Option<&'a Ident>,
    pub(crate) fields: Vec<Field<'a>>,
}

/// The item under the derive.
pub(crate) struct Item<'a> {
    pub(crate) name: &'a Ident,
    pub(crate) generics: &'a Generics,
    /// One variant without a name for a struct.
    pub(crate) variants: Vec<Variant<'a>>,
    pub(crate) is_enum: bool,
    /// Marked `#[trace(leaf)]` as a whole.
    pub(crate) leaf: bool,
    /// Whether it is `#[repr(transparent)]`.
    pub(crate) transparent: bool,
    /// Path to the `spanheap` crate.
    pub(crate) krate: Path,
}

impl<'a> Item<'a> {
    /// Reads an item, or says everything that is wrong with it.
    pub(crate) fn read(input: &'a DeriveInput) -> syn::Result<Item<'a>> {
        let mut errors = Errors::default();
        let options = TypeOptions::read(&input.attrs, &mut errors);
        let repr = Repr::read(&input.attrs);
        // A leaf is not looked into, so neither reason against a packed type holds for it.
        if let (Some(span), false) = (repr.packed, options.leaf) {
            refuse_packed(span, &mut errors);
        }
        let mut is_enum = false;
        let variants = match &input.data {
            Data::Struct(data) => {
                vec![Variant { name: None, fields: read_fields(&data.fields, &mut errors) }]
            }
            Data::Enum(data) => {
                is_enum = true;
                data.variants
                    .iter()
                    .map(|variant| {
                        refuse_on_variant(&variant.attrs, &mut errors);
                        let fields = read_fields(&variant.fields, &mut errors);
                        Variant { name: Some(&variant.ident), fields }
                    })
                    .collect()
            }
            Data::Union(data) => {
                errors.add(
                    data.union_token.span,
                    "`Trace` cannot be derived for a union: nothing says which of its fields is \
                     alive; use an enum, or implement `Trace` by hand",
                );
                Vec::new()
            }
        };
        errors.unless_any(Item {
            name: &input.ident,
            generics: &input.generics,
            variants,
            is_enum,
            leaf: options.leaf,
            transparent: repr.transparent,
            krate: options.krate.unwrap_or_else(|| parse_quote!(::spanheap)),
        })
    }

    /// All fields of all variants.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Field<'a>> {
        self.variants.iter().flat_map(|variant| &variant.fields)
    }

    /// Whether the type is `'static` whatever its parameters are, because it has no parameter that
    /// could make it anything else.
    pub(crate) fn is_always_static(&self) -> bool {
        self.generics.lifetimes().next().is_none() && self.generics.type_params().next().is_none()
    }
}

fn refuse_packed(span: Span, errors: &mut Errors) {
    errors.add(
        span,
        "`Trace` cannot be derived for a packed type: the collector reads pointers atomically, so \
         they have to be aligned; if the type holds no `Gc`, mark it `#[trace(leaf)]`",
    );
}

fn read_fields<'a>(fields: &'a Fields, errors: &mut Errors) -> Vec<Field<'a>> {
    fields
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let treatment = if field_is_leaf(&field.attrs, errors) {
                Treatment::Leaf
            } else if is_function_pointer(&field.ty) {
                Treatment::Code
            } else {
                Treatment::Traced
            };
            let member = match &field.ident {
                Some(name) => Member::Named(name.clone()),
                None => Member::Unnamed(Index::from(index)),
            };
            Field { member, ty: &field.ty, treatment }
        })
        .collect()
}

fn is_function_pointer(ty: &Type) -> bool {
    match ty {
        Type::BareFn(_) => true,
        Type::Paren(paren) => is_function_pointer(&paren.elem),
        Type::Group(group) => is_function_pointer(&group.elem),
        _ => false,
    }
}
