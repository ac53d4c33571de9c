//! What stands for [`peers`](super::peers) in a program without them.

use super::variants::Named;

/// Why peers are missing, if they are.
pub(super) const ABSENT: Option<&str> = Some(
    "the peers bumpalo, bumpalo-new and mimalloc are not built in: cargo run --release --features peers",
);

/// All peers.
pub(super) fn variants() -> Vec<Named> {
    Vec::new()
}
