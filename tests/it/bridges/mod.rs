//! Bridges: dialogues with one broker whose bridge leads to the test, and with several brokers.

mod addresses;
mod between_brokers;
mod configuration;
mod cut;
mod network;
mod queue;
mod remote;
mod rounds;
