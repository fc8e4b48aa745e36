//! The `syncline` command.

use std::process::ExitCode;

use clap::Parser;

mod commands;

use commands::{Command, ServeArguments};

/// Requests are served by many small allocations on several threads, in which it is faster than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One local-first sync server.
#[derive(Parser)]
#[command(name = "syncline", version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArguments,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes on one line; a backtrace would tell whoever runs the server nothing.
            eprintln!("syncline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // More threads than cores: a statement runs where it was asked for, and a slow one must not keep the others waiting.
    let threads = std::thread::available_parallelism().map_or(4, |cores| cores.get() * 2).max(4);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(commands::run(cli.command.unwrap_or(Command::Serve(cli.serve))))
}
