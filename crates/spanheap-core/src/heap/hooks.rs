//! Functions of the user's that are told what would otherwise be silent: code of his that has panicked where
//! nobody could catch it, threads that keep the collector waiting, and what a cycle was.
//!
//! A hook is called without any lock held, and contained: if it panics itself, that is the end of it, and the
//! heap goes on. What a hook may do depends on the thread that it is called on, which the fields of [`Hooks`]
//! say. Where the collector is at work it may not use the heap that calls it, because it would wait for itself;
//! entering or collecting panics there, and is contained.

use super::cycle_trace::CycleTrace;
use crate::fatal::contain;
use core::any::Any;
use core::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A destructor or a trace function has panicked.
#[derive(Debug)]
#[non_exhaustive]
pub struct UserPanic<'a> {
    /// The type whose code it was. Where types share spans, for want of a verification mode, it is the one
    /// for which the span's class was made.
    pub type_name: &'static str,
    /// What it panicked with.
    pub payload: &'a (dyn Any + Send),
}

impl UserPanic<'_> {
    /// The message, if it is text, as that of `panic!` is.
    pub fn message(&self) -> Option<&str> {
        message_of(self.payload)
    }
}

/// The text that somebody panicked with.
pub(crate) fn message_of(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// A thread that keeps the collector waiting: it has been inside one closure since before the wait began.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Delay {
    /// The system's number for the thread, as debuggers and `/proc/self/task` have it.
    pub thread: i32,
    /// Its name, as far as the system keeps it (15 bytes), if there is one.
    pub name: Option<String>,
    /// How long the collector has waited so far.
    pub waited: Duration,
}

impl Delay {
    /// What a watchdog is told.
    pub(crate) fn new(thread: i32, waited: Duration) -> Delay {
        Delay { thread, name: crate::os::thread::name_of(thread), waited }
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Delay { thread, name, waited } = self;
        let name = name.as_deref().unwrap_or("unnamed");
        write!(f, "thread {thread} ({name}) has kept the collector waiting for {waited:.1?}")
    }
}

/// A hook that is told of a panic.
pub type PanicHook = Arc<dyn Fn(&UserPanic<'_>) + Send + Sync>;

/// A hook that is told of a thread.
pub type DelayHook = Arc<dyn Fn(&Delay) + Send + Sync>;

/// A hook that is told of a cycle.
pub type CycleHook = Arc<dyn Fn(&CycleTrace) + Send + Sync>;

/// The hooks of a heap.
#[derive(Clone, Default)]
pub struct Hooks {
    /// A destructor has panicked. Called on the drop thread (at the end of the heap on the thread that ends
    /// it), between two destructors. It may use the heap.
    pub drop_panic: Option<PanicHook>,
    /// A trace function has panicked, so this cycle will retain everything. Called where it has: on one of the
    /// threads that mark, on a thread that offers its time, or on one that is in the midst of an allocation.
    pub trace_panic: Option<PanicHook>,
    /// The collector has waited that long for a closure to end: told of each such thread, once for each time
    /// that the duration has passed. Called on the collector's thread.
    pub watchdog: Option<(Duration, DelayHook)>,
    /// A cycle has ended, and everything is swept. Called on the collector's thread, before those who wait for the
    /// cycle go on; the next one does not begin before the hook has returned.
    pub cycle: Option<CycleHook>,
}

impl Hooks {
    /// No hooks.
    pub const fn none() -> Hooks {
        Hooks { drop_panic: None, trace_panic: None, watchdog: None, cycle: None }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("drop_panic", &self.drop_panic.is_some())
            .field("trace_panic", &self.trace_panic.is_some())
            .field("watchdog", &self.watchdog.as_ref().map(|(every, _)| every))
            .field("cycle", &self.cycle.is_some())
            .finish()
    }
}

/// Tells a hook, if there is one, of a panic.
pub(crate) fn tell(hook: Option<&PanicHook>, type_name: &'static str, payload: &(dyn Any + Send)) {
    if let Some(hook) = hook {
        contain(|| hook(&UserPanic { type_name, payload }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_hook_that_panics_is_contained() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = seen.clone();
        let hook: PanicHook = Arc::new(move |panic| {
            let message = panic.message().map(str::to_owned);
            told.lock().unwrap().push((panic.type_name, message));
            std::panic::panic_any("the hook itself");
        });
        tell(Some(&hook), "A", &"text");
        tell(Some(&hook), "B", &String::from("owned"));
        tell(Some(&hook), "C", &17u8);
        tell(None, "D", &"nobody hears it");
        let owned = |text: &str| Some(text.to_owned());
        let expected = [("A", owned("text")), ("B", owned("owned")), ("C", None)];
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}
