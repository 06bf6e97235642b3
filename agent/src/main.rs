//! The agent's binary: reads the command line, hands over to one file per command. Exit codes: 64 for usage and
//! configuration, 1 for the rest.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = match cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are errors to clap, too. A closed terminal cannot be told.
            let _ = error.print();
            return if error.use_stderr() { cli::EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli::run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("landline-agent: {error:#}");
            if error.is::<landline_agent::config::Mistakes>() { cli::EXIT_USAGE.into() } else { ExitCode::FAILURE }
        }
    }
}
