//! Any bytes that another node or NATS may give the cluster are a value or an error.
//!
//! A value that was read is written and read again, and is the same.

#![no_main]

use std::fmt::Debug;

use hearthmq::internals::cluster::{
    asking::form::{ClientsQuestion, ClientsReply},
    forwards::Forward,
    lanes::{LaneAnswer, LaneItem, Mail, MailBatch},
    lease::Lease,
    members::MemberRecord,
    owners::OwnerRecord,
    questions::{NodeQuestion, QuestionReply},
    routes::RouteEntry,
    wire::{Wire, decode, encode},
};
use libfuzzer_sys::fuzz_target;

fn read<T: Wire + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(bytes) {
        assert_eq!(decode(&encode(&value)), Ok(value));
    }
}

fuzz_target!(|bytes: &[u8]| {
    read::<Lease>(bytes);
    read::<MemberRecord>(bytes);
    read::<OwnerRecord>(bytes);
    read::<Mail>(bytes);
    read::<LaneItem>(bytes);
    read::<MailBatch>(bytes);
    read::<LaneAnswer>(bytes);
    read::<RouteEntry>(bytes);
    read::<Forward>(bytes);
    read::<NodeQuestion>(bytes);
    read::<QuestionReply>(bytes);
    read::<ClientsQuestion>(bytes);
    read::<ClientsReply>(bytes);
});
