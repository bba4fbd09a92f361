//! Backpressure: publishers wait for subscribers, owners wait for the store, and bytes in progress have a
//! limit.

mod budget;
mod store_queue;
mod waits;

pub(crate) use self::{
    budget::{Budget, BudgetShare},
    store_queue::{StoreLoad, StoreQueue},
    waits::Waits,
};
