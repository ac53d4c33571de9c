//! Verifying the heap on request: waiting until everything stands still, then a look at it
//! ([`crate::heap::verify`]).
//!
//! The collector's thread does it between two cycles, as checkmark mode does within one: it closes the gate and
//! waits until every closure that is open has ended. Then it has the mutators' caches given back and sweeps what
//! waits, so that every span is where it belongs and every bit means one thing. Threads may neither attach nor
//! detach meanwhile; the drop thread may run destructors, and cannot finish a batch.
//!
//! So whoever is in a closure is waited for, and whoever wants in waits, for as long as it takes to look at a heap:
//! some milliseconds for each 100 MB. A closure that waits for another one to begin would wait for ever.

use super::collector::Collector;
use super::undertaker::Undertaker;
use crate::heap::verify::Verified;
use std::sync::Arc;

impl Collector {
    /// Verifies the heap for whoever waits for that. Between two cycles, on the collector's thread.
    pub(super) fn serve_verifiers(&self, _: &mut Undertaker) {
        let word = self.word();
        self.control.verification_begins();
        self.control.set_gate(true);
        self.publish(word.gated());
        self.grace_period(|| {});
        let outcome = self.registry.while_nobody_comes_or_goes(&self.central, || {
            self.central.catch_up();
            // Who offers his time sweeps outside of closures: he is waited for, too.
            self.central.sweep_everything();
            self.central.verify()
        });
        self.publish(word);
        self.control.gap().close();
        self.control.set_gate(false);
        self.control.verified(outcome);
    }

    /// Verifies the heap and waits for the outcome; `None` when it is being dropped. The calling thread is not
    /// inside a closure, and is not the collector's.
    pub fn verify_heap(&self) -> Option<Arc<Verified>> {
        self.control.wait_for_verification(|| self.central.alarm().ring())
    }
}
