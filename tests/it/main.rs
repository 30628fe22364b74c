//! Integration tests: the real binary over real Parquet, each test in its own folder.

mod analyst;
mod architecture;
mod cold;
mod evaluating;
mod gate;
mod inputs;
mod killed;
mod leakage;
mod mistakes;
mod night;
mod portable;
mod privacy;
mod redis_server;
mod report;
mod runs;
mod s3_server;
mod schedulers;
mod serving;
mod shop;
mod store;
mod table;
mod texts;
mod tuning;
mod warm;
mod watched;
mod week;
