//! Integration tests: the real binary over real Parquet, each test in its own folder.

mod architecture;
mod evaluating;
mod gate;
mod inputs;
mod killed;
mod leakage;
mod mistakes;
mod night;
mod runs;
mod shop;
mod table;
mod tuning;
