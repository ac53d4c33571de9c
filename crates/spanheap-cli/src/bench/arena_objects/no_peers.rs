//! What stands for [`peers`](super::peers) in a program without them.

use super::variants::Variant;

/// Why peers are missing, if they are.
pub(super) const ABSENT: Option<&str> =
    Some("the peer bumpalo is not built in: cargo run --release --features peers");

/// All peers.
pub(super) fn variants() -> Vec<(&'static str, Box<dyn Variant>)> {
    Vec::new()
}
