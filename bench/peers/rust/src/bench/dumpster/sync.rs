//! dumpster for several threads.

use std::sync::OnceLock as Once;

use dumpster::sync::Gc;

#[path = "binary_trees.rs"]
pub mod binary_trees;
#[path = "gcbench.rs"]
pub mod gcbench;
#[path = "message_bus.rs"]
pub mod message_bus;
