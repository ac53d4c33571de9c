//! Whoever says where the crate is can pass on the real `Trace` with checks that let everything pass. The derive
//! takes none from there.
use spanheap::Gc;

mod forged {
    pub use spanheap::{Trace, Tracer};

    pub mod __private {
        pub use spanheap::Shape;

        pub trait AssertStatic {
            fn assert_static() {}
        }
        impl<T: ?Sized> AssertStatic for T {}

        pub trait TypesThatHoldGcMustNotImplementDrop {}
    }
}

#[derive(forged::Trace)]
#[trace(crate = forged)]
struct Hidden<'gc> {
    #[trace(leaf)]
    unseen: Gc<'gc, u64>,
}

#[derive(forged::Trace)]
#[trace(crate = forged)]
struct Late<'gc> {
    gone: Gc<'gc, u64>,
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        println!("{}", self.gone);
    }
}

fn main() {}
