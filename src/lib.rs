//! Lamplighter: batch recommendation on dataframes.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod ids;
pub mod matrix;
mod random;

pub mod lake;

pub mod behavior;
pub mod catalog;
pub mod cold;
pub mod encoder;
pub mod factor;
pub mod linear;
pub mod neighbors;
pub mod profile;
pub mod ranking;
pub mod repeat;
pub mod retrieval;

pub mod learning;
pub mod tuning;

pub mod evaluation;
pub mod gate;
pub mod publish;

pub mod cache;
pub mod observe;
pub mod report;

pub mod cli;
pub mod error;
pub mod job;
pub mod pipeline;
