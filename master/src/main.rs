//! The `landline` binary. Everything is in the library, so that tests can run it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    landline::cli::main()
}
