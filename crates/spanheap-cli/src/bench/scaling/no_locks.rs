//! What stands for `locks` in a program that does not count.

use super::Lock;
use crate::failure::{Failure, Result};

/// Says how to get a program that counts.
pub(super) fn locks() -> Result<Vec<Lock>> {
    Err(Failure::new(
        "this program was built without the counting of locks; try\n    cargo run --release --features lock-profile \
         -- bench scaling",
    ))
}
