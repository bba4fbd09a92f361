//! Backpressure: which publishers wait for which subscribers, and how much may be under way in all.

mod budget;
mod waits;

pub(crate) use self::{
    budget::{Budget, Share},
    waits::Waits,
};
