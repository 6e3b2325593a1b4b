//! The `memstock` binary.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use memstock::cli::Cli;
use memstock::cli::command;
use memstock::exit;

fn main() -> ExitCode {
    // Whoever started this program may ignore it, and then the kernel reaps COMMAND, and with it its exit code.
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(exit::usage(&error)),
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(cli.log_level()))
        .format(|out, record| out.write_all(exit::log_lines(record).as_bytes()))
        .init();
    match command::execute(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            exit::report(&error);
            ExitCode::from(exit::exit_code(&error))
        }
    }
}
