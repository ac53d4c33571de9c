//! The collection that comes because none has come for long.
//!
//! A heap that does not grow is never collected for its growth. What it has let go of stays in
//! memory, and destructors wait. So after two minutes without a cycle there is one all the same. It
//! is nobody's business to be quick about it (see [`crate::collect::mark_workers`]).
//!
//! A heap without a percent is collected on demand only, and gets none of these.

use super::Policy;
use core::time::Duration;

/// How long nothing happens if nothing else is said.
pub const PERIOD: Duration = Duration::from_secs(120);

/// How long it is until a cycle is due, when the last one (or the making of the heap) was `idle` ago;
/// zero: it is. `None`: it never is.
pub fn until_due(policy: Policy, period: Option<Duration>, idle: Duration) -> Option<Duration> {
    policy.percent?;
    Some(period?.saturating_sub(idle))
}
