//! The program `polaron`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(polaron_train::main())
}
