//! The program `box-mimalloc`: boxes, with mimalloc for everything.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    spanheap_bench_peers::main(spanheap_bench_peers::BOX_MIMALLOC)
}
