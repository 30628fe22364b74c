//! Integration tests: the real binary over real Parquet, each test in its own folder.

mod analyst;
mod architecture;
mod evaluating;
mod gate;
mod inputs;
mod killed;
mod leakage;
mod mistakes;
mod night;
mod portable;
mod redis_server;
mod report;
mod runs;
mod schedulers;
mod serving;
mod shop;
mod table;
mod tuning;
mod warm;
mod watched;
mod week;
