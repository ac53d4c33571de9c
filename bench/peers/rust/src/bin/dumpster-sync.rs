//! The program `dumpster-sync`.

use std::process::ExitCode;

fn main() -> ExitCode {
    spanheap_bench_peers::main(spanheap_bench_peers::DUMPSTER_SYNC)
}
