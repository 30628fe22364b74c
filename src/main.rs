//! The `lamplighter` binary; everything is in the library.

fn main() -> std::process::ExitCode {
    lamplighter::cli::main()
}
