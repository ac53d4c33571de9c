//! [`Rootable`]: how a `Root` names a type whose lifetime it does not know yet.
//!
//! A root outlives the closure it was made in, and the object is seen again in another closure,
//! with another lifetime. So its parameter cannot be `Node<'gc>` for any one `'gc`; it has to be
//! the function from `'gc` to `Node<'gc>`. Rust has no such parameters, but a trait with a lifetime
//! parameter and an associated type is such a function, and it needs no type to carry it: the trait
//! object `dyn for<'gc> Rootable<'gc, Root = Node<'gc>>` implements the trait by its own name. It
//! is never made; only its type is used. The wrapper [`__DynRootable`] gives it a size.

use core::marker::PhantomData;

/// A type that depends on the lifetime of a closure; written with the macro
/// [`Rootable!`](macro@crate::Rootable).
///
/// A type without a lifetime may implement it by hand, to have a name for what is rooted:
///
/// ```
/// use spanheap::Rootable;
///
/// enum ScriptRoot {}
///
/// impl<'gc> Rootable<'gc> for ScriptRoot {
///     type Root = Option<&'gc str>;
/// }
/// ```
pub trait Rootable<'gc> {
    /// The type in a closure whose lifetime is `'gc`.
    type Root: ?Sized + 'gc;
}

/// Carries the trait object that [`Rootable!`](macro@crate::Rootable) expands to.
#[doc(hidden)]
pub struct __DynRootable<T: ?Sized>(PhantomData<fn() -> PhantomData<T>>);

impl<'gc, T: ?Sized + Rootable<'gc>> Rootable<'gc> for __DynRootable<T> {
    type Root = T::Root;
}

/// The type of what a `Root` keeps: a type whose lifetime is left open.
///
/// Leave the lifetime out, or name it:
///
/// ```
/// use spanheap::Rootable;
/// # struct Node<'gc>(std::marker::PhantomData<&'gc ()>);
/// # struct Edge<'gc, 'a>(std::marker::PhantomData<(&'gc (), &'a ())>);
///
/// type Nodes = Rootable![[Node<'_>]];
/// type Edges = Rootable!['gc => Edge<'gc, 'static>];
/// type Text = Rootable![str];
/// ```
///
/// Every `'_`, and every reference without a lifetime, gets the lifetime of the closure. In
/// function types they keep their usual meaning.
#[macro_export]
macro_rules! Rootable {
    ($gc:lifetime => $root:ty) => {
        $crate::__DynRootable<dyn for<$gc> $crate::Rootable<$gc, Root = $root>>
    };
    ($root:ty) => {
        $crate::__DynRootable<
            dyn for<'__gc> $crate::Rootable<
                '__gc,
                Root = $crate::__private::unelide_lifetimes!('__gc; $root),
            >,
        >
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::any::TypeId;

    struct Node<'gc>(PhantomData<&'gc ()>);
    struct Plain;

    /// The type that a root of `R` is in a closure with lifetime `'gc`.
    type Rooted<'gc, R> = <R as Rootable<'gc>>::Root;

    fn static_id<R: for<'gc> Rootable<'gc>>() -> TypeId
    where
        Rooted<'static, R>: 'static,
    {
        TypeId::of::<Rooted<'static, R>>()
    }

    #[test]
    fn types_without_lifetimes_are_themselves() {
        assert_eq!(static_id::<Rootable![Plain]>(), TypeId::of::<Plain>());
        assert_eq!(static_id::<Rootable![str]>(), TypeId::of::<str>());
        assert_eq!(static_id::<Rootable![[u64]]>(), TypeId::of::<[u64]>());
        assert_eq!(static_id::<Rootable![dyn Send]>(), TypeId::of::<dyn Send>());
    }

    #[test]
    fn lifetimes_are_filled_in() {
        assert_eq!(static_id::<Rootable![Node<'_>]>(), TypeId::of::<Node<'static>>());
        assert_eq!(static_id::<Rootable!['a => Node<'a>]>(), TypeId::of::<Node<'static>>());
        assert_eq!(static_id::<Rootable![[&Node<'_>]]>(), TypeId::of::<[&'static Node<'static>]>());
        let id = static_id::<Rootable![Option<(Node<'_>, fn(&u8) -> &u8)>]>();
        assert_eq!(id, TypeId::of::<Option<(Node<'static>, fn(&u8) -> &u8)>>());
    }

    /// Compiles only if the root of `R` in any closure is a node of that closure, and no other.
    fn check_shorter_than_static<'gc>(node: Node<'gc>) -> Rooted<'gc, Rootable![Node<'_>]> {
        node
    }

    #[test]
    fn the_lifetime_is_that_of_the_closure() {
        let local = 1;
        let brand = PhantomData::<&()>;
        let _: &i32 = &local;
        let Node(PhantomData) = check_shorter_than_static(Node(brand));
    }

    #[test]
    fn a_rootable_is_send_sync_and_static_whatever_it_names() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Rootable![Node<'_>]>();
        check::<Rootable![std::rc::Rc<Node<'_>>]>();
    }
}
