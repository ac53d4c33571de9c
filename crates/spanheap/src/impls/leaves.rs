//! Types without parameters, or with parameters that only appear in their name: there is nothing to
//! find.
//!
//! # Safety
//! A type without parameters is `'static`, so it holds no `Gc`, and `NoScan` and `LEAF` are the
//! truth. The implementations for types with parameters say for themselves why they hold none.
#![allow(unsafe_code)]

use core::any::TypeId;
use core::cmp::Ordering;
use core::convert::Infallible;
use core::marker::{PhantomData, PhantomPinned};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use core::num;
use core::sync::atomic;
use core::time::Duration;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::hash::{BuildHasherDefault, DefaultHasher, RandomState};
use std::path::{Path, PathBuf};
use std::thread::ThreadId;
use std::time::{Instant, SystemTime};

use spanheap_core::span::layout::Shape;

use crate::{Account, SharedArena, Trace, Tracer};

macro_rules! leaves {
    ($($ty:ty),* $(,)?) => {
        $(
            // SAFETY: the type has no parameters, so it is 'static and holds no `Gc`.
            unsafe impl Trace for $ty {
                const SHAPE: Shape = Shape::NoScan;
    const EXACT: bool = true;
                const LEAF: bool = true;

                #[inline]
                fn trace(&self, _: &mut Tracer<'_>) {}
            }
        )*
    };
}

leaves! {
    (), bool, char, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64,
    num::NonZeroU8, num::NonZeroU16, num::NonZeroU32, num::NonZeroU64, num::NonZeroU128,
    num::NonZeroUsize, num::NonZeroI8, num::NonZeroI16, num::NonZeroI32, num::NonZeroI64,
    num::NonZeroI128, num::NonZeroIsize,
    atomic::AtomicBool, atomic::AtomicU8, atomic::AtomicU16, atomic::AtomicU32, atomic::AtomicU64,
    atomic::AtomicUsize, atomic::AtomicI8, atomic::AtomicI16, atomic::AtomicI32, atomic::AtomicI64,
    atomic::AtomicIsize,
    str, String, CStr, CString, OsStr, OsString, Path, PathBuf,
    Duration, Instant, SystemTime,
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6,
    Ordering, Infallible, PhantomPinned, TypeId, ThreadId, RandomState, DefaultHasher, Account, SharedArena,
}

// SAFETY: a value of this type has no bytes. It is not a `LEAF`, because `T` need not be 'static.
unsafe impl<T: ?Sized> Trace for PhantomData<T> {
    const SHAPE: Shape = Shape::NoScan;
    const EXACT: bool = true;

    #[inline]
    fn trace(&self, _: &mut Tracer<'_>) {}
}

// SAFETY: a value of this type has no bytes. It is not a `LEAF`, because `H` need not be 'static.
unsafe impl<H> Trace for BuildHasherDefault<H> {
    const SHAPE: Shape = Shape::NoScan;
    const EXACT: bool = true;

    #[inline]
    fn trace(&self, _: &mut Tracer<'_>) {}
}

// `T` need not be `Trace` for this to be right. But if it were so, the compiler would answer who
// tries to allocate a type that is not `Trace` that a reference to it is: good for nobody.
//
// SAFETY: what the reference leads to is 'static, and so is the reference.
unsafe impl<T: ?Sized + Trace + 'static> Trace for &'static T {
    const SHAPE: Shape = Shape::NoScan;
    const EXACT: bool = true;
    const LEAF: bool = true;

    #[inline]
    fn trace(&self, _: &mut Tracer<'_>) {}
}

macro_rules! functions {
    ($($argument:ident)*) => {
        functions!(@each [$($argument)*]
            [fn($($argument),*) -> R]
            [unsafe fn($($argument),*) -> R]
            [extern "C" fn($($argument),*) -> R]
            [unsafe extern "C" fn($($argument),*) -> R]
        );
    };
    (@each $arguments:tt $([$($pointer:tt)*])*) => {
        $( functions!(@one $arguments $($pointer)*); )*
    };
    (@one [$($argument:ident)*] $($pointer:tt)*) => {
        // SAFETY: a function pointer is the address of code, and captures nothing. It is not a
        // `LEAF`, because its arguments need not be 'static.
        unsafe impl<R, $($argument),*> Trace for $($pointer)* {
            const SHAPE: Shape = Shape::NoScan;
    const EXACT: bool = true;

            #[inline]
            fn trace(&self, _: &mut Tracer<'_>) {}
        }
    };
}

functions!();
functions!(A);
functions!(A B);
functions!(A B C);
functions!(A B C D);
functions!(A B C D E);
functions!(A B C D E F);
