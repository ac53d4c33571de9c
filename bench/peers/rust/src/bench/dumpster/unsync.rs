//! dumpster for one thread. With several, each has its own objects.

use std::cell::OnceCell as Once;

use dumpster::unsync::Gc;

#[path = "binary_trees.rs"]
pub mod binary_trees;
#[path = "gcbench.rs"]
pub mod gcbench;
#[path = "message_bus.rs"]
pub mod message_bus;
