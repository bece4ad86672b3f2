//! The program `tidegate`: see the library for everything that it does.

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Before anything builds a TLS config: rustls must not have to guess between providers.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("tidegate: another TLS provider was installed before ours");
        return ExitCode::FAILURE;
    }
    match tidegate::cli::Cli::of_process().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tidegate: {error:#}");
            ExitCode::FAILURE
        }
    }
}
