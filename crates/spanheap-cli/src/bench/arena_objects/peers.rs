//! The peer: a bump allocator, which is reset for each arena.

use bumpalo::Bump;

use super::Parts;
use super::variants::{Before, PlainNode, PlainSmall, Variant, chain, graph, weigh, weigh_chain};

/// Why peers are missing, if they are.
pub(super) const ABSENT: Option<&str> = None;

/// All peers.
pub(super) fn variants() -> Vec<(&'static str, Box<dyn Variant>)> {
    vec![("bumpalo", Box::new(Reset { bump: Bump::new() }))]
}

struct Reset {
    bump: Bump,
}

#[inline(always)]
fn node<'b>(bump: &'b Bump, before: Before<&'b PlainNode<'b>>, number: u64) -> &'b PlainNode<'b> {
    bump.alloc(PlainNode { children: bump.alloc_slice_copy(&before), values: [number; 5] })
}

#[inline(always)]
fn small<'b>(
    bump: &'b Bump,
    before: Option<&'b PlainSmall<'b>>,
    number: u64,
) -> &'b PlainSmall<'b> {
    bump.alloc(PlainSmall { before, number })
}

impl Variant for Reset {
    fn nodes(&mut self, objects: u64, parts: &mut Parts) -> u64 {
        let bump = &self.bump;
        let last = graph(objects, |before, number| node(bump, before, number));
        let weight = parts.look(|| weigh(last, PlainNode::look));
        parts.free(|| self.bump.reset());
        weight
    }

    fn small(&mut self, objects: u64, parts: &mut Parts) -> u64 {
        let bump = &self.bump;
        let last = chain(objects, |before, number| small(bump, before, number));
        let weight = parts.look(|| weigh_chain(last, |small| (small.before, small.number)));
        parts.free(|| self.bump.reset());
        weight
    }
}
